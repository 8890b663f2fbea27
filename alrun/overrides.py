"""The command line's own mistakes, found all at once where Hydra would stop at the first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alrun.config import ConfigError, closest

Check = Callable[[Mapping[str, Any]], object]


def mistakes(words: Sequence[str], folder: str | None, multirun: bool, check: Check) -> list[str]:
    """Every mistake of these overrides, one line each, beginning with the full key.

    Values are set whether the key exists or not, so that `check`, which raises ConfigError for composed
    settings, sees all of them together. In a sweep each value of each axis is checked once.
    """
    search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
    with initialize_config_module("alrun.conf", version_base="1.3"):
        try:
            parsed = OverridesParser.create().parse_overrides(list(words))
        except HydraException as error:
            return [f"command line: {_first_line(error)}"]
        groups = _Groups(search)
        wrong = [line for each in parsed for line in _choice_mistakes(each, groups, multirun)]
        bad = {each.key_or_group for each in parsed if list(_choice_mistakes(each, groups, multirun))}
        good = [each for each in parsed if each.key_or_group not in bad]
        lines = list(wrong)
        for combination in _combinations(good, groups, multirun):
            lines += _composed(search + combination, check)
    hidden = tuple(f"{key}." for key in bad)
    return list(dict.fromkeys(line for line in lines if line in wrong or not line.startswith(hidden)))


def for_a_sweep(words: Sequence[str], folder: str | None) -> list[str]:
    """Checked overrides as Hydra takes them in a sweep.

    Before it expands a sweep, Hydra applies the plain assignments to the default choices, where a setting of
    the choices swept over may not exist.
    """
    with initialize_config_module("alrun.conf", version_base="1.3"):
        groups = _Groups([f"hydra.searchpath=[file://{folder}]"] if folder else [])
        parsed = OverridesParser.create().parse_overrides(list(words))
        plain = [each.is_add() or each.is_delete() or each.is_force_add() for each in parsed]
        return [
            word if spelled or groups.choices(each.key_or_group) or word.startswith("hydra") else f"++{word}"
            for word, each, spelled in zip(words, parsed, plain, strict=True)
        ]


class _Groups:
    """Choices of a configuration group, also those in the user's own folder."""

    def __init__(self, search: list[str]) -> None:
        self._search = search
        self._loader = GlobalHydra.instance().config_loader()
        self._known: dict[str, list[str]] = {}

    def choices(self, name: str) -> list[str]:
        if name not in self._known:
            self._known[name] = self._loader.get_group_options(
                name, ObjectType.CONFIG, config_name="config", overrides=self._search
            )
        return self._known[name]


def _choice_mistakes(override: Override, groups: _Groups, multirun: bool) -> Iterator[str]:
    key = override.key_or_group
    if override.is_sweep_override() and not multirun:
        yield f"{key}: several values without a sweep, got {override.input_line}; add -m to run them all"
        return
    if override.value_type == ValueType.INTERVAL_SWEEP:
        yield f"{key}: interval() has no values to list, got {override.input_line}; write them one by one"
        return
    choices = groups.choices(key)
    values = [] if override.is_delete() else _values(override, choices)
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP and not values:
        known = f"there are {', '.join(choices)}" if choices else "only groups have choices to match"
        yield f"{key}: glob matches nothing, got {override.input_line}; {known}"
    for value in values:
        if choices and value not in choices and not value.startswith("["):
            yield f"{key}: no such choice, got {value}; {closest(value, choices)}"


def _values(override: Override, choices: list[str]) -> list[str]:
    """What an override stands for, as text; a sweep stands for several values."""
    if override.is_sweep_override():
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            return override.value().filter(choices)  # type: ignore[union-attr]
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def _combinations(overrides: list[Override], groups: _Groups, multirun: bool) -> Iterator[list[str]]:
    """The first value of every axis together, then each other value of each axis."""
    axes = [
        [_loose(each, value, groups) for value in _values(each, groups.choices(each.key_or_group))]
        if not each.is_delete()
        else [each.input_line or ""]
        for each in overrides
    ]
    base = [axis[0] for axis in axes if axis]
    yield base
    if multirun:
        for place, axis in enumerate(axes):
            yield from ([*base[:place], other, *base[place + 1 :]] for other in axis[1:])


def _loose(override: Override, value: str, groups: _Groups) -> str:
    """An assignment that also works for a key that does not exist; choices of groups stay as they are."""
    key = override.get_key_element()
    if groups.choices(override.key_or_group) or override.key_or_group.startswith("hydra"):
        return f"{key}={value}"
    return f"++{key.lstrip('+')}={value}"


def _composed(words: list[str], check: Check) -> list[str]:
    brought: Mapping[str, str] = {}
    lines: list[str] = []
    try:
        config = compose("config", words)
        settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        assert isinstance(settings, dict)
        brought = settings.get("choices", {})
        lines = list(_contradictions(words, brought))
        check(settings)  # type: ignore[arg-type]
    except ConfigError as error:
        return lines + _without_clashes(words, brought, error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        return [f"{_culprit(words, error)}: {_first_line(error)}"]
    return lines


def _contradictions(words: list[str], brought: Mapping[str, str]) -> Iterator[str]:
    """Groups chosen by hand whose choice another group's brings, as `trainer=frozen_head` does."""
    for group, choice in brought.items():
        for word in words:
            if word.startswith(f"{group}=") and word != f"{group}={choice}":
                yield f"{group}: another choice brings {group}={choice}, got {word}; drop one of them"


def _without_clashes(words: list[str], brought: Mapping[str, str], problems: list[str]) -> list[str]:
    """Problems; as one those about what nobody typed, of a part that another choice replaces."""
    typed = [word.lstrip("+").partition("=") for word in words]
    own = {key for key, _, _ in typed}
    experiment = next((value for key, _, value in typed if key == "experiment"), None)
    for group, choice in brought.items() if experiment else ():
        if clash := _untyped(group, own, problems):
            problems = [line for line in problems if line.split(":")[0] not in clash]
            problems.append(
                f"{group}: another choice brings {group}={choice}, and experiment={experiment} sets "
                f"{', '.join(clash)} of its own; drop one of them"
            )
    for group, _, choice in typed:
        if clash := _untyped(group, own, [line for line in problems if "no such setting" in line]):
            problems = [line for line in problems if line.split(":")[0] not in clash]
            problems.append(
                f"{group}: another choice makes it a part that does not know {', '.join(clash)} of "
                f"{group}={choice}; drop one of them"
            )
    return problems


def _untyped(group: str, own: set[str], problems: list[str]) -> list[str]:
    """Keys of this group that there are problems with, and that stand in no word of the command line."""
    keys = [line.split(":")[0] for line in problems if line.startswith(f"{group}.")]
    return [key for key in keys if key not in own]


def _culprit(words: list[str], error: Exception) -> str:
    """The key that the error is about: its own, or that of the first word with which composing fails."""
    if key := getattr(error, "full_key", None):
        return str(key)
    for count in range(1, len(words) + 1):
        try:
            compose("config", words[:count])
        except (HydraException, OmegaConfBaseException):
            return words[count - 1].split("=")[0].lstrip("+~")
    return "settings"


def _first_line(error: Exception) -> str:
    return next(chain((line for line in str(error).splitlines() if line.strip()), [type(error).__name__]))
