"""The master program: the selection that all cuts together call cheapest, by integer programming."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pulp
from jaxtyping import Bool, Int64
from numpy import ndarray

from alrun.wasserstein.ascent import Task
from alrun.wasserstein.cuts import Cut
from alrun.wasserstein.rules import Solver

TOLERANCE = 1e-9  # by which solved programs may break a constraint, in units of the objective
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Ball:
    """At most, or at least, so many rows of a selection are to be chosen (S2, pruning constraints)."""

    rows: Int64[ndarray, " b"]
    least: int
    most: int


@dataclass(frozen=True, eq=False)
class Answer:
    """What the solver said.

    Attributes:
        rows: the selection found, None where there is none.
        bound: no selection that keeps to the program costs less; None where the solver proves none.
        status: `optimal`, `limit`, `infeasible`, or `failed` with the reason.
        exact: whether the selection is the program's cheapest, to the last digit the solver has.
    """

    rows: Int64[ndarray, " b"] | None
    bound: float | None
    status: str
    exact: bool


class _Highs(pulp.HiGHS):
    """HiGHS in a thread, ended by ctrl-C; highspy's own way takes note of ctrl-C and raises nothing."""

    def callSolver(self, lp: pulp.LpProblem) -> None:  # noqa: N802
        """What PuLP calls to solve the model that it has built."""
        model: Any = lp.solverModel  # pyright: ignore[reportAttributeAccessIssue]
        model.HandleUserInterrupt = True
        model.startSolve()
        over = False
        try:
            while not over:
                over = model.wait(0.1)[0]
        finally:
            if not over:
                model.cancelSolve()
                model.wait()


def check_solver(name: Solver) -> None:
    """Refuses a solver that is not there.

    Raises:
        ValueError: it cannot be run here.
    """
    if not (_Highs() if name == "highs" else pulp.PULP_CBC_CMD()).available():
        remedy = "pip install highspy, or take cbc" if name == "highs" else "take highs"
        raise ValueError(f"solver: PuLP finds no {name} on this machine; {remedy}")


def solve(
    task: Task,
    cuts: Sequence[Cut],
    balls: Sequence[Ball],
    open_rows: Int64[ndarray, " m"],
    sure: Int64[ndarray, " s"],
    *,
    scale: float,
    solver: Solver,
    gap: float,
    seconds: float | None,
    seed: int = 0,
) -> Answer:
    """Minimizes the largest cut over selections of the fixed rows, the sure ones and some of the open ones.

    `gap`: relative, at which the solver may stop; `seconds` likewise. `scale`: what an objective is about,
    the unit of the program. `seed`: of HiGHS. Takes memory for cuts x open rows numbers several times.
    """
    given = np.concatenate([task.fixed, sure])
    problem, flags = _program(task, cuts, balls, open_rows, given, scale)
    try:
        problem.solve(_solver(solver, gap, seconds, seed))
    except pulp.PulpSolverError as error:
        log.warning("the solver %s failed (%s); the search goes on without its answer", solver, error)
        return Answer(None, None, f"failed: {error}", False)
    status, bound = _outcome(problem, solver, gap, (2 * task.size + 2) * TOLERANCE)
    if status == "infeasible" and not balls:
        status = "failed: it calls a program infeasible that has no constraint but cuts"
    chosen = np.array([(flag.value() or 0.0) > 0.5 for flag in flags], bool)
    found = np.concatenate([given, open_rows[chosen]]) if len(flags) else given
    whole = status in ("optimal", "limit") and len(found) == task.size and _keeps(found, balls)
    if status == "optimal" and not whole:
        status = "failed: an answer that breaks the program"
    rows = found if whole else None
    exact = status == "optimal" and gap == 0
    return Answer(rows, None if bound is None else bound * scale, status, exact)


def agreed(one: Answer, other: Answer, cuts: Sequence[Cut]) -> Answer:
    """What two solves of one program prove together: the lower bound, the better selection.

    HiGHS 1.15.1 called 6 of 4,296 small masters solved at a bound above their optimum (by exhaustion; perhaps
    its issue 3170, mended in no release so far), 2 of 10,180 without the heuristic `feasibility jump`, and
    never the same ones with another seed.
    """
    bounds = [each.bound for each in (one, other) if each.bound is not None]
    values = [
        np.inf if each.rows is None else max(cut.at(each.rows) for cut in cuts) for each in (one, other)
    ]
    best = other if values[1] < values[0] else one
    bound = min(bounds) if len(bounds) == 2 else None
    return Answer(best.rows, bound, best.status, one.exact and other.exact)


