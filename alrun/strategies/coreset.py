"""Core set by greedy k-center."""

from dataclasses import dataclass

from alrun.coverage.k_center import k_center
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Coreset:
    """The candidates farthest from all labeled rows in the featurizer's space, one by one.

    Scores are Euclidean distances to the nearest center when chosen (inf for the first without any).
    Source: Sener and Savarese 2018, greedy version, as in S0 section 6.1.
    """

    needs = frozenset({"features"})

    def select(self, current: Round, size: int) -> Batch:
        """A cover of the candidates."""
        rows, distances = k_center(current.features, current.pool.labeled, current.candidates, size)
        return Batch(rows, distances)
