"""Generalized Benders decomposition: cuts gathered, the master solved, its selection looked at."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alrun.wasserstein import cuts
from alrun.wasserstein.ascent import Proof, Task
from alrun.wasserstein.descent import Choice, choice
from alrun.wasserstein.master import Answer, Ball, agreed, openness, solve
from alrun.wasserstein.rules import Rules
from alrun.wasserstein.watching import Progress

LEAST_SCALE = 1e-6  # of the master's unit, as a share of the largest coefficient: solvers know 1e-9 from 0
EXACT_BELOW = 1e-6  # a smaller gap is asked of the solver as none
RETRIES = 10  # in a row, of masters whose own time brings nothing new


class Program:
    """The cuts and constraints so far, and the selection to be looked at next.

    Source: S2, Algorithm 1; ALGORITHMS 3.6.
    """

    def __init__(
        self,
        task: Task,
        rules: Rules,
        search: Progress,
        proof: Proof | None,
        polish: Callable[[Choice], None],
    ) -> None:
        """`proof` fixes columns and gives a cut; `polish` improves a selection and offers it."""
        assert search.best is not None
        self.task, self.rules, self.search, self.proof, self.polish = task, rules, search, proof, polish
        self.hat = search.best
        self.gap = rules.master_gap
        self.visited: set[tuple[int, ...]] = set()
        self.fruitless = 0  # masters in a row that brought nothing new
        self.near: Ball | None = None
        self.center: tuple[int, ...] | None = None  # of the last `near`, which may have been dropped since
        self.far: list[Ball] = []
        self.cuts = [] if proof is None else [cuts.proven(task, proof)]
        if rules.lower == "filling":
            self.cuts.append(cuts.filling(task, search.watch))
        elif rules.lower == "nearest":
            self.cuts.append(cuts.nearest(task, search.watch))

    def iterate(self) -> tuple[float, str, str | None]:
        """Cuts of the present selection, and the next one: its cost, the solver's status, why all is over."""
        self.gap = self.rules.master_gap
        if self._is_new(self.hat.rows):
            self._learn()
        answer, whole = self._answer()
        if answer.rows is None or not self._is_new(answer.rows):
            over = self._end(answer, whole)
            if over is None:
                self._vary()
            return self.hat.cost, answer.status, over
        self.fruitless = 0
        self.hat = choice(self.task, answer.rows, self.search.watch)
        self.search.offer(self.hat)
        if self.rules.swaps:
            self.polish(self.hat)
        return self.hat.cost, answer.status, None

    def _is_new(self, rows: Int64[ndarray, " b"]) -> bool:
        """Whether no cut is of this selection yet."""
        return _key(rows) not in self.visited

    def _answer(self) -> tuple[Answer, bool]:
        """The master's, once it is new, or neither a smaller gap nor looking farther would change it."""
        while True:
            answer, whole = self._solve()
            if answer.bound is not None and whole:
                self._raise(answer.bound)
            if answer.rows is not None and self._is_new(answer.rows):
                return answer, whole
            if _is_last(answer) and self.near is not None:
                self.near = None
            elif answer.status != "optimal" or self.gap == 0:
                return answer, whole
            else:
                self.gap = self.gap / 10 if self.gap > EXACT_BELOW else 0.0

    def _end(self, answer: Answer, whole: bool) -> str | None:
        """Why all is over after an answer that is nothing new; None where another try may bring more."""
        assert self.search.best is not None
        if _is_last(answer):
            if not whole:
                return "exhausted"
            self.search.raise_bound(self.search.best.cost)
            return "optimal"
        if answer.status not in ("optimal", "limit"):
            return "solver"
        if not self.search.in_time(self.search.pricing):
            return "seconds"
        self.fruitless += 1
        return "exhausted" if self.fruitless > RETRIES else None

    def _vary(self) -> None:
        """Makes the next master another one: by a cut of a best selection that has none, else by its seed."""
        assert self.search.best is not None
        if self.rules.swaps:
            self.polish(self.search.best)
        if self._is_new(self.search.best.rows):
            self.hat = self.search.best

    def _raise(self, bound: float) -> None:
        """Hands on what the master proves; where columns are fixed, it speaks of better selections only."""
        assert self.search.best is not None
        self.search.raise_bound(bound if self.proof is None else min(bound, self.search.best.cost))

    def _learn(self) -> None:
        """Adds what the present selection says about all others."""
        task, rules, hat = self.task, self.rules, self.hat
        self.visited.add(_key(hat.rows))
        if rules.capacitated:
            self.cuts.append(cuts.capacitated(task, hat, self.search.watch))
        else:
            self.cuts.append(cuts.benders(task, hat, self.search.watch))
        if rules.triangle:
            self.cuts += cuts.triangle(task, hat)
        if rules.dual:
            self.cuts.append(cuts.dual_inequality(task, hat))
        if rules.pruning:
            self._prune()

    def _prune(self) -> None:
        """Near the best selection, away from the others (S2, appendix D.1).

        Departs: S2 has no swaps; where a better selection is found by them, Near follows it.
        """
        assert self.search.best is not None
        task, best, center = self.task, self.search.best, _key(self.search.best.rows)
        near = max(1, round(task.free / 2)) if self.rules.near is None else self.rules.near
        is_best = _key(self.hat.rows) == center
        if (is_best or self.rules.swaps) and center != self.center:
            self.near, self.center = Ball(best.rows, max(0, task.size - near), task.size), center
        if not is_best:
            self.far.append(Ball(self.hat.rows, 0, task.size - self.rules.far))

    def _solve(self) -> tuple[Answer, bool]:
        """The master's answer, and whether its bound is one on all selections."""
        assert self.search.best is not None
        open_rows, sure = self._columns()
        whole = not self.rules.pruning
        needed = self.task.free - len(sure)
        if self.rules.columns is not None and len(open_rows) > (most := max(self.rules.columns, 2 * needed)):
            open_rows, whole = self._promising(open_rows, most), False
        balls = [*self.far, *([] if self.near is None else [self.near])]
        if len(open_rows) < needed:  # what is fixed leaves no better selection
            return Answer(None, None, "infeasible", True), whole
        if len(open_rows) == needed:
            rows = np.concatenate([self.task.fixed, sure, open_rows])
            return Answer(rows, max(each.at(rows) for each in self.cuts), "optimal", True), whole
        largest = max(float(np.abs(cut.coefficients).max()) for cut in self.cuts)
        scale = max(self.search.best.cost, LEAST_SCALE * largest)
        ask = partial(solve, self.task, self.cuts, balls, open_rows, sure)
        options: dict[str, Any] = {"scale": scale, "solver": self.rules.solver, "gap": self.gap}
        seed = 2 * self.fruitless
        answer = ask(**options, seconds=self._seconds(), seed=seed)
        if whole and self._is_claim(answer):
            answer = agreed(answer, ask(**options, seconds=self._seconds(), seed=seed + 1), self.cuts)
        return answer, whole

    def _seconds(self) -> Callable[[], float | None]:
        """What is left of a master's seconds that begin now, or of the search's if that is less."""
        most, begun = self.rules.master_seconds, time.perf_counter()

        def left() -> float | None:
            return self.search.seconds_for(
                None if most is None else max(0.0, most - (time.perf_counter() - begun))
            )

        return left

    def _is_claim(self, answer: Answer) -> bool:
        """Whether a bound is worth a second solve: in small pools, and wherever it is to end the search."""
        if self.rules.solver != "highs" or answer.status not in ("optimal", "limit"):
            return False
        return answer.exact or (answer.bound is not None and self.task.ground.is_small)

    def _columns(self) -> tuple[Int64[ndarray, " m"], Int64[ndarray, " s"]]:
        """The candidates that a better selection may have, and those that it must have."""
        assert self.search.best is not None
        candidates = self.task.candidates
        if self.proof is None:
            return candidates, candidates[:0]
        allowed, forced = openness(self.task, self.proof.values, self.proof.bound, self.search.best.cost)
        return (
            candidates[allowed[candidates] & ~forced[candidates]],
            candidates[forced[candidates]],
        )

    def _promising(self, open_rows: Int64[ndarray, " m"], most: int) -> Int64[ndarray, " k"]:
        """The best selection's columns, and those that are cheapest by the proof or the first cut."""
        assert self.search.best is not None
        values = self.cuts[0].coefficients if self.proof is None else self.proof.values
        order = open_rows[np.lexsort((open_rows, values[open_rows]))]
        best = np.intersect1d(self.search.best.rows, open_rows)
        rest = order[~np.isin(order, best)]
        return np.sort(np.concatenate([best, rest[: most - len(best)]]))


def _is_last(answer: Answer) -> bool:
    """Whether the program has nothing better."""
    return answer.status == "infeasible" or answer.exact


def _key(rows: Int64[ndarray, " b"]) -> tuple[int, ...]:
    return tuple(np.sort(rows).tolist())
