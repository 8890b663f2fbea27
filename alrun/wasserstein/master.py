"""The master program: the selection that all cuts together call cheapest, by integer programming."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pulp
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alrun.wasserstein.ascent import Task
from alrun.wasserstein.cuts import Cut
from alrun.wasserstein.rules import Solver

ROW_WISE, MINIMIZE = 2, 1  # as HiGHS numbers them
LARGE = 50_000  # numbers in the cuts; above, HiGHS needs help to keep to its time (`_highs`)
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


@dataclass(frozen=True, eq=False)
class _Master:
    """The program: PuLP has all but the cuts, which say cost >= heights + slopes flags.

    `few` are the constraints that PuLP has.
    """

    problem: pulp.LpProblem
    cost: pulp.LpVariable
    flags: list[pulp.LpVariable]
    few: list[pulp.LpConstraint]
    heights: Float64[ndarray, " c"]
    slopes: Float64[ndarray, "c m"]


class _Highs(pulp.HiGHS):
    """HiGHS that takes the program as arrays, is timed from then on, and is ended by ctrl-C.

    PuLP's own way hands numbers over one by one, which for a large pool lasts longer than solving; highspy's
    own way takes note of ctrl-C and raises nothing.
    """

    def __init__(self, master: _Master, seconds: Callable[[], float | None], **options: Any) -> None:
        super().__init__(msg=False, threads=1, **options)
        self.master, self.seconds = master, seconds

    def buildSolverModel(self, lp: pulp.LpProblem) -> None:  # noqa: N802
        """What PuLP calls to hand the program over."""
        master = self.master
        variables: list[Any] = lp.variables()
        few: list[Any] = master.few
        for numbered in (variables, few):
            for place, each in enumerate(numbered):
                each.index = place  # where PuLP looks for the answer
        own: list[Any] = [master.cost, *master.flags]
        columns = np.array([each.index for each in own], np.int32)
        rows = [(np.array([each.index for each in terms], np.int32), [*terms.values()]) for terms in few]
        rows += [(columns, np.append(1.0, -slopes)) for slopes in master.slopes]
        low = np.append([_or(terms.getLb(), -np.inf) for terms in few], master.heights)
        high = np.append([_or(terms.getUb(), np.inf) for terms in few], np.full(len(master.heights), np.inf))
        starts = np.cumsum([0, *(len(places) for places, _ in rows)], dtype=np.int32)
        model: Any = lp.solverModel  # pyright: ignore[reportAttributeAccessIssue]
        taken = model.passModel(
            *(len(variables), len(rows), int(starts[-1]), ROW_WISE, MINIMIZE, 0.0),
            np.array([float(each is master.cost) for each in variables]),
            np.array([_or(each.lowBound, -np.inf) for each in variables], np.float64),
            np.array([_or(each.upBound, np.inf) for each in variables], np.float64),
            *(low, high, starts),
            np.concatenate([places for places, _ in rows]),
            np.concatenate([values for _, values in rows], dtype=np.float64),
            np.array([each is not master.cost for each in variables], np.int32),
        )
        if taken.value < 0:
            raise pulp.PulpSolverError("HiGHS refuses the program")

    def callSolver(self, lp: pulp.LpProblem) -> None:  # noqa: N802
        """What PuLP calls to solve the model that it has built."""
        model: Any = lp.solverModel  # pyright: ignore[reportAttributeAccessIssue]
        if (seconds := self.seconds()) is not None:
            model.setOptionValue("time_limit", seconds)
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


def _or(number: float | int | None, other: float) -> float:
    return other if number is None else float(number)


def check_solver(name: Solver) -> None:
    """Refuses a solver that is not there.

    Raises:
        ValueError: it cannot be run here.
    """
    if not (pulp.HiGHS() if name == "highs" else pulp.PULP_CBC_CMD()).available():
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
    seconds: Callable[[], float | None],
    seed: int = 0,
) -> Answer:
    """Minimizes the largest cut over selections of the fixed rows, the sure ones and some of the open ones.

    `gap`: relative, at which the solver may stop; `seconds` likewise, asked for once the program is built.
    `scale`: what an objective is about, the unit of the program. `seed`: of the solver. Takes memory for
    cuts x open rows numbers several times. HiGHS may overrun its time in a large program: see `_highs`.
    """
    given = np.concatenate([task.fixed, sure])
    master = _program(task, cuts, balls, open_rows, given, scale)
    problem, flags = master.problem, master.flags
    try:
        problem.solve((_highs if solver == "highs" else _cbc)(master, gap, seconds, seed))
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
    if status not in ("optimal", "limit"):  # what else it says is not to be trusted either
        bound = None
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
) -> _Master:
    problem = pulp.LpProblem("master", pulp.LpMinimize)
    cost = pulp.LpVariable("cost")  # free, as S2's: static cuts alone keep it from being negative
    flags = [pulp.LpVariable(f"x{row}", cat="Binary") for row in open_rows.tolist()]
    few = [pulp.LpAffineExpression(dict.fromkeys(flags, 1)) == task.size - len(given)]
    for ball in balls:
        places = np.flatnonzero(np.isin(open_rows, ball.rows))
        inside = pulp.LpAffineExpression({flags[place]: 1 for place in places})
        there = int(np.isin(given, ball.rows).sum())
        if len(inside) and ball.least > there:
            few.append(inside >= ball.least - there)
        if len(inside) > ball.most - there:
            few.append(inside <= ball.most - there)
    problem += cost
    for constraint in few:
        problem += constraint
    heights = np.array([cut.at(given) for cut in cuts]) / scale
    slopes = np.stack([cut.coefficients[open_rows] for cut in cuts]) / scale
    if slopes.size > LARGE:
        # The same program, as so many flags are set; with none below zero, a flag at 0 implies nothing.
        least = slopes.min(axis=1)
        heights, slopes = heights + (task.size - len(given)) * least, slopes - least[:, None]
    return _Master(problem, cost, flags, few, heights, slopes)


def _highs(master: _Master, gap: float, seconds: Callable[[], float | None], seed: int) -> pulp.LpSolver:
    """HiGHS; 1.15.1 hears no limit and no `cancelSolve` in the root's rounding, and seldom in presolve.

    Rounding follows each flag set to 0 through all cuts whose slope is negative: time in open rows squared.
    73,257 and 20 cuts took over 400 s where 5 were allowed, now 4 to 9; limits may be overrun by seconds yet.
    """
    options: dict[str, Any] = {
        "mip_abs_gap": 0.0,
        "random_seed": seed,
        # See `agreed`.
        "mip_heuristic_run_feasibility_jump": False,
        "mip_feasibility_tolerance": TOLERANCE,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
    }
    if master.slopes.size > LARGE:  # dense cuts: neither finds anything
        options |= {"presolve": "off", "mip_detect_symmetry": False}
    return _Highs(master, seconds, gapRel=gap, **options)


def _cbc(master: _Master, gap: float, seconds: Callable[[], float | None], seed: int) -> pulp.LpSolver:
    """CBC, which PuLP hands a file; its problem gets the cuts as constraints."""
    problem = master.problem
    for height, slopes in zip(master.heights, master.slopes, strict=True):
        terms = dict(zip(master.flags, (-slopes).tolist(), strict=True))
        problem += pulp.LpAffineExpression({**terms, master.cost: 1.0}) >= height
    # By default CBC takes nothing for better that is not so by 1e-5.
    tight = [f"increment {TOLERANCE}", f"primalTolerance {TOLERANCE}", f"integerTolerance {TOLERANCE}"]
    tight += [f"randomCbcSeed {seed}"] if seed else []
    return pulp.PULP_CBC_CMD(msg=False, gapRel=gap, timeLimit=seconds(), threads=1, options=tight)


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
