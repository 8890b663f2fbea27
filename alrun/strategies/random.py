"""Uniform choice."""

from dataclasses import dataclass

import numpy as np

from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Random:
    """Candidates drawn uniformly without replacement. Scores are zero.

    Source: the baseline of every paper here (S0, section 6.1).
    """

    needs = frozenset[str]()

    def select(self, current: Round, size: int) -> Batch:
        """`size` candidates in the order drawn."""
        chosen = current.rng.choice(current.candidates, size, replace=False)
        return Batch(rows=chosen, scores=np.zeros(size))
