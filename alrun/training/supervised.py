"""Supervised training on the labels bought so far."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy import ndarray

from alrun.models.network import Architecture, Network
from alrun.pool import Pool
from alrun.training.fit import Fit
from alrun.training.model import Model, placed, restored
from alrun.training.progress import Progress
from alrun.training.recipe import Recipe
from alrun.training.seeding import seeded
from alrun.training.trainer import Chance


@dataclass(frozen=True)
class Supervised(Recipe):
    """Mini-batch gradient descent on the bought labels."""

    heads = frozenset[str]()

    def fit(
        self,
        architecture: Architecture,
        pool: Pool,
        *,
        chance: Chance,
        start: Model | None,
        progress: Progress,
    ) -> Model:
        """A model of the pool's bought labels.

        `chance(branch, *names)` gives generators (`weights`, and `order` for each epoch); `start` is the
        model of the round before, which is never changed.

        Raises:
            ValueError: no label yet, augmentation of items that are no images, BatchNorm with batch_size 1,
                or a loss that is not finite.
        """
        self._refuse(pool)
        device = pool.inputs.device
        with seeded(chance("weights"), device):
            network = architecture.build(pool.inputs.shape, pool.inputs.moments, pool.classes)
        network = placed(network, device)
        if self.start == "previous" and start is not None:
            network.load_state_dict(start.network.state_dict())
        held = self._held_out(pool.labeled, chance)
        fit = self.begun(network, pool, np.setdiff1d(pool.labeled, held), held, chance)
        facts = fit.run(chance, progress)
        return replace(fit.model(), facts=facts)

    def begun(self, network: Network, pool: Pool, rows: ndarray, held: ndarray, chance: Chance) -> Fit:
        """A fit to these labeled rows before its first epoch; the loss of the rows held out may end it."""
        del chance
        return Fit(self, network, pool, rows, held)

    def restored(
        self, architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
    ) -> Model:
        """The model that these weights, a fit's, belong to."""
        return restored(architecture, pool, weights, facts)

    def _refuse(self, pool: Pool) -> None:
        if len(pool.labeled) == 0:
            raise ValueError("a fit needs labels and none was bought; raise budget.initial")
        self.augmentation.check(pool.inputs.shape)

    def _held_out(self, labeled: ndarray, chance: Chance) -> ndarray:
        count = min(round(self.validation * len(labeled)), len(labeled) - 1)
        return np.sort(chance("order", "validation").permutation(labeled)[:count])
