"""k-medoids: rows that all points are near to."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from alrun.coverage.distances import check_directed
from alrun.coverage.k_medoids import k_medoids
from alrun.rounds import Batch, Round

NOTES = ("objective", "swaps", "sweeps", "tried", "converged")


@dataclass(frozen=True)
class Kmedoids:
    """The candidates that, with the labeled rows, are near to all rows of the pool on average.

    Labeled rows are medoids that stay; without any, all are chosen. A round costs 2 n m d flops for each
    sweep of m candidates over n rows of d features, and the memory of a few copies of the features.

    Attributes:
        metric: distance of two rows; cosine is 1 - cos, in [0, 2].
        sample: swaps are looked for among so many candidates, drawn anew each round; None is all.
        sweeps: passes through these candidates at most; a pass in which no swap helps is the last.

    Scores are what the objective would grow by without that medoid, largest first; inf for the only one.
    Notes: `objective` (mean distance of all rows to their nearest medoid), `swaps`, `sweeps`, `tried`
    (candidates that swaps were looked for among), `converged` (1 where no swap with one of these helps).
    Source: a baseline of S2, section 5, there by Heitsch and Roemisch 2003. Departs: swaps, see `k_medoids`.
    """

    metric: Literal["euclidean", "cosine"]
    sample: Annotated[int, Ge(1)] | None
    sweeps: Annotated[int, Ge(1)]
    needs = frozenset({"features"})

    def select(self, current: Round, size: int) -> Batch:
        """Medoids of the pool.

        Raises:
            ValueError: features that are no numbers, or a row of zeros under the cosine metric.
        """
        features = current.features
        if self.metric == "cosine":
            check_directed(features)
        found = k_medoids(
            features,
            current.pool.labeled,
            current.candidates,
            size,
            metric=self.metric,
            rng=current.rng,
            sample=self.sample,
            sweeps=self.sweeps,
        )
        notes = {name: float(getattr(found, name)) for name in NOTES}
        return Batch(found.rows, found.losses, notes)
