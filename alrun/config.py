"""Settings against the signatures they will meet, all problems at once; and the short name of a setting."""

import difflib
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

VERSIONED = False  # see alrun.code

# Cannot change the result, so they are no part of a run's identity.
PLACE = (
    *("device", "data_dir", "output_dir", "cache", "tracker", "journal", "progress", "sweep"),
    *("choices", "contents", "preset"),
)
# Count by what is in them, not by what they are called.
FILES = ("dataset.path", "budget.initial_rows", "model.pretrained", "featurizer.weights")


class ConfigError(ValueError):
    """Settings that cannot work; each problem is one line that begins with the full key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def check(settings: Mapping[str, Any], entry: Callable[..., Any]) -> list[str]:
    """All problems of settings against the signature of `entry`, one line each, in the settings' order.

    Every node with `_target_` is held against the signature it names: unknown keys (with the closest match),
    missing ones, wrong types and values out of range (ranges stand in the annotation).
    """
    return list(_against_signature("", settings, entry))


def closest(word: str, known: list[str]) -> str:
    """A hint that names the most similar known word, or lists what there is."""
    match = difflib.get_close_matches(word, known, 1, 0.6)
    return f"did you mean {match[0]}?" if match else f"there are {', '.join(sorted(known))}"


def settings_id(settings: Mapping[str, Any]) -> str:
    """Eight hex digits that name the settings which can change a result."""
    text = json.dumps(_identity(settings), sort_keys=True, default=written)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key: old there, new here` for every setting of the identity that differs."""
    before, after = flat(_identity(old)), flat(_identity(new))
    keys = [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]
    return [f"{key}: {before.get(key, 'absent')} there, {after.get(key, 'absent')} here" for key in keys]


def flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of full keys."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        out.update(flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value})
    return out


def content_digest(path: Path) -> str:
    """sha256 of a file; of a folder's `.npy` files and their names, or without any, of its `listing`."""
    digest = hashlib.sha256()
    parts = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if not parts:
        digest.update(listing(path).encode())
    for part in parts:
        digest.update(part.name.encode() if path.is_dir() else b"")
        with part.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    return digest.hexdigest()


def written(value: object) -> Any:
    """What stands in JSON for a value that it does not know; arrays count by their contents.

    Raises:
        ValueError: a value for which no text stands, so that another one might be taken for it.
    """
    import numpy as np  # not above: `alrun --help` need not wait for it

    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        content = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        return f"{value.dtype.str} {value.shape} sha256:{content}"
    raise ValueError(
        f"settings must be numbers, text, lists or arrays, got a {type(value).__name__}: {value!r}; "
        "a part may have a property `identity` with those that matter"
    )


def listing(folder: Path) -> str:
    """A line for each file below, with its size in bytes; hidden files and folders are left out."""
    lines = []
    for top, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        files = [Path(top, name) for name in names if not name.startswith(".")]
        lines += [f"{each.relative_to(folder).as_posix()}\t{each.stat().st_size}\n" for each in files]
    return "".join(sorted(lines))


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in PLACE and not _is_none(value)}
    out = json.loads(json.dumps(kept, default=written))
    for key, digest in (settings.get("contents") or contents(settings)).items():
        group, name = key.split(".")
        out[group][name] = digest
    return out


def contents(settings: Mapping[str, Any]) -> dict[str, str]:
    """`sha256:...` of what is in each file that the settings name.

    Raises:
        ConfigError: a file that is not there.
    """
    named = {key: value for key, value in flat(settings).items() if key in FILES and isinstance(value, str)}
    found = {key: value for key, value in named.items() if value != "???"}
    missing = [
        f"{key}: no such file or folder {value} (relative to {Path.cwd()}); check the path"
        for key, value in found.items()
        if not Path(value).expanduser().exists()
    ]
    if missing:
        raise ConfigError(missing)
    return {key: f"sha256:{content_digest(Path(value).expanduser())}" for key, value in found.items()}


def _is_none(value: Any) -> bool:
    """A group set to `none` composes to null or to an empty node."""
    return value is None or value == {}


def _against_signature(prefix: str, node: Mapping[str, Any], target: Callable[..., Any]) -> Iterator[str]:
    parameters = inspect.signature(target).parameters
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in parameters:
            yield f"{prefix}{name}: no such setting; {closest(name, list(parameters))}"
        else:
            yield from _value_problems(f"{prefix}{name}", value, hints[name])
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in node:
            yield f"{prefix}{name}: missing; give {prefix}{name}=<value>"


def _value_problems(key: str, value: Any, hint: Any) -> Iterator[str]:
    if value == "???":
        yield f"{key}: needs a value; give {key}=<value>"
    elif isinstance(value, Mapping) and "_target_" in value:
        target = _located(value["_target_"])
        if target is None:
            yield f"{key}._target_: cannot import {value['_target_']}; is its folder on PYTHONPATH?"
        else:
            yield from _against_signature(f"{key}.", value, target)
    elif not _is_none(value) and isinstance(value, Mapping):
        yield from (f"{key}.{name}: no such setting; {key} is none" for name in value)
    elif (problem := _type_problem(value, hint)) is not None:
        yield f"{key}: {problem}, got {value!r}"


def _type_problem(value: Any, hint: Any) -> str | None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if _is_none(value):
        value = None
    if any(getattr(part, "__module__", "").startswith("alrun.") for part in (hint, *get_args(hint))):
        return (
            None if value is None and type(None) in get_args(hint) else "must be one of this group's choices"
        )
    try:
        config = ConfigDict(arbitrary_types_allowed=True, strict=True)
        TypeAdapter(hint, config=config).validate_python(value)
    except ValidationError as error:
        rules = [each["msg"].replace("Input should be", "must be") for each in error.errors()]
        return " or ".join(dict.fromkeys(rules))
    return None


def _located(path: str) -> Callable[..., Any] | None:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
