"""A first guess at the prices of a large pool, from a sample of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.coverage.k_medoids import k_medoids
from alrun.pool import BLOCK_BYTES
from alrun.wasserstein.ascent import Ascent, Proof, Task, proof
from alrun.wasserstein.descent import choice, improved, rounded, settled
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.lift import lifted


@dataclass(frozen=True, eq=False)
class Sample:
    """A sampled task refined: its rows in the pool, its ascent, its best selection as rows of the pool."""

    rows: Int64[ndarray, " s"]
    ascent: Ascent
    chosen: Int64[ndarray, " b"]


def coarse(task: Task, rng: np.random.Generator, watch: Callable[[], None]) -> Sample:
    """The task on a sample of its candidates, refined for a few rounds."""
    part, rows = sampled(task, max(SAMPLE, 2 * task.free), rng)
    ground = part.ground
    medoids = k_medoids(
        ground.points,
        part.fixed,
        part.candidates,
        part.free,
        metric=ground.metric,
        rng=rng,
        sample=None,
        sweeps=1,
    ).rows
    best = choice(part, np.concatenate([part.fixed, medoids]))
    ascent = Ascent(part, proof(part, np.zeros(len(rows)), watch=watch))
    for _ in range(ROUNDS):
        ascent.climb(best.cost, STEPS, watch)
        near = settled(part, choice(part, rounded(part, ascent.chances)), 3, watch, lambda found: None)
        best = min(best, near, key=lambda found: found.cost)
        options = rng.permutation(np.intersect1d(ascent.chosen_often(), part.candidates))[:SWAPS]
        best = improved(part, best, options, watch, lambda found: None)
    return Sample(rows, ascent, rows[best.rows])


SAMPLE = 5000  # rows, or twice the columns to choose; a pool of up to twice as many is not sampled
ROUNDS, STEPS = 4, 100  # of the sample's refinement
LOOKED_AT = 48  # columns near a row, among which most rows find theirs
SWAPS = 200  # candidates tried in each


def sampled(task: Task, size: int, rng: np.random.Generator) -> tuple[Task, Int64[ndarray, " s"]]:
    """The same task on fixed rows and drawn candidates, and which rows these are, sorted."""
    drawn = rng.choice(task.candidates, min(size, len(task.candidates)), replace=False)
    rows = np.sort(np.concatenate([task.fixed, drawn]))
    ground = Ground(np.ascontiguousarray(task.ground.points[rows]), task.ground.metric)
    fixed = np.searchsorted(rows, task.fixed)
    return Task(ground, fixed, np.setdiff1d(np.arange(len(rows)), fixed), task.free), rows


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


def guess(task: Task, sample: Sample) -> tuple[Proof, Float64[ndarray, " n"]]:
    """What prices and values of a sampled task say about the whole one: a guess without a bound; chances too.

    A row's price is what it pays where the columns that were chosen often, each for its share of time, have
    filled it: the smallest p such that columns with distance - largest value <= p were chosen once in all.
    """
    found, rows = sample.ascent, sample.rows
    few = found.chosen_often()
    chances, largest = found.chances[few], found.proof.largest[few]
    chances = chances * (task.size / chances.sum())
    n, columns = len(task.ground), rows[few]
    prices = np.empty(n)
    for part in np.array_split(np.arange(n), -(-n * len(few) * 16 // BLOCK_BYTES)):
        costs = task.ground.floor(columns, part).T - largest
        prices[part] = _filled_at(costs, chances, min(LOOKED_AT, len(few)))
    values, limits = lifted(task.ground, prices, task.size, np.arange(n), rows=rows)
    spread = np.zeros(n)
    spread[columns] = chances
    return Proof(-np.inf, prices, values, limits), spread
