"""The smallest scores of diffused labels, of which only those that changed are computed."""

from collections.abc import Callable
from copy import copy

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel
from alrun.graph.diffusion import Diffusion
from alrun.pool import smallest

Score = Callable[[Float64[ndarray, "b c"]], Float64[ndarray, " b"]]

# Bits of a float64 score to drop: 20 are kept where values are float32, 40 where they are float64.
DROPPED = {np.dtype(np.float32): 32, np.dtype(np.float64): 12}
# Up to so many are found in one pass by insertion, more by a partial sort.
FEW = 64


class Least:
    """The scores of the open candidates, kept up to date while a diffusion clamps rows.

    `score` maps rows of values to scores, each row by itself.
    """

    def __init__(self, state: Diffusion, candidates: Int64[ndarray, " m"], score: Score) -> None:
        self._state, self.score = state, score
        self.open = np.zeros(len(state), bool)
        self.open[candidates] = True
        self._scores = np.full(len(state), np.inf)
        self._steps: int | None = None

    def among_only(self, state: Diffusion, candidates: Int64[ndarray, " m"]) -> "Least":
        """The scores of some of the open candidates, to follow a copy of the diffusion."""
        other = copy(self)
        other._state, other.open = state, np.zeros_like(self.open)
        other.open[candidates] = True
        other._scores = np.where(other.open, self._scores, np.inf)
        return other

    def ready(self, steps: int) -> None:
        """Computes the scores of chi^(steps), unless they are kept up to date already."""
        if steps != self._steps:
            self._compute(np.flatnonzero(self.open), steps)
            self._steps = steps

    def among(self, size: int, steps: int) -> Int64[ndarray, " p"]:
        """The `size` open candidates with the smallest scores of chi^(steps), ties to the smaller row.

        Raises:
            ValueError: a score that is no number.
        """
        self.ready(steps)
        if COMPILED and 0 < size <= FEW:
            return _smallest_few(self._scores, size)
        return smallest(np.arange(len(self._scores)), self._scores, size)

    def clamped(self, rows: Int64[ndarray, " p"]) -> None:
        """Closes the rows that were clamped last, and computes the scores that this changed."""
        self.open[rows], self._scores[rows] = False, np.inf
        if self._steps is not None:
            changed = self._state.changed(self._steps)
            rows = np.flatnonzero(self.open) if changed is None else changed[self.open[changed]]
            self._compute(rows, self._steps)

    def _compute(self, rows: Int64[ndarray, " r"], steps: int) -> None:
        scores = self.score(self._state.at(rows, steps).astype(np.float64))
        if np.isnan(scores).any():
            bad = rows[np.isnan(scores)][0]
            raise ValueError(
                f"scores must be numbers, got NaN for row {bad}; check the inputs and the training loss"
            )
        self._scores[rows] = rounded(scores, DROPPED[self._state.dtype])


def rounded(scores: Float64[ndarray, " r"], dropped: int) -> Float64[ndarray, " r"]:
    """Scores to their leading bits, so that rounding in sums of another order leaves most ties ties.

    Relative, not absolute: what one label sends over T steps may be as small as (e K)^-T and still ranks.
    """
    bits = np.ascontiguousarray(scores).view(np.int64)
    return (((bits + (1 << (dropped - 1))) >> dropped) << dropped).view(np.float64)


@kernel
def _smallest_few(values, size):
    found, least = np.zeros(size, np.int64), np.full(size, np.inf)
    for i in range(len(values)):
        if values[i] < least[-1]:
            at = size - 1
            while at > 0 and least[at - 1] > values[i]:
                least[at], found[at] = least[at - 1], found[at - 1]
                at -= 1
            least[at], found[at] = values[i], i
    return found
