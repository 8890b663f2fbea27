"""Wasserstein core sets: the selection that the pool is carried to at least cost, with a proven gap."""

import logging
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.coverage.distances import check_directed
from alrun.rounds import Batch, Round
from alrun.wasserstein.ascent import Task
from alrun.wasserstein.cuts import check_dual
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.master import check_solver
from alrun.wasserstein.picture import Curve, draw_bounds
from alrun.wasserstein.rules import Rules
from alrun.wasserstein.search import Found, Limits, Record, Search

# 0.64 GB; a search holds those of up to four selections at once, and 1 GiB of others.
MOST_DISTANCES = 8 * 10**7
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wasserstein(Rules):
    """Chooses what, with the labeled rows, has the least Wasserstein distance from the whole pool.

    Every pool row, labeled or not, has mass 1 / n; every selected one, labeled rows among them, mass 1 / B.
    The search is generalized Benders decomposition between bounds: a cost that is always one of a selection,
    and a bound below all selections' costs (`alrun.wasserstein.search`). It is anytime: at a limit, and on
    ctrl-C, the best selection so far is taken. Problems (the pool, or each of its parts) below 20 rows always
    end at the proven optimum, whatever the other settings: all selections are gone through
    (`alrun.wasserstein.enumeration`), in about a second; of several optima the first is taken.

    Attributes:
        metric: of the features; cosine is 1 - cos.
        seconds: time of a search, null for none. With it two runs may choose differently.
        iterations: of a search, null for no limit; a search that ends by them repeats exactly, unless a
            master ran into `master_seconds` (its status is then `limit`, and the log says so).
        gap: relative gap at which a search ends.
        parts: the pool, its labels and the batch are split at random into so many problems of their own, each
            with the time and the iterations of a search. null is as few as leave no problem above
            `MOST_DISTANCES`.
        Others: `alrun.wasserstein.rules.Rules`.

    Scores are the mean distance of the mass that each row receives, smallest first. Notes: `objective` (the
    Wasserstein distance; of several parts the mean of theirs), `bounded` (1 where a bound is
    proven), then `bound` and `gap`; `iterations`; `proven` (1 where the gap is closed); `searched` (0 where
    time was up before anything could be found: the start is returned); `parts`.
    Source: S2 (Mahmood et al. 2022), Algorithm 1; ALGORITHMS 3, with its corrections. Departs: labeled rows
    are part of the problem, which the paper leaves open; the defaults are stronger cuts and bounds than the
    paper's, whose variants are wasserstein_vanilla, wasserstein_eoc and wasserstein_eoc_p.
    """

    metric: Literal["cosine", "euclidean"]
    seconds: Annotated[float, Gt(0)] | None
    iterations: Annotated[int, Ge(1)] | None
    gap: Annotated[float, Ge(0), Le(1)]
    parts: Annotated[int, Ge(1)] | None
    needs = frozenset({"features"})

    def __post_init__(self) -> None:
        """Refuses settings that do not fit together, and a solver that is not there.

        Raises:
            ValueError: a dual inequality for cosine, or a missing solver.
        """
        if self.dual:
            check_dual(self.metric)
        check_solver(self.solver)

    def select(self, current: Round, size: int) -> Batch:
        """The best selection that the search finds.

        Raises:
            ValueError: features that are no numbers, a row of zeros under the cosine metric, or so few parts
                that they would take too much memory.
        """
        count = self._count(len(current.pool), len(current.pool.labeled) + size)
        features = current.features
        if self.metric == "cosine":
            check_directed(features)
        ground = Ground.of(features, self.metric)
        bought, worth, told = [], [], []
        limits = Limits(self.seconds, self.iterations, self.gap)
        for part, (task, own) in enumerate(_tasks(current, ground, size, count)):
            found = self._searched(current, task, limits, part, count)
            bought.append(own[found.choice.rows[len(task.fixed) :]])
            worth.append(_scores(task, found))
            told.append(_told(found))
            if found.stopped == "interrupt":
                limits = Limits(self.seconds, 0, self.gap)  # ctrl-C ends the searches of all parts
            del found  # its distances would take memory from the next part
        rows, scores = np.concatenate(bought), np.concatenate(worth)
        order = np.lexsort((rows, scores))
        return Batch(rows[order], scores[order], _notes(told, count))

    def _count(self, rows: int, columns: int) -> int:
        """How many parts there are."""
        least = max(1, ceil(sqrt(rows * columns / MOST_DISTANCES)))
        if self.parts is not None and self.parts < least:
            raise ValueError(
                f"strategy.parts must be at least {least} for {rows} rows, {columns} labels and batch, "
                f"got {self.parts}; raise it, or take null"
            )
        if self.parts is None and least > 1:
            log.warning(
                "wasserstein: %d columns of %d rows are searched for in %d parts, each of them alone",
                *(columns, rows, least),
            )
        return least if self.parts is None else self.parts

    def _searched(self, current: Round, task: Task, limits: Limits, part: int, count: int) -> Found:
        def tell(record: Record) -> None:
            current.write("wasserstein", {"part": part, **record})
            current.tell(_news(record))

        found = Search(task, self, limits, current.rng, tell).run()
        gap = "no bound" if found.gap is None else f"proven gap {100 * found.gap:.2f} %"
        log.info(
            "wasserstein: objective %.6g, %s, ended by %s after %d iterations",
            *(found.choice.cost, gap, found.stopped, found.iterations),
        )
        if not found.searched:
            log.warning(
                "strategy.seconds=%s was up before the search began; the start (%s) is used, raise it",
                *(self.seconds, self.start),
            )
        if found.stopped == "iterations" and any(record["status"] == "limit" for record in found.records):
            log.warning(
                "a master program ran out of strategy.master_seconds=%s: another machine may choose "
                "otherwise; null repeats exactly",
                self.master_seconds,
            )
        curve = _curve(found)
        current.figure(
            f"wasserstein-part{part}" if count > 1 else "wasserstein",
            lambda figure: draw_bounds(figure, {"": curve}),
        )
        return found


