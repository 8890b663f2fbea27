"""All selections of a small pool, each with a bound; the few whose bounds are too low are priced."""

from itertools import chain, combinations
from math import comb

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.transport.semi_discrete import FLOOR, PRECISION
from alrun.wasserstein.ascent import Task
from alrun.wasserstein.descent import Choice, choice
from alrun.wasserstein.lift import lifted

EQUAL = 1e-12  # of the least cost, within which selections cost the same
AT_ONCE = 4096  # selections whose distances stay in cache
UNIT = 2.0**-53  # rounding of a sum or a difference, as a share of its size


class Enumeration:
    """What every selection costs: exactly where it was priced, else at least.

    In the end none costs less than the best one by more than what a price is certain to: 1e-9 of it, or
    5.7e-14 of the largest distance, if that is more (`alrun.transport.semi_discrete.transport`).

    The order of selections is that of their sorted candidates, as words in a dictionary.

    The bound of a selection S at any duals v is mean_i min_{j in S} (d_ij - v_j) + mean_{j in S} v_j (weak
    duality), less what rounding may have added. Duals of zero give the mean distance to the nearest column. A
    priced selection gives its own duals and, for other columns, those at which a column is just filled at its
    prices of rows: so none of these bounds is below (B+), `alrun.wasserstein.cuts`.
    """

    def __init__(self, task: Task, start: Choice) -> None:
        """All bounds, from the start's duals and from none."""
        self.task = task
        self.distances = task.ground.columns(np.arange(len(task.ground)))
        count = comb(len(task.candidates), task.free)
        every = chain.from_iterable(combinations(task.candidates.tolist(), task.free))
        free = np.fromiter(every, np.int64, count * task.free).reshape(count, task.free)
        self.sets = np.hstack([np.tile(task.fixed, (count, 1)), free])
        self.bounds, self.costs = np.zeros(count), np.full(count, np.inf)
        self._raise(np.arange(count), np.zeros(len(task.ground)))
        same = (free == np.sort(start.rows[len(task.fixed) :])).all(axis=1)
        self._learn(int(same.argmax()), start)

    @property
    def bound(self) -> float:
        """What every selection costs at least."""
        return float(min(self.bounds.min(), self.costs.min()))

    @property
    def first(self) -> int:
        """The first of the priced selections that cost least."""
        return int((self.costs <= self.costs.min() * (1 + EQUAL)).argmax())

    def next(self) -> int | None:
        """The selection to be priced next, of the lowest bound; None where the rest cannot be better.

        Where none can be better, but an earlier one as good, it is the first of these.
        """
        left, may_be_better = self._left()
        if len(left) == 0:
            return None
        return int(left[self.bounds[left].argmin()] if may_be_better else left[0])

    def price(self, nth: int) -> Choice:
        """What a selection costs, which raises the bounds of others."""
        found = choice(self.task, self.sets[nth])
        self._learn(nth, found)
        return found

    @property
    def _enough(self) -> float:
        """A selection whose bound is as high is no better than the best one."""
        best = float(self.costs.min())
        return best - max(PRECISION * best, FLOOR * float(self.distances.max()))

    def _left(self) -> tuple[Int64[ndarray, " k"], bool]:
        """Selections that may be better (True); where none is, earlier ones that may be as good (False)."""
        better = np.flatnonzero(self.bounds < self._enough)
        if len(better):
            return better, True
        return np.flatnonzero(self.bounds[: self.first] <= self.costs.min() * (1 + EQUAL)), False

    def _learn(self, nth: int, found: Choice) -> None:
        """Keeps a cost, and raises the bounds that are too low by its duals."""
        self.costs[nth], self.bounds[nth] = found.cost, np.inf
        task, duals = self.task, np.zeros(len(self.distances))
        _, duals[task.columns] = lifted(task.ground, found.plan.row_duals, task.size, task.columns)
        duals[found.rows] = found.plan.column_duals
        self._raise(self._left()[0], duals)

    def _raise(self, some: Int64[ndarray, " k"], duals: Float64[ndarray, " n"]) -> None:
        """Raises the bounds of some selections to what these duals prove."""
        n, reduced = len(duals), np.ascontiguousarray((self.distances - duals).T)  # a row for each column
        size = float(self.distances.max() + np.abs(duals).max())
        lost = 2 * (n + self.task.size) * UNIT * size  # of sums of n and of `size` terms, rounded one by one
        for part in np.array_split(some, -(-len(some) // AT_ONCE) or 1):
            sets = self.sets[part]
            least = reduced[sets[:, 0]]
            for place in range(1, self.task.size):
                np.minimum(least, reduced[sets[:, place]], out=least)
            proven = least.mean(axis=1) + duals[sets].mean(axis=1) - lost
            self.bounds[part] = np.maximum(self.bounds[part], proven)
