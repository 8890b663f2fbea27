"""The Lagrangian bound on all selections, raised step by step, and what it says about each column."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, threads
from alrun.wasserstein.counting import excesses, excesses_plainly, fills, fills_plainly
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.lift import lifted
from alrun.wasserstein.over import Over, Watch, unwatched

HELD_BYTES = 2**30  # of the distances of columns that steps look at
MEMORY = 0.02  # weight of the newest choice in the average choice: the last 50 count
RARE = 1e-3  # share of selections
MOMENTUM = 0.7  # of the direction before in the next one
PATIENCE = 20  # steps without a higher bound before steps become shorter
SHORTER, SHORTEST = 0.7, 1e-3
LOST = 10.0  # bounds so many gaps below the best one are not come back from
MARGIN = 0.5  # columns beyond the held ones that are worth measuring well: share of the spread of values


@dataclass(frozen=True, eq=False)
class Task:
    """Choose `free` of the candidates to join the fixed rows, so that all `size` cost the pool least.

    Candidates and fixed rows are sorted and disjoint; size = fixed + free.
    """

    ground: Ground
    fixed: Int64[ndarray, " l"]
    candidates: Int64[ndarray, " m"]
    free: int

    @property
    def size(self) -> int:
        """Columns of a selection."""
        return len(self.fixed) + self.free

    @cached_property
    def columns(self) -> Int64[ndarray, " c"]:
        """What selections are made of: fixed rows and candidates, sorted."""
        return np.union1d(self.fixed, self.candidates)

    def cheapest(self, values: Float64[ndarray, " n"]) -> Int64[ndarray, " b"]:
        """The selection of least sum of values, ties to the smaller row."""
        some = values[self.candidates]
        order = np.lexsort((self.candidates, some))[: self.free]
        return np.concatenate([self.fixed, self.candidates[order]])


class Proof(NamedTuple):
    """A lower bound on the cost of every selection, with the prices and values of columns it follows from.

    Rows that are no columns have the value inf. `seconds`: what the proof took.
    """

    bound: float
    prices: Float64[ndarray, " n"]
    values: Float64[ndarray, " n"]
    largest: Float64[ndarray, " n"]
    seconds: float


def proof(
    task: Task,
    prices: Float64[ndarray, " n"],
    before: Proof | None = None,
    near: Int64[ndarray, " h"] | None = None,
    watch: Watch = unwatched,
) -> Proof:
    """The bound that these prices prove: their mean, and the mean value of the cheapest columns at them.

    `before`, a proof at similar prices, saves time. So does `near`, columns among which the cheapest may be,
    at least as many as a selection has: other columns are measured well only where they may be as cheap.

    Source: ALGORITHMS 3.4 (Lagrangian root), with the capacitated values of (B+).
    """
    n, begun = len(task.ground), time.perf_counter()
    starts = np.full(n, np.nan) if before is None else before.largest
    values, largest, enough = np.full(n, np.inf), np.full(n, np.nan), np.inf
    first = task.columns if near is None else near
    for columns in (first, np.setdiff1d(task.columns, first)):
        if len(columns):
            values[columns], largest[columns] = lifted(
                task.ground, prices, task.size, columns, starts=starts[columns], enough=enough, watch=watch
            )
        some = values[np.intersect1d(first, task.candidates)]
        if task.free:
            last = np.partition(some, task.free - 1)[task.free - 1]
            enough = float(last + MARGIN * (last - some.min()))
    best = task.cheapest(values)
    bound = float(prices.mean() + values[best].sum() / task.size)
    return Proof(bound, prices.copy(), values, largest, time.perf_counter() - begun)


class Ascent:
    """Prices of rows on their way to the highest bound.

    Steps are taken on the columns that are cheapest so far, as many as 1 GiB of distances holds (all, up to
    16,384 rows); the bound is proven over all columns by `proof`.

    Source: ALGORITHMS 3.4; subgradients with momentum and a step of Polyak's length, primal average as in the
    volume algorithm (Barahona and Anbil 2000).
    """

    def __init__(
        self,
        task: Task,
        found: Proof,
        chances: Float64[ndarray, " n"] | None = None,
        cells: Int64[ndarray, " n"] | None = None,
        stride: float = 1.0,
    ) -> None:
        """Starts from a proof, with steps of half the stride times Polyak's length.

        `cells` divide the rows into places that each have columns held.
        """
        self.task, self.proof, self.stride = task, found, stride
        self.proving = found.seconds
        n = len(task.ground)
        self.chances = np.zeros(n) if chances is None else chances.copy()
        self.held, self.tile = np.empty(0, np.int64), np.empty((0, n), np.float32)
        self.cells = np.zeros(n, np.int64) if cells is None else cells
        self.least = found.values  # of each column, at the prices that were proven since the best ones
        self._hold()

    def climb(self, target: float, steps: int, watch: Watch) -> None:
        """So many steps towards a bound `target`, then a proof over all columns.

        Raises:
            Over: the time is up; steps end early enough to be proven.
        """
        self.reached = self.proof.prices
        try:
            self._walk(target, steps, lambda: watch(self.proving))
        except Over:
            if self.reached is not self.proof.prices:
                self._prove(self.reached, watch)
            raise
        self.stride = min(1.0, 2 * self.stride)  # a better target may allow longer steps
        self._prove(self.reached, watch)

    def _walk(self, target: float, steps: int, watch: Callable[[], None]) -> None:
        """The steps; `reached` are the best prices so far."""
        task = self.task
        prices, thresholds = self.proof.prices, self.proof.largest[self.held].astype(np.float32)
        reach = self._reach(self.proof.values[self.held], thresholds)
        best, kept, direction, stale = -np.inf, (prices, thresholds), None, 0
        with threads() as share:
            for _ in range(steps):
                watch()
                values, counts = self._measure(prices, thresholds, share)
                chosen = self._chosen(values)
                bound = float(prices.mean() + values[chosen].sum() / task.size)
                if bound > best + 1e-7 * abs(target):
                    best, kept, stale, self.reached = bound, (prices, thresholds), 0, prices
                else:
                    stale += 1
                if stale >= PATIENCE:
                    self.stride, stale = max(SHORTER * self.stride, SHORTEST), 0
                if best - bound > LOST * (target - best):
                    (prices, thresholds), direction, stale = kept, None, PATIENCE
                    continue
                self._remember(chosen)
                slope = _uncovered(self.tile, prices, thresholds, chosen, share) / len(prices)
                if not slope.any() or target <= bound:  # nothing is left to gain
                    break
                direction = slope if direction is None else (1 - MOMENTUM) * slope + MOMENTUM * direction
                # A sum, not an inner product: those may be added in another order with more threads.
                length = max((direction**2).sum(), SHORTEST * (slope**2).sum())
                prices = prices + 0.5 * self.stride * (target - bound) / length * direction
                thresholds = thresholds - np.clip(counts / self._share - 1, -1, 1).astype(np.float32) * reach
                reach = self._reach(values, thresholds)

    def chosen_often(self) -> Int64[ndarray, " s"]:
        """Columns that the cheapest selections of the last steps had, sorted."""
        return np.flatnonzero(self.chances > RARE)

    def _prove(self, prices: Float64[ndarray, " n"], watch: Watch) -> None:
        found = proof(self.task, prices, self.proof, self.held, watch)
        self.proving = found.seconds
        if found.bound > self.proof.bound:
            self.proof, self.least = found, found.values
        else:  # columns that were not held undo the step: they are held from now on
            self.least = np.minimum(self.least, found.values)
            self.stride = max(SHORTER**2 * self.stride, SHORTEST)
        self._hold()

    @property
    def _share(self) -> float:
        return len(self.task.ground) / self.task.size

    def _hold(self) -> None:
        """Takes the distances of the columns that are cheapest now: of all, and in each cell."""
        task, n = self.task, len(self.task.ground)
        room = max(2 * task.size, HELD_BYTES // (4 * n))
        values = self.least[task.candidates]
        order = np.lexsort((task.candidates, values))
        first = max((room - len(task.fixed)) // 2, task.free)
        # Columns of one dense place are cheap together; were they alone held, steps would lose the others.
        rest = order[first:]
        ranks = _rank_within(self.cells[task.candidates[rest]])
        others = rest[np.argsort(ranks, kind="stable")][: max(0, room - len(task.fixed) - first)]
        held = np.sort(np.concatenate([task.fixed, task.candidates[order[:first]], task.candidates[others]]))
        if np.array_equal(held, self.held):
            return
        self.held = held
        if len(held) != len(self.tile):
            self.tile = self.tile[:0]  # gone before the new one comes
            self.tile = np.empty((len(held), n), np.float32)
        done = 0
        for part in task.ground.tiles(held):
            self.tile[done : done + len(part)] = task.ground.floor(part)
            done += len(part)
        self.fixed = np.searchsorted(held, task.fixed)
        self.others = np.setdiff1d(np.arange(len(held)), self.fixed)

    def _measure(
        self, prices: Float64[ndarray, " n"], thresholds: Float32[ndarray, " h"], share: Callable[..., None]
    ) -> tuple[Float64[ndarray, " h"], Float64[ndarray, " h"]]:
        """Values of the held columns by their thresholds, and how many rows are below those."""
        sums, counts = np.empty(len(self.held), np.float32), np.empty(len(self.held), np.float32)
        fill = excesses if COMPILED else excesses_plainly
        single = prices.astype(np.float32)
        share(
            lambda start, stop: fill(self.tile, single, thresholds, sums, counts, start, stop), len(self.held)
        )
        return thresholds - sums.astype(np.float64) / self._share, counts.astype(np.float64)

    def _chosen(self, values: Float64[ndarray, " h"]) -> Int64[ndarray, " b"]:
        order = np.lexsort((self.others, values[self.others]))[: self.task.free]
        return np.concatenate([self.fixed, self.others[order]])

    def _remember(self, chosen: Int64[ndarray, " b"]) -> None:
        self.chances *= 1 - MEMORY
        self.chances[self.held[chosen]] += MEMORY

    @staticmethod
    def _reach(values: Float64[ndarray, " h"], thresholds: Float32[ndarray, " h"]) -> Float32[ndarray, " h"]:
        """How far a threshold moves for a count that is off by the whole share."""
        return np.maximum(np.abs(thresholds - values), 1e-4 * np.abs(thresholds)).astype(np.float32)


def _rank_within(cells: Int64[ndarray, " m"]) -> Int64[ndarray, " m"]:
    """Of each element how many before it are in its cell."""
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(cells) else order
    sizes = np.diff(np.append(begins, len(cells)))
    ranks = np.empty(len(cells), np.int64)
    ranks[order] = np.arange(len(cells)) - np.repeat(begins, sizes)
    return ranks


def _uncovered(
    tile: Float32[ndarray, "h n"],
    prices: Float64[ndarray, " n"],
    thresholds: Float32[ndarray, " h"],
    chosen: Int64[ndarray, " b"],
    share: Callable[..., None],
) -> Float64[ndarray, " n"]:
    """For each row 1 less the number of chosen columns that it fills."""
    found, single = np.ones(len(prices)), prices.astype(np.float32)
    fill = fills if COMPILED else fills_plainly
    share(lambda start, stop: fill(tile, single, thresholds, chosen, found, start, stop), len(prices))
    return found
