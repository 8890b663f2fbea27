"""Core set by greedy k-center."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from alrun.coverage.k_center import k_center
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Coreset:
    """The candidates farthest from all labeled rows, one by one.

    Attributes:
        space: `features` of the whole pool, or the round's own `embeddings`, made for candidates and labeled
            rows only: as a second stage it then stands in another space than the first.

    Scores are Euclidean distances to the nearest center when chosen (inf for the first without any).
    Source: Sener and Savarese 2018, greedy version, as in S0 section 6.1; S1 (DGCoreSet) for embeddings.
    """

    space: Literal["features", "embeddings"]

    @property
    def needs(self) -> frozenset[str]:
        """Either of the two."""
        return frozenset({self.space})

    def select(self, current: Round, size: int) -> Batch:
        """A cover of the candidates."""
        labeled, candidates = current.pool.labeled, current.candidates
        if self.space == "features":
            return Batch(*k_center(current.features, labeled, candidates, size))
        rows = np.union1d(labeled, candidates)
        centers, others = np.searchsorted(rows, labeled), np.searchsorted(rows, candidates)
        picks, distances = k_center(current.embeddings(rows), centers, others, size)
        return Batch(rows[picks], distances)
