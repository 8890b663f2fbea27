"""Least confidence: the smallest largest probability first."""

from dataclasses import dataclass

from alrun.rounds import Batch, Round
from alrun.strategies.uncertainty import confidence_gap as uncertainty
from alrun.strategies.uncertainty import largest


@dataclass(frozen=True)
class LeastConfidence:
    """Least confidence: the smallest largest probability first.

    Source: S0, section 6.2, Uncertainty (Lewis and Gale 1994).
    """

    needs = frozenset({"probabilities"})

    def select(self, current: Round, size: int) -> Batch:
        """The most uncertain candidates, most uncertain first."""
        scores = uncertainty(current.probabilities(current.candidates))
        return largest(current.candidates, scores, size)
