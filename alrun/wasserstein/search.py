"""The whole search for a Wasserstein core set: refinement from both sides, then generalized Benders.

In a small pool all selections are gone through instead.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alrun.coverage.k_center import k_center
from alrun.wasserstein.ascent import Task
from alrun.wasserstein.descent import Choice, choice
from alrun.wasserstein.enumeration import Enumeration
from alrun.wasserstein.medoids import medoids
from alrun.wasserstein.over import Over
from alrun.wasserstein.program import Program
from alrun.wasserstein.refinement import Refinement
from alrun.wasserstein.rules import Rules

FEW_ROWS = 20  # below this all selections are gone through, in a second at most
SWEEPS, MANY_ROWS = 3, 10_000  # of k-medoids; above so many rows one sweep is enough
START_SHARE = 0.5  # of the time, after which the start looks for no further swap: it must be priced yet
ROUNDING = 1e-7  # of a cost, by which bounds may exceed it

Record = dict[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """When a search ends: after so many seconds or iterations, or at a proven relative gap.

    They do not hold in a pool below 20 rows, but for 0 iterations: these leave the start.
    """

    seconds: float | None
    iterations: int | None
    gap: float


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        choice: the best selection. bound: what every selection costs at least; None where nothing is proven.
        stopped: by `gap`, `optimal`, `seconds`, `iterations`, `interrupt`, `exhausted` (pruning, or
            the columns that the master has, leave nothing new, or masters were cut short by `master_seconds`
            ten times over), `solver` (it failed).
        records: one for each iteration; see `Search.record`.
    """

    choice: Choice
    bound: float | None
    stopped: str
    records: list[Record] = field(default_factory=list)

    @property
    def iterations(self) -> int:
        """Iterations after the start."""
        return sum(record["phase"] not in ("start", "end") for record in self.records)

    @property
    def searched(self) -> bool:
        """Whether something beyond the start was found before the time was up."""
        return self.stopped != "seconds" or len(self.records) > 1

    @property
    def gap(self) -> float | None:
        """What is unproven, as a share of the cost."""
        return None if self.bound is None else _gap(self.choice.cost, self.bound)


