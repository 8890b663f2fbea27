"""A run opened again, and the spaces of features in which its purchases can be looked at."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.assembly import assemble
from alrun.cache import Watch, scratch
from alrun.config import closest
from alrun.data.data import Data
from alrun.environment import chosen_device
from alrun.lifetime import Lifetime, Shelf
from alrun.pool import NOT_BOUGHT, Inputs, Pool
from alrun.report.reading import read_settings
from alrun.run import Experiment
from alrun.state import RunFolder
from alrun.training.model import Model
from alrun.training.progress import Silent

NEVER = -1


@dataclass(frozen=True, eq=False)
class Scene:
    """A run folder, its parts and its data.

    Attributes:
        watch: told how far the work is that a space may need.
        title: strategy, data set and seed in words.
        rounds: for each pool row the round in which it was bought, -1 for never.
        answers: for each pool row the answer bought, -1 for none.
    """

    folder: Path
    watch: Watch
    title: str
    experiment: Experiment
    data: Data
    device: torch.device
    rounds: Int64[ndarray, " n"]
    answers: Int64[ndarray, " n"]

    @cached_property
    def pool(self) -> Pool:
        """The pool with what was bought."""
        return Pool(Inputs(self.data.inputs, self.device), self.answers, self.data.classes)

    @cached_property
    def last(self) -> Model:
        """The run's last model.

        Raises:
            ValueError: the run has no checkpoint, or no model yet.
        """
        saved = RunFolder(self.folder).load()
        if saved.weights is None:
            raise ValueError(f"{self.folder} holds no model (checkpoint/round.pt); choose --space pixels")
        return self.experiment.trainer.restored(self.experiment.model, self.pool, saved.weights, saved.facts)


def opened(folder: Path, device: str, watch: Watch) -> Scene:
    """The run in a folder, its data loaded as it loaded them; nothing is written.

    Raises:
        ConfigError, ValueError, OSError: no run there, settings that no longer work, or other data.
    """
    settings = read_settings(folder / "settings.yaml")
    experiment = assemble({**settings, "device": device})
    data = experiment.dataset.load(Path(experiment.data_dir), experiment.stream("split"))
    _same_data(folder / "environment.json", data)
    choices = settings["choices"]
    title = f"{choices['strategy']} on {choices['dataset']}, seed {settings['seed']}"
    rounds, answers = _purchases(folder / "selections.csv", len(data.labels))
    return Scene(folder, watch, title, experiment, data, chosen_device(device), rounds, answers)


def points(scene: Scene, space: str, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    """What these rows are in a space: one of `SPACES`, or a `.npy` file of one vector a pool row.

    Raises:
        ValueError: no such space or file, or one that does not fit the pool or the run.
    """
    if space in SPACES:
        return SPACES[space](scene, rows)
    if not space.endswith(".npy"):
        raise ValueError(f"--space: no space {space}; {closest(space, list(SPACES))}, or give a .npy file")
    return _in_file(Path(space), len(scene.data.labels), rows)


def _pixels(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    return scene.pool.inputs.pixels(rows)


def _penultimate(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    return scene.last.embed(rows)


def _features(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    experiment = scene.experiment
    if experiment.featurizer is None:
        raise ValueError("--space: this run has no featurizer; choose --space penultimate or pixels")
    shelf = Shelf(experiment.cache, scene.data.fingerprint(), scene.watch, lambda kind, folder: None)
    life = Lifetime(experiment.stream, experiment.featurizer, None, scene.device, shelf)
    if life.fixed:
        for line in life.plan(scene.pool, graph=False):
            scene.watch.say(line)
        return life.features(scene.pool)[rows]
    with TemporaryDirectory() as folder:
        rng = experiment.stream("select", "picture")
        making = scratch(Path(folder))
        return experiment.featurizer.make(scene.pool.inputs, scene.last.embed, rng, making)[rows]


@dataclass(frozen=True)
class _Told(Silent):
    """Tells how far a fit is and keeps nothing."""

    watch: Watch

    def epoch(self, done: int, total: int) -> None:
        """`done` of `total` epochs are over."""
        self.watch.epoch(done, total)


def _full(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    whole = Pool(scene.pool.inputs, scene.data.labels, scene.data.classes)
    model = scene.experiment.trainer.fit(
        scene.experiment.model,
        whole,
        chance=lambda branch, *names: scene.experiment.stream(branch, "picture", *names),
        start=None,
        progress=_Told(scene.watch),
    )
    return model.embed(rows)


SPACES: dict[str, Callable[[Scene, ndarray], ndarray]] = {
    "pixels": _pixels,
    "penultimate": _penultimate,
    "features": _features,
    "full": _full,
}


def _in_file(file: Path, total: int, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    try:
        array = np.load(file.expanduser(), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"--space: cannot read {file} as an array ({error})") from None
    if not isinstance(array, ndarray) or array.ndim != 2 or len(array) != total or array.dtype.kind != "f":
        raise ValueError(
            f"--space: {file} must hold floating numbers, one vector for each of {total} pool rows, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return np.asarray(array[rows], np.float32)


def _same_data(file: Path, data: Data) -> None:
    """Nothing, if the pool is the one of the run.

    Raises:
        ValueError: it is another one.
    """
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["data"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}); restore it") from None
    if before != (now := data.fingerprint()):
        raise ValueError(
            f"{file}: the run's pool was another one ({before[:12]} then, {now[:12]} now); "
            "go to the folder where it ran, or restore its data"
        )


def _purchases(file: Path, total: int) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
    rounds, answers = np.full(total, NEVER, np.int64), np.full(total, NOT_BOUGHT, np.int64)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for line in csv.DictReader(lines):
                row = int(line["row"])
                if not 0 <= row < total:
                    raise ValueError(f"row {row} of a pool of {total}")
                rounds[row], answers[row] = int(line["round"]), int(line["label"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read as purchases ({error})") from None
    return rounds, answers
