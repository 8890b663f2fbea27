"""Training on pseudo-labels that spread from the bought labels over a graph of the network's embeddings."""

from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import Annotated

import numpy as np
from annotated_types import Ge

from alrun.graph.knn import EXACT_UP_TO
from alrun.graph.pseudo_labels import Kind, PseudoLabels, Spreading
from alrun.models.network import Architecture
from alrun.pool import NOT_BOUGHT, Inputs, Pool
from alrun.training.model import Model, placed
from alrun.training.recipe import Recipe
from alrun.training.seeding import seeded
from alrun.training.semi_supervised import SemiSupervised
from alrun.training.trainer import Chance

TRIED = 2048  # rows


@dataclass(frozen=True)
class LabelPropagation(SemiSupervised, Spreading):
    """Label propagation for deep semi-supervised learning: a stage on labels, then one on all of the pool.

    The first stage is `Supervised`, `epochs` long (or as patience ends it, with the best weights). The second
    goes on with weights and optimizer as they are, at rates that begin anew. Before each of its epochs the
    whole pool is embedded, labels spread over the graph of its neighbors, and each row gets a class, a
    certainty omega in [0, 1] (1 for bought rows) and, by its class, a weight zeta. The loss is (12),
    omega zeta cross-entropy, over a step's items. Rows held out in the first stage are labeled in the second.

    Where nothing is unlabeled, the second stage learns from the labels alone, weighted by zeta.

    Attributes:
        propagation_epochs: of the second stage. The course of the rates is that of the first, for this many
            epochs; `horizon` holds for both.
        pseudo_labels: how they are made, the `kind` of `PseudoLabels`.
        variant: `repo` embeds items as they are augmented in training, and see `Spreading`.
        Others: see `Spreading`.

    Source: Iscen et al. 2019 (S3), algorithm 1 and section 5.2; ahmetius/LP-DeepSSL. (12) is a sum over the
    pool and the paper does not say how a step divides it: both variants do as that code. Departs from the
    code in both variants: the last step of an epoch is not dropped; steps are as even as can be.
    """

    propagation_epochs: Annotated[int, Ge(1)]
    pseudo_labels: Kind

    def __post_init__(self) -> None:
        """Refuses a cosine that ends before the second stage.

        Raises:
            ValueError: a horizon below `propagation_epochs`, or what `SemiSupervised` refuses.
        """
        super().__post_init__()
        if self.horizon is not None and self.horizon < self.propagation_epochs:
            raise ValueError(
                f"trainer.horizon must be at least trainer.propagation_epochs, got {self.horizon} and "
                f"{self.propagation_epochs}; raise it, or set trainer.horizon=null to end where a stage does"
            )

    def reads(self, labeled: int, unlabeled: int) -> int:
        """Items that a fit to so many reads in training steps; patience is left out."""
        first = labeled if self.agreement is None else self.items(labeled, unlabeled)
        return self.epochs * first + self.propagation_epochs * self.items(labeled, unlabeled)

    def seconds_beside(self, architecture: Architecture, pool: Pool, chance: Chance) -> float:
        """Seconds that making pseudo-labels takes in a fit to this pool, from those of some of its rows.

        The graph of so many rows grows with their square, as far as it is exact; all else grows with them.
        """
        count, most = min(len(pool), TRIED), min(len(pool), EXACT_UP_TO[pool.inputs.device.type])
        inputs = Inputs(pool.inputs.array[:count], pool.inputs.device)
        labels = np.full(count, NOT_BOUGHT, np.int64)
        labels[0] = 0
        with seeded(chance("weights"), inputs.device):
            network = architecture.build(inputs.shape, pool.inputs.moments, pool.classes)
        model = Model(placed(network, inputs.device), inputs, {})
        seconds: dict[str, float] = {}
        for _ in range(2):  # the first bears what is done once in a process
            began = perf_counter()
            embeddings = model.embed(np.arange(count))
            seconds = {} if self.pseudo_labels == "network" else {"embed": perf_counter() - began}
            made = self.pseudo.of(embeddings, labels, pool.classes, model.predict, inputs.device)
            seconds |= made.seconds
        graph = seconds.pop("graph", 0.0) * most / count
        return (graph + sum(seconds.values())) * (len(pool) / count) * self.propagation_epochs

    @property
    def second(self) -> Recipe:
        """The recipe of the second stage."""
        return replace(self, epochs=self.propagation_epochs)

    @property
    def pseudo(self) -> PseudoLabels:
        """How its pseudo-labels are made."""
        shared = {each.name: getattr(self, each.name) for each in fields(Spreading)}
        return PseudoLabels(kind=self.pseudo_labels, **shared)
