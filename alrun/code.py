"""The version of a piece of code: what it and all it imports from its own package say, comments left out."""

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

OWN = "alrun"


def code_version(module: str) -> str:
    """16 hex digits that change when the code of this module, or of one it imports, does.

    Followed are modules of `alrun` and of the module's own top-level package; docstrings, comments and layout
    do not count. Modules without source (built in, or compiled) count by their name.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        digest.update(f"{name}:{_tree(name)}\n".encode())
    return digest.hexdigest()[:16]


def _closure(module: str) -> set[str]:
    """The module and all that it imports, directly or not, of these packages."""
    packages = {OWN, module.split(".")[0]}
    found, open_ = set[str](), [module]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += [each for each in _imports(name) if each.split(".")[0] in packages]
    return found


@cache
def _file(module: str) -> Path | None:
    """The module's source, found without importing it."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return Path(loaded) if loaded.endswith(".py") else None
    package, _, name = module.rpartition(".")
    above = _file(package) if package else None
    if above is None or above.name != "__init__.py":
        return None
    places = (above.parent / f"{name}.py", above.parent / name / "__init__.py")
    return next((place for place in places if place.is_file()), None)


@cache
def _source(module: str) -> ast.Module | None:
    file = _file(module)
    return None if file is None else ast.parse(file.read_text(encoding="utf-8"))


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