class Search:
    """One search; `tell` is handed each record as it comes.

    A record has the iteration, seconds since the start, phase (`start`, `refine`, `benders`, `end`; in a pool
    below 20 rows `enumerate`), value (cost of the selection looked at), objective (the least so far), bound
    and gap (None without one), cuts (of `enumerate`: selections whose duals gave bounds), and status (of the
    solver).
    """

    def __init__(
        self,
        task: Task,
        rules: Rules,
        limits: Limits,
        rng: np.random.Generator,
        tell: Callable[[Record], None],
    ) -> None:
        self.task, self.rules, self.limits, self.rng, self.tell = task, rules, limits, rng, tell
        self.begun = time.perf_counter()
        self.records: list[Record] = []
        self.best: Choice | None = None
        self.bound: float | None = None
        self.pricing = 0.0

    def run(self) -> Found:
        """Searches until a limit is reached or the optimum proven; ctrl-C ends it with the best so far.

        At least the start is made and priced, however short the time.
        """
        try:
            stopped = self._run()
        except Over:
            stopped = "seconds"
        except KeyboardInterrupt:
            if self.best is None:
                raise
            log.warning("interrupted: the best selection so far is used")
            stopped = "interrupt"
        assert self.best is not None  # the start is never cut short
        last = self.records[-1] if self.records else {"objective": None, "bound": None, "cuts": 0}
        if (last["objective"], last["bound"]) != (self.best.cost, self.bound):
            self.record("end", self.best.cost, last["cuts"], stopped)
        return Found(self.best, self.bound, stopped, self.records)

    def watch(self, spare: float = 0.0) -> None:
        """Called between small pieces of work; ends the search where fewer than these seconds are left.

        Raises:
            Over: so it is.
        """
        if not self.in_time(spare):
            raise Over

    def in_time(self, spare: float = 0.0) -> bool:
        """Whether these seconds are left."""
        return self._left() >= spare

    def seconds_for(self, most: float | None) -> float | None:
        """So many seconds, or those that are left before a selection must be priced, if they are fewer."""
        self.watch()
        if self.limits.seconds is None:
            return most
        left = max(0.0, self._left() - self.pricing)
        return left if most is None else min(most, left)

    def _left(self) -> float:
        """Seconds."""
        if self.limits.seconds is None:
            return np.inf
        return self.limits.seconds - (time.perf_counter() - self.begun)

    def offer(self, found: Choice) -> bool:
        """Keeps a selection if it is the best so far."""
        if self.best is not None and found.cost >= self.best.cost:
            return False
        self.best = found
        if self.bound is not None:
            self.bound = min(self.bound, found.cost)
        return True

    def raise_bound(self, bound: float) -> None:
        """Keeps a bound, which is at least zero, if it is the highest so far.

        One above a known cost by more than rounding is none.
        """
        assert self.best is not None
        bound = max(bound, 0.0)
        if bound > self.best.cost * (1 + ROUNDING):
            log.error(
                "a bound of %.9g on a selection of cost %.9g was refused; please report it",
                *(bound, self.best.cost),
            )
            return
        self.bound = min(bound if self.bound is None else max(bound, self.bound), self.best.cost)

    def record(self, phase: str, value: float, cuts: int, status: str) -> None:
        """Notes where the search stands."""
        assert self.best is not None
        objective, bound = self.best.cost, self.bound
        self.records.append(
            {
                "iteration": len(self.records),
                "seconds": time.perf_counter() - self.begun,
                "phase": phase,
                "value": value,
                "objective": objective,
                "bound": bound,
                "gap": None if bound is None else _gap(objective, bound),
                "cuts": cuts,
                "status": status,
            }
        )
        self.tell(self.records[-1])

    def reached(self) -> str | None:
        """The limit that is reached, if one is."""
        assert self.best is not None
        if self.best.cost <= 0:  # none costs less than nothing
            self.raise_bound(0.0)
        if self.bound is not None and _gap(self.best.cost, self.bound) <= self.limits.gap:
            return "optimal" if self.bound >= self.best.cost else "gap"
        if self.limits.iterations is not None and len(self.records) > self.limits.iterations:
            return "iterations"
        self.watch()
        return None

    def _run(self) -> str:
        rows, begun = self._start(), time.perf_counter()
        self.offer(choice(self.task, rows))
        self.pricing = time.perf_counter() - begun
        assert self.best is not None
        is_only = self.task.free in (0, len(self.task.candidates))
        if is_only:
            self.raise_bound(self.best.cost)
        self.record("start", self.best.cost, 0, self.rules.start)
        if is_only:
            return "optimal"
        if len(self.task.ground) < FEW_ROWS and self.limits.iterations != 0:
            return self._enumerate(self.best)
        refinement = Refinement(self.task, self.rules, self.rng, self)
        while refinement.goes_on:
            if (stop := self.reached()) is not None:
                return stop
            self.record("refine", refinement.round(), 0, "")
        return self._benders(refinement)

    def _enumerate(self, start: Choice) -> str:
        """Goes through all selections, without regard to limits; of several optima the first in order."""
        every = Enumeration(self.task, start)
        while (nth := every.next()) is not None:
            self.raise_bound(every.bound)
            self.offer(every.price(nth))
        self.best = choice(self.task, every.sets[every.first])
        self.raise_bound(self.best.cost)
        self.record("enumerate", self.best.cost, int(np.isfinite(every.costs).sum()), "optimal")
        return "optimal"

    def _benders(self, refinement: Refinement) -> str:
        if (stop := self.reached()) is not None:
            return stop
        program = Program(self.task, self.rules, self, refinement.proof, refinement.polish)
        while (stop := self.reached()) is None:
            value, status, over = program.iterate()
            self.record("benders", value, len(program.cuts), status)
            if over is not None:
                return self.reached() or over
        return stop

    def _start(self) -> Int64[ndarray, " b"]:
        task = self.task
        if self.rules.start == "k_medoids":
            sweeps = SWEEPS if len(task.ground) <= MANY_ROWS else 1
            spare = 0.0 if self.limits.seconds is None else self.limits.seconds * (1 - START_SHARE)
            return medoids(task, self.rng, sweeps, lambda: self.in_time(spare))
        rows, _ = k_center(task.ground.points, task.fixed, task.candidates, task.free)
        return np.concatenate([task.fixed, rows])


def _gap(cost: float, bound: float) -> float:
    return 0.0 if cost <= bound else (cost - bound) / cost
