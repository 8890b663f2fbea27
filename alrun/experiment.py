"""What a run is: all its settings, as parts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from alrun.budget import Budget
from alrun.cache import Cache, Watch
from alrun.config import ConfigError
from alrun.data.data import Data, Dataset, Preparing
from alrun.features.featurizer import Featurizer, reads_source
from alrun.generative.gan import Gan
from alrun.graph.knn import Knn
from alrun.journal import Journal
from alrun.lifetime import Lifetime
from alrun.models.encoded import FrozenHead
from alrun.models.network import Architecture
from alrun.oracle import Oracle
from alrun.pool import Inputs, Pool, Seeds
from alrun.rounds import Strategy, name_of
from alrun.strategies.two_classes import TWO_CLASSES, not_two
from alrun.track import Tracker
from alrun.training.model import remember
from alrun.training.trainer import Trainer

NO_SOURCE = (
    "featurizer: adapts from a labeled source to the pool, and the data set has no source; choose e.g. "
    "dataset=office_caltech10, or arrays with x_source and y_source"
)


@dataclass(frozen=True)
class Experiment:
    """All settings of a run, one field a group or key; the schema against which settings are checked."""

    dataset: Dataset
    model: Architecture | FrozenHead
    trainer: Trainer
    featurizer: Featurizer | None
    generator: Gan | None
    graph: Knn | None
    strategy: Strategy
    oracle: Oracle
    budget: Budget
    tracker: Tracker | None
    journal: Journal | None
    cache: Cache
    seeds: Seeds
    seed: Annotated[int, Ge(0)]
    device: str
    data_dir: str
    output_dir: str
    progress: bool | Literal["auto"]
    sweep: str | None

    def stream(self, branch: str, *names: str | int) -> np.random.Generator:
        """The random stream of a branch and further names."""
        return self.seeds.stream(self.seed, branch, *names)

    @property
    def watching(self) -> Journal | None:
        """How closely its fits are watched; None where they are not."""
        return self.journal if self.journal is not None and self.journal.watches(self.trainer) else None

    def prepare(self, watch: Watch) -> None:
        """Brings the data set's images into one file, where that is needed and not yet done.

        Raises:
            ValueError, OSError: data that cannot be read, or too little space.
        """
        if isinstance(self.dataset, Preparing):
            self.dataset.prepare(Path(self.data_dir), watch)

    def data(self) -> Data:
        """The data set.

        Raises:
            ConfigError: the featurizer learns from a source and there is none, or the strategy knows two
                classes and there are more.
            ValueError, OSError: data that cannot be read or learned from.
        """
        data = self.dataset.load(Path(self.data_dir), self.stream("split"))
        if reads_source(self.featurizer) and data.source is None:
            raise ConfigError([NO_SOURCE])
        if TWO_CLASSES in self.strategy.needs and data.classes != 2:
            raise ConfigError([f"strategy: {not_two(name_of(self.strategy), data.classes)}"])
        return data

    def architecture(self, life: Lifetime, pool: Pool) -> Architecture:
        """The networks that the trainer fits: `model`, on the featurizer's encoder if it needs one.

        What the encoder says of the pool are its features, and need not be asked again.
        """
        if not isinstance(self.model, FrozenHead):
            return self.model
        encoder = life.encoder(pool)
        remember(encoder, pool.inputs, life.features(pool))
        return self.model.on(encoder)

    def remember_encoded(self, life: Lifetime, pool: Pool, others: Inputs) -> None:
        """Reads from the shelf, or puts there, what a frozen encoder (if there is one) gives for others."""
        if isinstance(self.model, FrozenHead):
            remember(life.encoder(pool), others, life.encoded(pool, others))
