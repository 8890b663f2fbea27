"""The version of a piece of code: what it and all it imports from its own package say, comments left out."""

import ast
import hashlib
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OWN = "alrun"


def code_version(module: str) -> str:
    """16 hex digits that change when the code of this module, or of one it imports, does.

    Followed are modules of `alrun`, of the module's own top-level package, and those beside it, unless that
    is where Python or pip keep all there is; docstrings, comments and layout do not count. Modules without
    source (built in, or compiled) count by their name.

    A module that says `VERSIONED = False` does not count where others import it, nor does what it imports:
    it draws, keeps or checks, and no number that others make follows from it.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        digest.update(f"{name}:{_tree(name)}\n".encode())
    return digest.hexdigest()[:16]


def _closure(module: str) -> set[str]:
    """The module and all that it imports, directly or not, of these packages."""
    packages = {OWN, module.split(".")[0]}
    folder = None if packages == {OWN} else _folder(module)
    found, open_ = set[str](), [module]
    while open_:
        name = open_.pop()
        if name not in found and (name == module or _counts(name)):
            found.add(name)
            imported = _imports(name)
            open_ += [each for each in imported if each.split(".")[0] in packages or _lies_in(folder, each)]
    return found


def _lies_in(folder: Path | None, module: str) -> bool:
    return folder is not None and _folder(module) == folder


@cache
def _folder(module: str) -> Path | None:
    """Where the module's top-level package or file lies, unless much else lies there, too."""
    file = _file(module.split(".")[0])
    if file is None:
        return None
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    shared = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return None if folder in shared else folder


@cache
def _file(module: str) -> Path | None:
    """The module's source, found without importing it."""
    package, _, name = module.rpartition(".")
    if module in sys.modules or not package:
        found = _loaded_or_top(module)
        return Path(found) if found and found.endswith(".py") and Path(found).is_file() else None
    above = _file(package)
    if above is None or above.name != "__init__.py":
        return None
    places = (above.parent / f"{name}.py", above.parent / name / "__init__.py")
    return next((place for place in places if place.is_file()), None)


def _loaded_or_top(module: str) -> str | None:
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None)
    spec = find_spec(module) if module else None
    return spec.origin if spec else None


@cache
def _source(module: str) -> ast.Module | None:
    file = _file(module)
    return None if file is None else ast.parse(file.read_text(encoding="utf-8"))


@cache
def _counts(module: str) -> bool:
    """Whether the module does not say `VERSIONED = False`."""
    tree = _source(module)
    said = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)] if tree else []
    return "VERSIONED = False" not in said


@cache
def _tree(module: str) -> str:
    tree = _source(module)
    if tree is None:
        return ""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and body and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@cache
def _imports(module: str) -> tuple[str, ...]:
    tree = _source(module)
    names = list[str]()
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            # what is imported may be a module itself
            names.append(origin)
            names += [name for each in node.names if _file(name := f"{origin}.{each.name}") is not None]
    return tuple(names)


def _origin(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file, parts = _file(module), module.split(".")
    is_package = file is not None and file.name == "__init__.py"
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])
