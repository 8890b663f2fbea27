"""Short names for settings that differ: `seals (featurizer=vae)`."""

from collections.abc import Mapping, Sequence
from typing import Any

from alrun.config import PLACE, flat, settings_id

Settings = Mapping[str, Any]

ABSENT = "absent"
OWN = "own"


def without_chance(settings: Settings) -> dict[str, Any]:
    """The settings with no seed in them; a branch of chance that has a seed of its own says `own`."""
    seeds = {
        name: OWN if isinstance(value, int) else value
        for name, value in (settings.get("seeds") or {}).items()
    }
    return {**settings, "seed": None, "seeds": seeds}


def of_the_data(settings: Settings) -> dict[str, Any]:
    """The settings of the group `dataset` alone."""
    contents = {
        key: each for key, each in (settings.get("contents") or {}).items() if key.startswith("dataset.")
    }
    return {"dataset": settings["dataset"], "choices": settings["choices"], "contents": contents}


def names(name: str, variants: Sequence[Settings]) -> list[str]:
    """A name for each variant: `name`, and in brackets settings that tell it from the others, none in vain.

    Groups are named by the choice made in them. Variants that nothing tells apart but the content of a file
    are told apart by their settings ids.
    """
    told = [words(each) for each in variants]
    chosen: list[str] = []
    for key in differing(told):
        if _parts(told, [*chosen, key]) > _parts(told, chosen):
            chosen.append(key)
    for key in list(chosen):
        others = [each for each in chosen if each != key]
        if _parts(told, others) == _parts(told, chosen):
            chosen = others
    out = [_bracketed(name, [f"{key}={each[key]}" for key in chosen if key in each]) for each in told]
    if len(set(out)) < len(out):
        return [_bracketed(each, [settings_id(one)]) for each, one in zip(out, variants, strict=True)]
    return out


def all_differences(variants: Sequence[Settings]) -> list[str]:
    """For each variant every setting in which the variants differ, as `key=value key=value`."""
    told = [words(each) for each in variants]
    keys = differing(told)
    return [" ".join(f"{key}={each.get(key, ABSENT)}" for key in keys) for each in told]


def differing(told: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys whose words are not the same everywhere, whole groups first."""
    keys = dict.fromkeys(key for each in told for key in each)
    found = [key for key in keys if len({each.get(key, ABSENT) for each in told}) > 1]
    return sorted(found, key=lambda key: key.count("."))


def words(settings: Settings) -> dict[str, str]:
    """Each setting that can change a result, by its full key; a part by its choice or the class it makes."""
    out, choices = {}, settings.get("choices") or {}
    for key, value in flat({name: each for name, each in settings.items() if name not in PLACE}).items():
        part = key.removesuffix("._target_")
        if part != key:
            out[part] = str(choices.get(part) or _snake(str(value).rpartition(".")[2]))
        elif value is not None:
            out[key] = str(value)
    return out


def _parts(told: Sequence[Mapping[str, str]], keys: Sequence[str]) -> int:
    """Into how many parts these keys divide the variants."""
    return len({tuple(each.get(key, ABSENT) for key in keys) for each in told})


def _bracketed(name: str, parts: Sequence[str]) -> str:
    return f"{name} ({', '.join(parts)})" if parts else name


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
