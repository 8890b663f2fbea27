"""TypiClust: typical rows of clusters without labels."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from alrun.coverage.clusters import k_means
from alrun.coverage.typicality import most_typical
from alrun.graph.knn import unit_rows
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Typiclust:
    """The most typical candidate of each of the largest clusters without a label.

    The whole pool is clustered anew, by k-means, into as many clusters as there are labels after this round.

    Attributes:
        max_clusters: there are no more than this.
        neighbors: typicality is the inverse mean distance to so many nearest rows of the cluster.
        smallest: clusters with fewer rows wait until all others are used up.
        unit: whether features are divided by their norms first.

    Scores are typicality. Source: Hacohen et al. 2022, TPC_RP with k-means. Departs: see `most_typical`.
    """

    max_clusters: Annotated[int, Ge(1)]
    neighbors: Annotated[int, Ge(1)]
    smallest: Annotated[int, Ge(1)]
    unit: bool
    needs = frozenset({"features"})

    def select(self, current: Round, size: int) -> Batch:
        """Cluster by cluster, those with the fewest labels first."""
        points = unit_rows(current.features) if self.unit else current.features
        labeled = current.pool.labeled
        clusters = k_means(points, min(len(labeled) + size, self.max_clusters), current.rng)
        rows, scores = most_typical(
            points,
            clusters,
            labeled,
            current.candidates,
            size,
            neighbors=self.neighbors,
            smallest=self.smallest,
        )
        sizes = np.bincount(clusters)
        notes = {
            "clusters": (sizes > 0).sum(),
            "small_clusters": ((sizes > 0) & (sizes < self.smallest)).sum(),
        }
        return Batch(rows, scores, {name: float(count) for name, count in notes.items()})