def _tasks(current: Round, ground: Ground, size: int, parts: int) -> list[tuple[Task, Int64[ndarray, " n"]]]:
    """The problem, or its random parts, and which pool rows each of them is of."""
    labeled, candidates = current.pool.labeled, current.candidates
    if parts == 1:
        return [(Task(ground, labeled, candidates, size), np.arange(len(ground)))]
    rest = np.setdiff1d(current.pool.unlabeled, candidates)
    splits = [np.array_split(current.rng.permutation(rows), parts) for rows in (labeled, candidates, rest)]
    tasks = []
    for number, (own, open_rows, others) in enumerate(zip(*splits, strict=True)):
        free = size // parts + (number < size % parts)
        rows = np.sort(np.concatenate([own, open_rows, others]))
        if free:
            part = Ground(np.ascontiguousarray(ground.points[rows]), ground.metric)
            fixed, options = (np.sort(np.searchsorted(rows, some)) for some in (own, open_rows))
            tasks.append((Task(part, fixed, options, free), rows))
    return tasks


def _told(found: Found) -> dict[str, float]:
    """What a search says of itself."""
    notes = {
        "objective": found.choice.cost,
        "iterations": float(found.iterations),
        "proven": float(found.stopped in ("gap", "optimal")),
        "searched": float(found.searched),
        "bounded": 0.0,
    }
    if found.bound is not None and found.gap is not None:
        notes |= {"bounded": 1.0, "bound": found.bound, "gap": found.gap}
    return notes


def _notes(told: list[dict[str, float]], count: int) -> dict[str, float]:
    """What the searches of all parts say together; of several there is no bound."""
    if count == 1:
        return {**told[0], "parts": 1.0}
    ways = {"objective": np.mean, "iterations": max, "proven": min, "searched": min}
    together = {name: float(way([each[name] for each in told])) for name, way in ways.items()}
    return {**together, "parts": float(count), "bounded": 0.0}


def _scores(task: Task, found: Found) -> Float64[ndarray, " b"]:
    """Mean distance of the mass that each chosen row receives."""
    plan, costs = found.choice.plan, found.choice.costs
    paid = plan.units * costs[plan.rows, plan.columns]
    total = np.bincount(plan.columns, paid, minlength=task.size) * (task.size / plan.units.sum())
    return total[len(task.fixed) :]


def _news(record: Record) -> str:
    gap = "no bound yet" if record["gap"] is None else f"gap {100 * record['gap']:.2f} %"
    return f"{record['phase']} {record['iteration']}: objective {record['objective']:.5g}, {gap}"


def _curve(found: Found) -> Curve:
    def column(name: str) -> ndarray:
        return np.array([np.nan if each[name] is None else each[name] for each in found.records], np.float64)

    return Curve(column("seconds"), column("iteration"), column("objective"), column("bound"))
