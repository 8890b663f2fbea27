"""WAAL: what is uncertain and, for a critic of Wasserstein distances, far from what is labeled."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float32, Float64
from numpy import ndarray

from alrun.pool import smallest
from alrun.rounds import Batch, Round

LEAST = 1e-12  # probability; its logarithm is the smallest that counts


@dataclass(frozen=True)
class Waal:
    """The candidates with the smallest `uncertainty_bound` - `weight` D(g(x)).

    Both parts of the bound are smallest for uniform probabilities; the critic D is near 1 where an item looks
    unlabeled.

    Attributes:
        weight: of the critic against the bound; 0 leaves the uncertainty alone.

    Scores are these numbers, smallest first.
    Source: Shui et al. 2020, query strategy; cjshui/WAAL (weight 10). Departs: probabilities are not below
    1e-12, where a probability of 0 there gives an infinite score.
    """

    weight: Annotated[float, Ge(0)]
    needs = frozenset({"probabilities", "heads.critic"})

    def select(self, current: Round, size: int) -> Batch:
        """The smallest scores."""
        rows = current.candidates
        # first: it leaves probabilities behind
        critic = current.head("critic", rows)[:, 0].astype(np.float64)
        scores = uncertainty_bound(current.probabilities(rows)) - self.weight * critic
        chosen = smallest(rows, scores, size)
        return Batch(chosen, scores[np.searchsorted(rows, chosen)])


def uncertainty_bound(probabilities: Float32[ndarray, "m c"]) -> Float64[ndarray, " m"]:
    """Half the Euclidean norm of log p plus half the sum of -log p over classes, in nats; p at least 1e-12.

    At least log(c) (sqrt(c) + c) / 2 for c classes, reached by uniform probabilities alone.
    Source: Shui et al. 2020, query strategy (the L2 and the L1 upper bound of the loss over all labels).
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), LEAST))
    return 0.5 * np.sqrt((logs**2).sum(axis=1)) - 0.5 * logs.sum(axis=1)
