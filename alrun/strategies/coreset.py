"""Core set by greedy k-center."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.coverage.distances import check_directed
from alrun.coverage.k_center import k_center
from alrun.graph.knn import unit_rows
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Coreset:
    """The candidates farthest from all labeled rows, one by one.

    Attributes:
        space: `features` of the whole pool, or the round's own `embeddings`, made for candidates and labeled
            rows only: as a second stage it then stands in another space than the first.
        metric: distance of two rows; cosine is 1 - cos, in [0, 2].

    Scores are distances to the nearest center when chosen (inf for the first without any, which is the
    candidate closest to the candidates' mean, for cosine that of their unit rows).
    Source: Sener and Savarese 2018, greedy version, as in S0 section 6.1; S1 (DGCoreSet) for embeddings; S2
    for cosine.
    """

    space: Literal["features", "embeddings"]
    metric: Literal["euclidean", "cosine"]

    @property
    def needs(self) -> frozenset[str]:
        """Either of the two."""
        return frozenset({self.space})

    def select(self, current: Round, size: int) -> Batch:
        """A cover of the candidates.

        Raises:
            ValueError: features that are no numbers, or a row of zeros under the cosine metric.
        """
        labeled, candidates = current.pool.labeled, current.candidates
        if self.space == "features":
            return Batch(*self._cover(current.features, labeled, candidates, size))
        rows = np.union1d(labeled, candidates)
        centers, others = np.searchsorted(rows, labeled), np.searchsorted(rows, candidates)
        picks, distances = self._cover(current.embeddings(rows), centers, others, size)
        return Batch(rows[picks], distances)

    def _cover(
        self, points: Float32[ndarray, "n d"], centers: ndarray, candidates: ndarray, size: int
    ) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
        if self.metric == "euclidean":
            return k_center(points, centers, candidates, size)
        check_directed(points)
        picks, chords = k_center(unit_rows(points), centers, candidates, size)
        return picks, chords**2 / 2
