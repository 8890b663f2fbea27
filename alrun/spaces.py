"""A run opened again, and the spaces of features in which its purchases can be looked at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.assembly import assemble
from alrun.cache import Watch, scratch
from alrun.data.data import Data
from alrun.environment import chosen_device
from alrun.experiment import Experiment
from alrun.features.featurizer import Featurizer
from alrun.fixed_spaces import named_space
from alrun.lifetime import Lifetime, Shelf
from alrun.models.network import Architecture
from alrun.pool import NOT_BOUGHT, Pool
from alrun.reference import reference
from alrun.report.aggregating import panels
from alrun.report.purchases import Purchases, pool_mark, read_purchases
from alrun.report.reading import read_run, read_settings
from alrun.state import RunFolder
from alrun.training.model import Model

NEVER = -1


@dataclass(frozen=True, eq=False)
class Scene:
    """A run folder, its parts and its data.

    Attributes:
        watch: told how far the work is that a space may need.
        purchases: what the run bought.
    """

    folder: Path
    watch: Watch
    settings: Mapping[str, Any]
    experiment: Experiment
    data: Data
    device: torch.device
    purchases: Purchases

    @property
    def title(self) -> str:
        """Strategy, data set and seed in words."""
        choices = self.settings["choices"]
        return f"{choices['strategy']} on {choices['dataset']}, seed {self.settings['seed']}"

    @cached_property
    def rounds(self) -> Int64[ndarray, " n"]:
        """For each pool row the round in which it was bought, -1 for never."""
        rounds = np.full(len(self.data.labels), NEVER, np.int64)
        rounds[self.purchases.rows] = self.purchases.rounds
        return rounds

    @cached_property
    def pool(self) -> Pool:
        """The pool with what was bought."""
        answers = np.full(len(self.data.labels), NOT_BOUGHT, np.int64)
        answers[self.purchases.rows] = self.purchases.answers
        return self.data.pool(answers, self.device)

    @cached_property
    def last(self) -> Model:
        """The run's last model.

        Raises:
            ValueError: the run has no checkpoint, or no model yet.
        """
        saved = RunFolder(self.folder).load()
        if saved.weights is None:
            raise ValueError(f"{self.folder} holds no model (checkpoint/round.pt); choose --space pixels")
        return self.experiment.trainer.restored(self.architecture, self.pool, saved.weights, saved.facts)

    @cached_property
    def architecture(self) -> Architecture:
        """The networks that the run's trainer fits."""
        return self.experiment.architecture(self.life(self.experiment.featurizer), self.pool)

    @cached_property
    def reference(self) -> Model:
        """The run's model by its trainer on all labels of the pool, kept on the run's shelf."""
        experiment = self.experiment
        whole = self.data.pool(self.data.labels, self.device)
        return reference(experiment.model, experiment.trainer, whole, self.life(experiment.featurizer))

    def life(self, featurizer: Featurizer | None) -> Lifetime:
        """What lives as long as a run with this featurizer, on the run's own shelf."""
        digests = self.data.fingerprint(), self.data.source_fingerprint()
        shelf = Shelf(self.experiment.cache, *digests, self.watch, lambda kind, folder: None)
        gan, saved = self.experiment.generator, RunFolder(self.folder).load()
        life = Lifetime(self.experiment.stream, featurizer, None, self.device, shelf, gan)
        life.take_up(saved.features, saved.generator)
        return life


def opened(folder: Path, device: str, watch: Watch) -> Scene:
    """The run in a folder, its data loaded as it loaded them; nothing is written.

    Raises:
        ConfigError, ValueError, OSError: no run there, settings that no longer work, or other data.
    """
    settings = read_settings(folder / "settings.yaml")
    experiment = assemble({**settings, "device": device})
    experiment.prepare(watch)
    data = experiment.dataset.load(Path(experiment.data_dir), experiment.stream("split"))
    _same_data(folder, data)
    purchases = _of_the_pool(folder, len(data.labels), watch)
    return Scene(folder, watch, settings, experiment, data, chosen_device(device), purchases)


def together(folders: Sequence[Path], device: str, watch: Watch) -> tuple[Scene, Mapping[str, Purchases]]:
    """The first of these runs, opened, and what all of them bought from its pool, by strategy (and seed).

    Raises:
        ConfigError, ValueError, OSError: as of `opened`, or runs on several pools.
    """
    scene = opened(folders[0], device, watch)
    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    for run in runs[1:]:
        if pool_mark(run.folder) != pool_mark(folders[0]):
            raise ValueError(f"runs must share their pool, {run.folder} and {folders[0]} do not")
    named = {
        run.folder: method.name for panel in panels(runs) for method in panel.methods for run in method.all
    }
    twice = {name for name in named.values() if list(named.values()).count(name) > 1}
    bought = {}
    for run in runs:
        name = named[run.folder]
        title = f"{name}, seed {run.seed}" if name in twice else name
        again = run.folder == scene.folder  # whatever is to be said of it was said
        bought[title] = scene.purchases if again else _of_the_pool(run.folder, len(scene.data.labels), watch)
    return scene, bought


def _of_the_pool(folder: Path, total: int, watch: Watch) -> Purchases:
    """What a run bought of its pool; says how much else it bought."""
    found = read_purchases(folder, total)
    if found.synthetic:
        watch.say(f"{folder}: {found.synthetic} synthetic images are left out; see its folder synthetic")
    return found


def points(scene: Scene, space: str, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    """What these rows are in a space: one of `SPACES`, or one that `named_space` knows.

    Raises:
        ConfigError, ValueError: no such space, or one that does not fit the pool or the run.
    """
    if space in SPACES:
        return SPACES[space](scene, rows)
    return fixed_features(scene, named_space(space, scene.settings, list(SPACES)))[rows]


def fixed_features(scene: Scene, featurizer: Featurizer) -> Float32[ndarray, "n d"]:
    """What a featurizer that depends on no model makes of the pool, kept on the run's shelf; says which.

    Raises:
        ValueError, OSError: features that cannot be made of this pool.
    """
    life = scene.life(featurizer)
    for line in life.plan(scene.pool, life.with_generator(frozenset({"features"}))):
        scene.watch.say(line)
    return life.features(scene.pool)


def _pixels(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    return scene.pool.inputs.pixels(rows)


def _penultimate(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    return scene.last.embed(rows)


def _features(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    experiment = scene.experiment
    featurizer = experiment.featurizer
    if featurizer is None:
        raise ValueError("--space: this run has no featurizer; choose --space penultimate or pixels")
    if not featurizer.depends_on_model:
        return fixed_features(scene, featurizer)[rows]
    with TemporaryDirectory() as folder:
        rng = experiment.stream("select", "picture")
        return featurizer.make(scene.pool, scene.last.embed, rng, scratch(Path(folder)))[rows]


def _full(scene: Scene, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
    return scene.reference.embed(rows)


SPACES: dict[str, Callable[[Scene, ndarray], ndarray]] = {
    "pixels": _pixels,
    "penultimate": _penultimate,
    "features": _features,
    "full": _full,
}


def _same_data(folder: Path, data: Data) -> None:
    """Nothing, if the pool and the source beside it are those of the run.

    Raises:
        ValueError: they are others.
    """
    before = pool_mark(folder)
    for what, then, now in (
        ("pool", before.inputs, data.fingerprint()),
        ("source", before.source, data.source_fingerprint()),
    ):
        if then != now:
            raise ValueError(
                f"{folder / 'environment.json'}: the run's {what} was another one ({str(then)[:12]} then, "
                f"{str(now)[:12]} now); go to the folder where it ran, or restore its data"
            )
