"""The run folder: written so that a kill at any moment loses at most the round under way."""

import csv
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from numpy import ndarray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alrun.config import ConfigError, contents, differences
from alrun.files import UNREADABLE, Progress, atomic, columns_of, csv_text, save_figure, write_text
from alrun.synthetic import selected
from alrun.work import OpenTables

log = logging.getLogger(__name__)

FIRST_COLUMNS = [
    *("round", "labeled", "accuracy", "loss", "nll", "ece", "query_seconds", "predict_seconds"),
    *("features_seconds", "graph_seconds", "select_seconds", "train_seconds", "candidates", "peak_rss_mb"),
]
# What sums are rounded by; a run that goes on with the same of these goes on with the same bits.
SAME_BITS = ("versions", "platform", "device", "gpu", "threads")
SELECTION_COLUMNS = ["round", "rank", "row", "label", "score"]


class BusyError(ConfigError):
    """Another process is at work in the run folder."""


@dataclass
class Saved:
    """A run after its last whole round; everything the CSV files hold and all that a continued run needs.

    `round` is -1 before round 0. `features` and `generator` are digests of what was made before it.
    `purchases` holds rows, labels and scores of each round in order of choice; where it added synthetic
    items, what `alrun.synthetic` says of their file; where annotations label several rows, the number of each
    row's.
    """

    round: int = -1
    records: list[dict[str, Any]] = field(default_factory=list)
    purchases: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    weights: dict[str, Any] | None = None
    facts: dict[str, float] = field(default_factory=dict)
    features: str | None = None
    generator: str | None = None


