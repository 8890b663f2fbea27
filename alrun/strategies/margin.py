"""Margin: the smallest gap between the two largest probabilities first."""

from dataclasses import dataclass

from alrun.rounds import Batch, Round
from alrun.strategies.uncertainty import largest
from alrun.strategies.uncertainty import margin as uncertainty


@dataclass(frozen=True)
class Margin:
    """Margin: the smallest gap between the two largest probabilities first.

    Source: S0, section 6.2, Margin (Settles 2012, section 2.2).
    """

    needs = frozenset({"probabilities"})

    def select(self, current: Round, size: int) -> Batch:
        """The most uncertain candidates, most uncertain first."""
        scores = uncertainty(current.probabilities(current.candidates))
        return largest(current.candidates, scores, size)
