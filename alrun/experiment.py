"""What a run is: all its settings, as parts."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from alrun.budget import Budget
from alrun.cache import Cache
from alrun.data.data import Dataset
from alrun.features.featurizer import Featurizer
from alrun.graph.knn import Knn
from alrun.lifetime import Lifetime
from alrun.models.encoded import FrozenHead
from alrun.models.network import Architecture
from alrun.oracle import Simulated
from alrun.pool import Pool, Seeds
from alrun.rounds import Strategy
from alrun.track import Tracker
from alrun.training.model import remember
from alrun.training.trainer import Trainer


@dataclass(frozen=True)
class Experiment:
    """All settings of a run, one field a group or key; the schema against which settings are checked."""

    dataset: Dataset
    model: Architecture | FrozenHead
    trainer: Trainer
    featurizer: Featurizer | None
    graph: Knn | None
    strategy: Strategy
    oracle: Simulated
    budget: Budget
    tracker: Tracker | None
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

    def architecture(self, life: Lifetime, pool: Pool) -> Architecture:
        """The networks that the trainer fits: `model`, on the featurizer's encoder if it needs one.

        What the encoder says of the pool are its features, and need not be asked again.
        """
        if not isinstance(self.model, FrozenHead):
            return self.model
        encoder = life.encoder(pool)
        remember(encoder, pool.inputs, life.features(pool))
        return self.model.on(encoder)
