"""Selections of small cost: rounded from a fractional one, settled in their cells, improved by swaps."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.transport.semi_discrete import Transport, relaxed, transport
from alrun.wasserstein.ascent import Task
from alrun.wasserstein.over import Watch, unwatched

NEAR = 3  # chosen columns, the nearest, that a candidate may take the place of
LOCAL_SIZE = 120_000  # distances of the problem in which a swap is judged
LEAST_AROUND = 8  # columns in it
FORGOTTEN = 1e-6  # a chance that counts as none
LEAST_GAIN = 1e-9  # share of the cost


@dataclass(frozen=True, eq=False)
class Choice:
    """A selection and what it costs.

    `rows` are its columns, fixed ones first; `costs` (n, b) are their distances from all rows.
    """

    rows: Int64[ndarray, " b"]
    costs: Float64[ndarray, "n b"]
    plan: Transport

    @property
    def cost(self) -> float:
        """W, the least mean distance of a transport of the pool to the selection."""
        return self.plan.value

    @cached_property
    def cells(self) -> Int64[ndarray, " n"]:
        """For each row the column that takes most of it, ties to the smaller column."""
        plan = self.plan
        order = np.lexsort((-plan.columns, plan.units, plan.rows))
        found = np.empty(len(self.costs), np.int64)
        found[plan.rows[order]] = plan.columns[order]
        return found


def choice(task: Task, rows: Int64[ndarray, " b"], watch: Watch = unwatched) -> Choice:
    """What a selection costs, exactly."""
    costs = task.ground.columns(rows)
    return Choice(rows, costs, transport(costs, watch=watch))


def swapped(
    task: Task,
    found: Choice,
    places: Int64[ndarray, " s"],
    rows: Int64[ndarray, " s"],
    watch: Watch = unwatched,
) -> Choice:
    """The selection with other rows at some of its columns."""
    costs, chosen = found.costs.copy(), found.rows.copy()
    costs[:, places], chosen[places] = task.ground.columns(rows), rows
    return Choice(chosen, costs, transport(costs, relaxed(costs, places, found.plan), watch))


def rounded(task: Task, chances: Float64[ndarray, " n"], watch: Watch = unwatched) -> Int64[ndarray, " b"]:
    """A selection near a fractional one: the column of largest chance takes a whole unit from those near it.

    Source: filtering, as in roundings of k-median programs (Lin and Vitter 1992), without their guarantee.
    """
    left = np.where(np.isin(np.arange(len(chances)), task.fixed) | (chances < FORGOTTEN), 0.0, chances)
    support = np.flatnonzero(left)
    free = np.isin(support, task.candidates)
    mass, chosen = left[support], []
    for row in task.fixed.tolist():
        watch()
        _take(task, mass, support, row, max(0.0, 1 - float(chances[row])))
    for _ in range(min(task.free, int(free.sum()))):
        watch()
        best = int(np.argmax(np.where(free, mass, -1.0)))
        chosen.append(int(support[best]))
        _take(task, mass, support, chosen[-1], 1.0)
        free[best] = False
    rest = np.setdiff1d(task.candidates, chosen)[: task.free - len(chosen)]
    return np.concatenate([task.fixed, np.array(chosen, np.int64), rest])


def _take(
    task: Task, mass: Float64[ndarray, " s"], support: Int64[ndarray, " s"], row: int, amount: float
) -> None:
    """Takes this much mass from what is nearest to a row."""
    left = np.flatnonzero(mass)
    gaps = task.ground.between(support[left], np.array([row]))[:, 0]
    order = left[np.argsort(gaps, kind="stable")]
    before = np.cumsum(mass[order]) - mass[order]
    mass[order] -= np.clip(amount - before, 0, mass[order])


def settled(
    task: Task,
    found: Choice,
    most: int,
    watch: Watch,
    keep: Callable[[Choice], object],
) -> Choice:
    """Balanced Lloyd: each chosen column moves to the best candidate of its own cell, until the cost stays.

    Each better selection is handed to `keep`.
    Source: ALGORITHMS 3.4. Departs: a medoid is looked for in the cell, not in the whole pool.
    """
    open_rows = np.zeros(len(task.ground), bool)
    open_rows[task.candidates] = True
    for _ in range(most):
        places, rows = [], []
        for place in range(len(task.fixed), task.size):
            watch()
            cell = np.flatnonzero(found.cells == place)
            options = cell[open_rows[cell]]
            if len(options) == 0:
                continue
            sums = np.concatenate(
                [
                    task.ground.floor(part, cell).sum(axis=1, dtype=np.float64)
                    for part in task.ground.tiles(options)
                ]
            )
            best = options[int(sums.argmin())]
            if best != found.rows[place] and best not in found.rows:
                places.append(place)
                rows.append(best)
        if not places:
            break
        moved = swapped(task, found, np.array(places), np.array(rows), watch)
        if moved.cost >= found.cost * (1 - LEAST_GAIN):
            break
        found = moved
        keep(found)
    return found


def improved(
    task: Task,
    found: Choice,
    options: Int64[ndarray, " m"],
    watch: Watch,
    keep: Callable[[Choice], object],
) -> Choice:
    """The selection after those swaps with these candidates, tried in order, that lower its cost.

    Each candidate may take the place of one of the three columns nearest to it. What that is worth is judged
    by sharing out anew the rows of the nearest columns only; swaps far from each other are made together
    and then judged exactly. Each better selection is handed to `keep`.
    """
    waiting: list[tuple[float, int, int]] = []
    touched: set[int] = set()
    for row in options.tolist():
        watch()
        if row in found.rows:
            continue
        around = _around(task, found, row)
        if touched & set(around.tolist()):
            found, waiting, touched = _made(task, found, waiting, watch, keep), [], set()
            if row in found.rows:
                continue
            around = _around(task, found, row)
        gain, place = _best_place(task, found, row, around)
        if gain > LEAST_GAIN * found.cost:
            waiting.append((gain, place, row))
            touched |= set(around.tolist())
    return _made(task, found, waiting, watch, keep)


def _around(task: Task, found: Choice, row: int) -> Int64[ndarray, " q"]:
    """The chosen columns nearest to a row, by distance."""
    gaps = found.costs[row]
    most = max(LEAST_AROUND, int(np.sqrt(LOCAL_SIZE * len(gaps) / len(task.ground))))
    return np.lexsort((np.arange(len(gaps)), gaps))[:most]


def _best_place(task: Task, found: Choice, row: int, around: Int64[ndarray, " q"]) -> tuple[float, int]:
    """The most that this row gains in a column's place, and which column; -1 where none may move."""
    inside = np.zeros(task.size, bool)
    inside[around] = True
    rows = np.flatnonzero(inside[found.cells])
    if len(rows) < len(around):  # rows are shared out so finely that their columns have none of their own
        return 0.0, -1
    costs = np.ascontiguousarray(found.costs[np.ix_(rows, around)])
    own = task.ground.between(rows, np.array([row]))[:, 0]
    before = transport(costs, np.ascontiguousarray(found.plan.column_duals[around]))
    best = (0.0, -1)
    for nth in [nth for nth in range(len(around)) if around[nth] >= len(task.fixed)][:NEAR]:
        other = costs.copy()
        other[:, nth] = own
        after = transport(other, relaxed(other, [nth], before))
        gain = (before.value - after.value) * len(rows) / len(task.ground)
        if gain > best[0]:
            best = (gain, int(around[nth]))
    return best


def _made(
    task: Task,
    found: Choice,
    waiting: list[tuple[float, int, int]],
    watch: Watch,
    keep: Callable[[Choice], object],
) -> Choice:
    """All of these swaps if they lower the cost together, else those that do one by one."""
    if not waiting:
        return found
    places, rows = np.array([place for _, place, _ in waiting]), np.array([row for _, _, row in waiting])
    together = swapped(task, found, places, rows, watch)
    if together.cost < found.cost:
        keep(together)
        return together
    if len(waiting) > 1:
        for one in sorted(waiting, reverse=True):
            found = _made(task, found, [one], watch, keep)
    return found
