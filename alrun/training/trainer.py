"""What a trainer is."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from alrun.models.network import Architecture
from alrun.pool import Pool
from alrun.training.model import Model
from alrun.training.progress import Progress

Chance = Callable[..., np.random.Generator]


@runtime_checkable
class Trainer(Protocol):
    """Fits a model to what is bought, and perhaps to what is not."""

    @property
    def heads(self) -> frozenset[str]:
        """Names of the further outputs a row that its models have."""
        ...

    def fit(
        self,
        architecture: Architecture,
        pool: Pool,
        *,
        chance: Chance,
        start: Model | None,
        progress: Progress,
    ) -> Model:
        """A model of the pool's bought labels; `start` is that of the round before.

        `chance(branch, *names)` gives generators; all chance is drawn by epoch, so that a fit continued from
        what `progress` kept gives the same bits.

        Raises:
            ValueError: no label yet, or a loss that is not finite.
        """
        ...

    def restored(
        self, architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
    ) -> Model:
        """The model of an earlier fit from its weights (`Model.weights`) and facts."""
        ...