def _program(
    task: Task,
    cuts: Sequence[Cut],
    balls: Sequence[Ball],
    open_rows: ndarray,
    given: ndarray,
    scale: float,
) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    problem = pulp.LpProblem("master", pulp.LpMinimize)
    cost = pulp.LpVariable("cost")  # free, as S2's: static cuts alone keep it from being negative
    flags = [pulp.LpVariable(f"x{row}", cat="Binary") for row in open_rows.tolist()]
    problem += cost
    problem += pulp.LpAffineExpression(dict.fromkeys(flags, 1)) == task.size - len(given), "size"
    for number, cut in enumerate(cuts):
        terms = dict(zip(flags, (-cut.coefficients[open_rows] / scale).tolist(), strict=True))
        terms[cost] = 1.0
        problem += pulp.LpAffineExpression(terms) >= cut.at(given) / scale, f"cut{number}"
    for number, ball in enumerate(balls):
        places = np.flatnonzero(np.isin(open_rows, ball.rows))
        inside = pulp.LpAffineExpression({flags[place]: 1 for place in places})
        there = int(np.isin(given, ball.rows).sum())
        if len(inside) and ball.least > there:
            problem += inside >= ball.least - there, f"near{number}"
        if len(inside) > ball.most - there:
            problem += inside <= ball.most - there, f"far{number}"
    return problem, flags


def _solver(name: Solver, gap: float, seconds: float | None, seed: int) -> pulp.LpSolver:
    if name == "cbc":
        # By default CBC takes nothing for better that is not so by 1e-5.
        tight = [f"increment {TOLERANCE}", f"primalTolerance {TOLERANCE}", f"integerTolerance {TOLERANCE}"]
        return pulp.PULP_CBC_CMD(msg=False, gapRel=gap, timeLimit=seconds, threads=1, options=tight)
    options: dict[str, Any] = {
        "mip_abs_gap": 0.0,
        "random_seed": seed,
        # See `agreed`.
        "mip_heuristic_run_feasibility_jump": False,
        "mip_feasibility_tolerance": TOLERANCE,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
    }
    return _Highs(msg=False, gapRel=gap, timeLimit=seconds, threads=1, **options)


def _outcome(problem: pulp.LpProblem, solver: Solver, gap: float, margin: float) -> tuple[str, float | None]:
    """Status and bound, less a margin; CBC tells none through PuLP, but its optimum at a gap of 0 is one.

    Source: PuLP says optimal at a time limit, too; only `sol_status` tells.
    """
    if problem.status == pulp.LpStatusInfeasible:
        return "infeasible", None
    solved = problem.sol_status == pulp.LpSolutionOptimal
    status = "optimal" if solved else "limit"
    if solver == "cbc":
        value = pulp.value(problem.objective)
        whole = solved and gap == 0
        return status, value - margin if whole and isinstance(value, float) else None
    bound = problem.solverModel.getInfo().mip_dual_bound  # pyright: ignore[reportAttributeAccessIssue]
    return status, float(bound) - margin if np.isfinite(bound) else None


def _keeps(rows: Int64[ndarray, " b"], balls: Sequence[Ball]) -> bool:
    return all(ball.least <= int(np.isin(rows, ball.rows).sum()) <= ball.most for ball in balls)


def openness(
    task: Task, values: ndarray, bound: float, best: float
) -> tuple[Bool[ndarray, " n"], Bool[ndarray, " n"]]:
    """Which rows may still be, and which must be, in a selection that costs less than `best`.

    `values` prove `bound` (`Proof`): exchanging one column of the cheapest selection raises the bound by the
    difference of both; where that reaches `best`, the exchange is out.

    Source: ALGORITHMS 3.4, variable fixing.
    """
    n = len(task.ground)
    chosen = np.zeros(n, bool)
    chosen[task.cheapest(values)] = True
    chosen[task.fixed] = False
    other = np.zeros(n, bool)
    other[task.candidates] = True
    other &= ~chosen
    allowed, forced = chosen | other, np.zeros(n, bool)
    if task.free and other.any():
        allowed[other] = bound + (values[other] - values[chosen].max()) / task.size < best
        forced[chosen] = bound + (values[other].min() - values[chosen]) / task.size >= best
    return allowed, forced
