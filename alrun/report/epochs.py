"""What runs wrote down of the epochs of their fits; trainers told apart."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.config import settings_id
from alrun.report.aggregating import Method, Panel
from alrun.report.naming import all_differences, names, without_chance
from alrun.report.reading import Run, UnreadableError

SEMI = "semi_supervised"
TEXTS = ("stage", "pseudo_right_weights", "pseudo_wrong_weights")
FILE, FOLDER = "epochs.csv", "pseudo"  # what alrun.journal writes; importing it would take seconds
# Said of a run in any picture of trainers; its value alone is enough.
UNSAID = ("trainer=", "trainer.", "strategy=")


@dataclass(frozen=True, eq=False)
class Epochs:
    """The epochs of one fit in order: the stage of each, and columns of numbers, NaN where there is none."""

    stages: tuple[str, ...]
    columns: Mapping[str, Float64[ndarray, " e"]]

    def there(self, name: str) -> tuple[Int64[ndarray, " t"], Float64[ndarray, " t"]]:
        """The epochs with a number in this column, and the numbers."""
        values = self.columns.get(name, np.full(len(self.stages), np.nan))
        known = ~np.isnan(values)
        return self.columns["epoch"][known].astype(np.int64), values[known]

    @property
    def boundary(self) -> int | None:
        """The last epoch before the semi-supervised stage, if it has both."""
        place = self.stages.index(SEMI) if SEMI in self.stages else 0
        return int(self.columns["epoch"][place - 1]) if place else None


@dataclass(frozen=True, eq=False)
class Kept:
    """The pseudo-labels that an epoch made for unbought rows, their weights, and the true classes."""

    number: int
    epoch: int
    rows: Int64[ndarray, " u"]
    labels: Int64[ndarray, " u"]
    weights: Float32[ndarray, " u"]
    truth: Int64[ndarray, " u"]

    @property
    def right(self) -> ndarray:
        """Whether each pseudo-label is the true class (bool, (u,))."""
        return self.labels == self.truth


def read_epochs(folder: Path, number: int | None = None) -> Epochs:
    """The epochs of the fit of a round, of the last one by default.

    Raises:
        UnreadableError: none was written down, none of this round, or a file that was damaged.
    """
    file = folder / FILE
    if not file.exists():
        raise UnreadableError(
            f"{folder}: its trainer shows no epochs (no {FILE}); choose e.g. trainer=label_propagation"
        )
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = [{**line, "round": int(line["round"])} for line in csv.DictReader(opened)]
        wanted = max((line["round"] for line in lines), default=-1) if number is None else number
        own = [line for line in lines if line["round"] == wanted]
        stages = tuple(line["stage"] for line in own)
        table = {
            name: np.array([float(line[name] or "nan") for line in own])
            for name in (own[0] if own else ())
            if name not in TEXTS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{file}: cannot be read as epochs ({type(error).__name__}: {error})") from None
    if not own:
        known = ", ".join(sorted({str(line["round"]) for line in lines}, key=int)) or "none"
        raise UnreadableError(f"{file}: holds no round {wanted}; it has {known}")
    return Epochs(stages, table)


def read_kept(folder: Path, number: int | None = None) -> tuple[Kept, ...]:
    """What was kept row by row of the fit of a round, of the last one by default, in the order of epochs.

    Raises:
        UnreadableError: nothing was kept, nothing of this round, or a file that was damaged.
    """
    files = sorted((folder / FOLDER).glob("round*_epoch*.npz"))
    if not files:
        raise UnreadableError(
            f"{folder}: no pseudo-labels were kept (no {FOLDER}/); choose e.g. trainer=label_propagation"
        )
    found = [(*_place(file), file) for file in files]
    wanted = max(place for place, _, _ in found) if number is None else number
    own = [_read_rows(file, place, epoch) for place, epoch, file in found if place == wanted]
    if not own:
        known = ", ".join(map(str, sorted({place for place, _, _ in found})))
        raise UnreadableError(f"{folder / FOLDER}: holds no round {wanted}; it has {known}")
    return tuple(own)


def by_trainer(runs: Sequence[Run], *, apart: Sequence[str] = ()) -> tuple[Method, ...]:
    """Runs with the same settings up to chance, by names that tell these from the others.

    A method's `strategy` is its trainer, from which it has its looks. Groups of settings in `apart` do not
    tell runs from one another (`budget`, where runs differ in labels).
    """
    settings = [{**without_chance(run.settings), **dict.fromkeys(apart)} for run in runs]
    groups: dict[str, list[int]] = {}
    for place, each in enumerate(settings):
        groups.setdefault(settings_id(each), []).append(place)
    variants = [settings[own[0]] for own in groups.values()]
    found = []
    for title, told, own in zip(titles(variants), all_differences(variants), groups.values(), strict=True):
        ordered = sorted((runs[place] for place in own), key=lambda run: (run.seed, run.id))
        found.append(Method(title, _trainer(ordered[0].settings), told, tuple(ordered), ()))
    return tuple(sorted(found, key=lambda method: method.name))


def over_budgets(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """The panels in which runs differ in labels alone, methods by trainer with these runs joined."""
    found = []
    for panel in panels:
        runs = [run for method in panel.methods for run in method.all]
        joined = Panel(panel.dataset, by_trainer(runs, apart=("budget",)))
        if len(joined.methods) < len(panel.methods):
            found.append(joined)
    return tuple(found)


def titles(variants: Sequence[Mapping[str, object]]) -> list[str]:
    """A name for each of these settings; the trainer's where nothing need be told apart."""
    found = []
    for name, settings in zip(names("", variants), variants, strict=True):
        told = name.strip().removeprefix("(").removesuffix(")")
        parts = [_without(part, UNSAID) for part in told.split(", ") if part]
        found.append(", ".join(parts) or _trainer(settings))
    return found


def _without(part: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        part = part.removeprefix(prefix)
    return part


def _trainer(settings: Mapping[str, object]) -> str:
    """The name chosen in the group `trainer`."""
    choices = settings.get("choices")
    return str(choices.get("trainer", "trainer")) if isinstance(choices, Mapping) else "trainer"


def _place(file: Path) -> tuple[int, int]:
    """Round and epoch, as the file's name says them."""
    number, _, epoch = file.stem.partition("_")
    try:
        return int(number.removeprefix("round")), int(epoch.removeprefix("epoch"))
    except ValueError:
        raise UnreadableError(f"{file}: not named round<r>_epoch<e>.npz") from None


def _read_rows(file: Path, number: int, epoch: int) -> Kept:
    try:
        with np.load(file, allow_pickle=False) as opened:
            parts = [opened[name] for name in ("rows", "labels", "weights", "truth")]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UnreadableError(
            f"{file}: cannot be read as pseudo-labels ({type(error).__name__}: {error})"
        ) from None
    if len({part.shape for part in parts}) > 1 or parts[0].ndim != 1:
        raise UnreadableError(f"{file}: cannot be read as pseudo-labels (columns of several lengths)")
    return Kept(number, epoch, *parts)
