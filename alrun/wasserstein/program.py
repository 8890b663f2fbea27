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
        self.near: Ball | None = None
        self.far: list[Ball] = []
        self.cuts = [] if proof is None else [cuts.proven(task, proof)]
        if rules.lower == "filling":
            self.cuts.append(cuts.filling(task, search.watch))
        elif rules.lower == "nearest":
            self.cuts.append(cuts.nearest(task, search.watch))

    def iterate(self) -> tuple[float, str, str | None]:
        """Cuts of the present selection, and the next one: its cost, the solver's status, why all is over."""
        self._learn()
        while True:
            answer, whole = self._solve()
            if answer.bound is not None and whole:
                self._raise(answer.bound)
            if answer.rows is not None and _key(answer.rows) not in self.visited:
                break
            if answer.status == "infeasible" or (answer.rows is not None and answer.exact):
                if self.near is not None:
                    self.near = None
                    continue
                return self.hat.cost, answer.status, self._end(whole)
            if answer.rows is None or self.gap == 0 or answer.status == "limit":
                return self.hat.cost, answer.status, "solver"
            self.gap = self.gap / 10 if self.gap > EXACT_BELOW else 0.0
        self.hat = choice(self.task, answer.rows, self.search.watch)
        self.search.offer(self.hat)
        if self.rules.swaps:
            self.polish(self.hat)
        return self.hat.cost, answer.status, None

    def _raise(self, bound: float) -> None:
        """Hands on what the master proves; where columns are fixed, it speaks of better selections only."""
        assert self.search.best is not None
        self.search.raise_bound(bound if self.proof is None else min(bound, self.search.best.cost))

    def _end(self, whole: bool) -> str:
        """No selection is left that is new and may be cheaper."""
        if not whole:
            return "exhausted"
        assert self.search.best is not None
        self.search.raise_bound(self.search.best.cost)
        return "optimal"

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
        """Near the best selection, away from the others (S2, appendix D.1)."""
        assert self.search.best is not None
        task, best = self.task, self.search.best
        near = max(1, round(task.free / 2)) if self.rules.near is None else self.rules.near
        if _key(self.hat.rows) == _key(best.rows):
            self.near = Ball(best.rows, max(0, task.size - near), task.size)
        else:
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
        answer = ask(**options, seconds=self._seconds())
        if whole and self._is_claim(answer):
            answer = agreed(answer, ask(**options, seconds=self._seconds(), seed=1), self.cuts)
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


def _key(rows: Int64[ndarray, " b"]) -> tuple[int, ...]:
    return tuple(np.sort(rows).tolist())
