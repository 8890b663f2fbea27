"""Run folders as plain records; what cannot be counted is said, never guessed."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alrun.config import ConfigError, settings_id

QUERY_PARTS = ("predict", "features", "graph", "select")
NEEDED = (
    *("round", "labeled", "accuracy", "query_seconds", "train_seconds", "candidates"),
    *(f"{part}_seconds" for part in QUERY_PARTS),
)
ONCE = "once_"
# Kernels are compiled once on a machine, not once in a run.
COMPILING = "once_compile_seconds"


class UnreadableError(ValueError):
    """A folder that holds no run, or a damaged one."""


@dataclass(frozen=True, eq=False)
class Run:
    """The records of one run, one entry a round in every column, NaN where the file is blank."""

    folder: Path
    settings: Mapping[str, Any]
    columns: Mapping[str, Float64[ndarray, " r"]]

    @property
    def dataset(self) -> str:
        """The name chosen in the group `dataset`."""
        return str(self.settings["choices"]["dataset"])

    @property
    def strategy(self) -> str:
        """The name chosen in the group `strategy`."""
        return str(self.settings["choices"]["strategy"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings["seed"])

    @cached_property
    def id(self) -> str:
        """The short hash of the settings that can change the result."""
        return settings_id(self.settings)

    @cached_property
    def reported(self) -> dict[str, dict[int, float]]:
        """Error (%) by label count that others reported, by their names: `preset.reported`."""
        quoted = (self.settings.get("preset") or {}).get("reported") or {}
        return {
            str(name): {int(labels): float(error) for labels, error in errors.items()}
            for name, errors in quoted.items()
        }

    @property
    def planned(self) -> int:
        """Purchases after the first set that the settings ask for."""
        budget = self.settings["budget"]
        if budget["initial"] == "all":
            return 0
        return int(budget["rounds"]) if budget["sizes"] is None else len(budget["sizes"])

    @property
    def done(self) -> int:
        """Purchases after the first set that are recorded."""
        return int(self.columns["round"][-1])

    @property
    def whole(self) -> bool:
        """Whether every round is recorded."""
        return self.done >= self.planned

    @property
    def once(self) -> dict[str, float]:
        """Seconds of what was made once, by part: the largest entry of each column `once_<part>_seconds`.

        The compiling of kernels, once on a machine, is left out.
        """
        return {
            name.removeprefix(ONCE).removesuffix("_seconds"): float(np.nanmax(column))
            for name, column in self.columns.items()
            if name.startswith(ONCE) and name != COMPILING and not np.isnan(column).all()
        }


@dataclass(frozen=True)
class Reading:
    """The runs found, sorted by data set, strategy, id and seed, and a line for each folder left out."""

    runs: tuple[Run, ...]
    problems: tuple[str, ...]


def read(folders: Iterable[Path]) -> Reading:
    """Every run in these folders and below them, each settings id once.

    Of copies of a run the one with the most rounds counts. A folder is a run's if it holds `settings.yaml`.

    Raises:
        UnreadableError: a folder that does not exist.
    """
    runs: dict[tuple[str, str, str], Run] = {}
    problems = []
    for folder in dict.fromkeys(found for each in folders for found in run_folders(each)):
        try:
            run = read_run(folder)
        except UnreadableError as error:
            problems.append(str(error))
            continue
        key = (run.dataset, run.strategy, run.id)
        if (twin := runs.get(key)) is not None:
            kept, left = (run, twin) if run.done > twin.done else (twin, run)
            problems.append(f"{left.folder}: the same run as {kept.folder}, counted once")
            run = kept
        runs[key] = run
    ordered = sorted(runs.values(), key=lambda run: (run.dataset, run.strategy, run.seed, run.id))
    return Reading(tuple(ordered), tuple(problems))


def run_folders(folder: Path) -> Iterator[Path]:
    """This folder and those below it that hold a `settings.yaml`, sorted.

    Raises:
        UnreadableError: it does not exist.
    """
    if not folder.is_dir():
        raise UnreadableError(f"{folder}: no such folder; give run folders or folders above them")
    yield from sorted({path.resolve().parent for path in folder.rglob("settings.yaml")})


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        UnreadableError: it is missing, damaged, or holds something else.
    """
    if not file.is_file():
        raise UnreadableError(f"{file.parent}: holds no run; there is no settings.yaml")
    try:
        plain = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UnreadableError(f"{file}: cannot be read ({type(error).__name__})") from None
    if not isinstance(plain, dict):
        raise UnreadableError(f"{file}: not the settings of a run (no keys)")
    return {str(key): value for key, value in plain.items()}


def read_run(folder: Path) -> Run:
    """The run in this folder.

    Raises:
        UnreadableError: no settings of a run, no whole round yet, or a file that was damaged.
    """
    settings, columns = read_settings(folder / "settings.yaml"), _columns(folder / "rounds.csv")
    run = Run(folder, settings, columns)
    try:
        parts = run.dataset, run.strategy, run.seed, run.planned, run.id, run.reported
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise UnreadableError(f"{folder / 'settings.yaml'}: {error}") from None
        raise UnreadableError(
            f"{folder / 'settings.yaml'}: not the settings of a run ({type(error).__name__}: {error})"
        ) from None
    del parts
    return run


def _columns(file: Path) -> dict[str, Float64[ndarray, " r"]]:
    if not file.is_file():
        raise UnreadableError(f"{file.parent}: no round is whole yet")
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = list(csv.reader(opened))
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise UnreadableError(f"{file}: cannot be read ({type(error).__name__})") from None
    if len(lines) < 2:
        raise UnreadableError(f"{file.parent}: no round is whole yet")
    names = lines[0]
    if missing := [name for name in NEEDED if name not in names]:
        raise UnreadableError(f"{file}: not the records of a run, {', '.join(missing)} missing")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise UnreadableError(f"{file}: line {number} has {len(line)} fields of {len(names)}")
    columns = {name: _numbers(file, name, [line[i] for line in lines[1:]]) for i, name in enumerate(names)}
    _check(file, columns)
    return columns


def _numbers(file: Path, name: str, texts: list[str]) -> Float64[ndarray, " r"]:
    """The column; one that a strategy filled with words is all NaN."""
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        if name in NEEDED or name.startswith(ONCE):
            raise UnreadableError(f"{file}: {name} must hold numbers, got {', '.join(texts)[:60]}") from None
        return np.full(len(texts), np.nan)


def _check(file: Path, columns: Mapping[str, ndarray]) -> None:
    for name in NEEDED:
        if not (np.isfinite(columns[name]) & (columns[name] >= 0)).all():
            bad = columns[name][~(columns[name] >= 0) | np.isinf(columns[name])][0]
            raise UnreadableError(f"{file}: {name} must be a number from 0 on in every line, got {bad}")
    for name in ("round", "labeled"):
        if (np.diff(columns[name]) <= 0).any():
            raise UnreadableError(f"{file}: {name} must grow from line to line")
    if columns["accuracy"].max() > 1:
        raise UnreadableError(f"{file}: accuracy must be at most 1, got {columns['accuracy'].max()}")
