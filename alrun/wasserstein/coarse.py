"""A first guess at the prices of a large pool, from a sample of it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.pool import BLOCK_BYTES
from alrun.wasserstein.ascent import Ascent, Proof, Task, proof
from alrun.wasserstein.descent import Choice, choice, improved, rounded, settled
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.lift import lifted
from alrun.wasserstein.medoids import medoids
from alrun.wasserstein.over import Watch

SAMPLE = 5000  # rows, or twice the columns to choose; a pool of up to twice as many is not sampled
ROUNDS, STEPS = 4, 100  # of the sample's refinement
LOOKED_AT = 48  # columns near a row, among which most rows find theirs
SWAPS = 200  # candidates tried in each


class Sample:
    """The task on a sample of the pool.

    Attributes:
        rows: of the sample, sorted. best: its best selection. ascent: None before `refine`.
    """

    def __init__(self, task: Task, rng: np.random.Generator, in_time: Callable[[], bool]) -> None:
        """Begins with k-medoids, looked for while `in_time`."""
        self.task, self.rows = sampled(task, max(SAMPLE, 2 * task.free), rng)
        part = self.task
        self.best = choice(part, medoids(part, rng, 1, in_time))
        self.ascent: Ascent | None = None

    @property
    def chosen(self) -> Int64[ndarray, " b"]:
        """The best selection, as rows of the pool."""
        return self.rows[self.best.rows]

    def refine(self, rng: np.random.Generator, watch: Watch) -> None:
        """A few rounds of ascent, rounding, Lloyd and swaps; what is found is kept when `watch` ends them."""
        part = self.task
        self.ascent = Ascent(part, proof(part, np.zeros(len(part.ground)), watch=watch))
        for _ in range(ROUNDS):
            self.ascent.climb(self.best.cost, STEPS, watch)
            near = choice(part, rounded(part, self.ascent.chances, watch), watch)
            self._keep(near)
            settled(part, near, 3, watch, self._keep)
            options = rng.permutation(np.intersect1d(self.ascent.chosen_often(), part.candidates))[:SWAPS]
            improved(part, self.best, options, watch, self._keep)

    def _keep(self, found: Choice) -> None:
        if found.cost < self.best.cost:
            self.best = found


def sampled(task: Task, size: int, rng: np.random.Generator) -> tuple[Task, Int64[ndarray, " s"]]:
    """The same task on the fixed rows and others drawn from the whole pool, and which rows these are, sorted.

    Where the pool has few candidates, so many are drawn besides that there are twice as many as are to be
    chosen.
    """
    others = np.setdiff1d(np.arange(len(task.ground)), task.fixed)
    rows = np.union1d(task.fixed, rng.choice(others, min(size, len(others)), replace=False))
    left = np.setdiff1d(task.candidates, rows)
    lacking = min(len(left), 2 * task.free - (len(task.candidates) - len(left)))
    if lacking > 0:
        rows = np.union1d(rows, rng.choice(left, lacking, replace=False))
    ground = Ground(np.ascontiguousarray(task.ground.points[rows]), task.ground.metric)
    fixed, candidates = (np.flatnonzero(np.isin(rows, some)) for some in (task.fixed, task.candidates))
    return Task(ground, fixed, candidates, task.free), rows


def _filled_at(
    costs: Float64[ndarray, "r s"], chances: Float64[ndarray, " s"], width: int
) -> Float64[ndarray, " r"]:
    """Of each row the cost at which columns no dearer add up to a chance of one; `width` of them at first."""
    near = np.argpartition(costs, width - 1, axis=1)[:, :width]
    order = np.take_along_axis(near, np.argsort(np.take_along_axis(costs, near, 1), axis=1, kind="stable"), 1)
    sums = np.cumsum(chances[order], axis=1)
    reached = (sums >= 1 - 1e-9).argmax(axis=1)
    found = np.take_along_axis(costs, np.take_along_axis(order, reached[:, None], 1), 1)[:, 0]
    short = np.flatnonzero(sums[:, -1] < 1 - 1e-9)
    if len(short) and width < costs.shape[1]:
        found[short] = _filled_at(costs[short], chances, costs.shape[1])
    return found


def guess(task: Task, sample: Sample, watch: Watch) -> tuple[Proof, Float64[ndarray, " n"]]:
    """What prices and values of a sampled task say about the whole one: a guess without a bound; chances too.

    A row's price is what it pays where the columns that were chosen often, each for its share of time, have
    filled it: the smallest p such that columns with distance - largest value <= p were chosen once in all.
    """
    assert sample.ascent is not None
    found, rows = sample.ascent, sample.rows
    few = found.chosen_often()
    chances, largest = found.chances[few], found.proof.largest[few]
    chances = chances * (task.size / chances.sum())
    n, columns = len(task.ground), rows[few]
    prices = np.empty(n)
    for part in np.array_split(np.arange(n), -(-n * len(few) * 16 // BLOCK_BYTES)):
        watch()
        costs = task.ground.floor(columns, part).T - largest
        prices[part] = _filled_at(costs, chances, min(LOOKED_AT, len(few)))
    values, limits = np.full(n, np.inf), np.full(n, np.nan)
    values[task.columns], limits[task.columns] = lifted(
        task.ground, prices, task.size, task.columns, rows=rows, watch=watch
    )
    spread = np.zeros(n)
    spread[columns] = chances
    return Proof(-np.inf, prices, values, limits, 0.0), spread