class RunFolder:
    """One run's folder: settings, environment, records, checkpoint, figures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checkpoint = path / "checkpoint" / "round.pt"
        self._fit = path / "checkpoint" / "fit.pt"

    @property
    def figures(self) -> Path:
        """Where pictures go."""
        return self.path / "figures"

    @contextmanager
    def opened(self, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[None]:
        """Holds the folder for this process; makes it, with its settings and environment, if it is new.

        Raises:
            ConfigError: it cannot be written, or its settings are not the ones it was made with.
            BusyError: another process holds it.
        """
        try:
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self.figures.mkdir(exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(blocking=False)
        except Timeout:
            raise BusyError(
                [f"output_dir: another process is at work in {self.path}; wait for it or stop it"]
            ) from None
        except OSError as error:
            raise ConfigError([f"output_dir: cannot write to {self.path} ({error.strerror})"]) from None
        try:
            self._clear_leftovers()
            self._settle(settings, environment)
            with _logged_to(self.path / "run.log"):
                yield
        finally:
            lock.release()

    def same_settings(self, settings: Mapping[str, Any]) -> None:
        """Nothing, if the folder was made with these settings or has none yet.

        Raises:
            ConfigError: its settings file was changed or damaged.
        """
        file = self.path / "settings.yaml"
        if not file.exists():
            return
        try:
            old = OmegaConf.to_container(OmegaConf.load(file))
        except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
            raise ConfigError(
                [f"{file}: cannot be read ({type(error).__name__}); restore or delete the folder"]
            ) from None
        if not isinstance(old, dict):
            raise ConfigError([f"{file}: holds no settings; restore it or delete the folder"])
        changed = differences({str(key): value for key, value in old.items()}, settings)
        if changed:
            remedy = f"restore {file} or delete the folder"
            raise ConfigError(
                [f"{line}; the run's settings were changed by hand: {remedy}" for line in changed]
            )

    def finished(self, last: int) -> Saved | None:
        """The whole run, if round `last` and all that follows it are done."""
        if not (self.path / "checkpoint" / "finished").exists():
            return None
        saved = self.load()
        return saved if saved.round == last else None

    def finish(self) -> None:
        """Marks the run as finished: figures are drawn, too."""
        write_text(self.path / "checkpoint" / "finished", "")

    def same_made(self, saved: Saved, features: str | None, generator: str | None) -> None:
        """Nothing, if the rounds so far were chosen with the fixed features and generator of these digests.

        Raises:
            ConfigError: they were others; the rounds to come would be chosen in another space.
        """
        chosen_with = (
            ("featurizer", "other features", saved.features, features),
            ("generator", "another generator", saved.generator, generator),
        )
        for key, others, before, now in chosen_with:
            if saved.round >= 0 and before is not None and before != now:
                raise ConfigError(
                    [
                        f"{key}: the rounds in {self.path} were chosen with {others}, no longer in "
                        "cache.dir; restore what was there, or delete the folder to begin anew"
                    ]
                )
        saved.features, saved.generator = features, generator

    def load(self) -> Saved:
        """The last whole round; a fresh start if there is none.

        Raises:
            ConfigError: a checkpoint that cannot be read.
        """
        if not self._checkpoint.exists():
            return Saved()
        try:
            return Saved(**torch.load(self._checkpoint, map_location="cpu", weights_only=True))
        except UNREADABLE as error:
            name = type(error).__name__
            remedy = f"restore it or delete {self.path} to begin anew"
            raise ConfigError([f"{self._checkpoint}: cannot be read ({name}); {remedy}"]) from None

    def commit(self, saved: Saved) -> None:
        """Makes a round whole. The checkpoint is the truth; the CSV files follow from it, written anew."""
        state = {name: getattr(saved, name) for name in Saved.__dataclass_fields__}
        with atomic(self._checkpoint) as part:
            torch.save(state, part)
        self._fit.unlink(missing_ok=True)
        self.write_tables(saved)
        self.open_tables(saved).close()

    def write_tables(self, saved: Saved) -> None:
        """`selections.csv`, `rounds.csv` and the strategies' own tables, each whole."""
        lines = [line for number, batch in enumerate(saved.purchases) for line in selected(number, batch)]
        self.write_table("selections", lines, SELECTION_COLUMNS)
        self.write_table("rounds", saved.records, FIRST_COLUMNS)
        for name, records in saved.tables.items():
            self.write_table(name, records)

    def write_table(self, name: str, records: list[dict[str, Any]], first: Sequence[str] = ()) -> None:
        """`<name>.csv` with these lines; its columns are `first`, then what else the lines have."""
        write_text(self.path / f"{name}.csv", csv_text(columns_of(records, first), records))

    def open_tables(self, saved: Saved) -> OpenTables:
        """Where the lines of the round after these are brought out as it writes them."""
        return OpenTables(self.path, self._checkpoint.parent, saved.tables)

    def draw(self, figures: Mapping[str, Callable[[Figure], None]]) -> None:
        """Pictures that a round asked for."""
        for name, draw in figures.items():
            figure = Figure(layout="constrained")
            draw(figure)
            save_figure(figure, self.figures / f"{name}.png")

    def store(self, number: int, arrays: Mapping[str, Mapping[str, ndarray]]) -> None:
        """Arrays that round `number` asked to be kept, a compressed file a name; `read_arrays` finds them."""
        for name, values in arrays.items():
            file = arrays_file(self.path, name, number)
            file.parent.mkdir(exist_ok=True)
            with atomic(file) as part, part.open("wb") as opened:
                np.savez_compressed(opened, allow_pickle=False, **values)  # type: ignore[arg-type]

    def show(self, kind: str, folder: Path) -> None:
        """Copies an artifact's pictures and tables, as `<kind>-<name>`, to where a reader looks for them."""
        for file in [*folder.glob("*.png"), *folder.glob("*.csv")]:
            home = self.figures if file.suffix == ".png" else self.path
            with atomic(home / f"{kind}-{file.name}") as part:
                shutil.copyfile(file, part)

    def progress(self, number: int, tell: Callable[[int, int], None], every: float = 60.0) -> Progress:
        """Where the fit of round `number` keeps its state, at most once in `every` seconds."""
        return Progress(self._fit, number, tell, every)

    def _settle(self, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        self.same_settings(settings)
        if not (self.path / "settings.yaml").exists():
            kept = {**settings, "contents": contents(settings)}
            write_text(self.path / "settings.yaml", OmegaConf.to_yaml(OmegaConf.create(kept)))
        file = self.path / "environment.json"
        before = json.loads(file.read_text()) if file.exists() else environment
        if self._checkpoint.exists() and before.get("data") != environment.get("data"):
            raise ConfigError(
                [f"dataset: not the data that {self.path} was begun with; restore them or delete the folder"]
            )
        changed = [name for name in SAME_BITS if before.get(name) != environment.get(name)]
        if changed and self._checkpoint.exists():
            was = ", ".join(
                f"{name} {before.get(name)} before, {environment.get(name)} now" for name in changed
            )
            log.warning("the run goes on elsewhere (%s): the last digits of its numbers may differ", was)
        write_text(file, json.dumps(environment, indent=2) + "\n")

    def _clear_leftovers(self) -> None:
        for part in self.path.rglob(".*.part"):
            part.unlink()


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("alrun")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def short(value: float) -> float | int:
    """A number as it stands in a table: whole ones without a point."""
    return int(value) if float(value).is_integer() else float(value)


def arrays_file(folder: Path, name: str, number: int) -> Path:
    """Where a run folder keeps the arrays of this name that a round asked to be kept."""
    return folder / name / f"round{number:03d}.npz"


def read_arrays(folder: Path, name: str, rounds: int) -> Iterator[tuple[int, dict[str, ndarray]]]:
    """The arrays of this name that were kept in a run folder, with their rounds, of which there are so many.

    Raises:
        ValueError: a file that cannot be read.
    """
    for number in range(rounds):
        file = arrays_file(folder, name, number)
        if not file.exists():
            continue
        try:
            with np.load(file, allow_pickle=False) as found:
                yield number, dict(found)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise ValueError(f"{file}: cannot be read ({type(error).__name__}); restore it") from None


def read_records(path: Path) -> list[dict[str, str]]:
    """The lines of one of the folder's CSV files, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
