"""Entropy: the largest predictive entropy first."""

from dataclasses import dataclass

from alrun.rounds import Batch, Round
from alrun.strategies.uncertainty import entropy as uncertainty
from alrun.strategies.uncertainty import largest


@dataclass(frozen=True)
class Entropy:
    """Entropy: the largest predictive entropy first.

    Source: S0, section 6.2, Entropy (Settles 2012, section 2.3).
    """

    needs = frozenset({"probabilities"})

    def select(self, current: Round, size: int) -> Batch:
        """The most uncertain candidates, most uncertain first."""
        scores = uncertainty(current.probabilities(current.candidates))
        return largest(current.candidates, scores, size)
