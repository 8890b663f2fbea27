"""Every selection of a small pool, priced one by one, and searches audited against all of them."""

import itertools
from dataclasses import dataclass
from unittest import mock

import numpy as np
import ot
from numpy import ndarray

from alrun.wasserstein import cuts, search
from alrun.wasserstein.ascent import Task
from alrun.wasserstein.descent import Choice
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.over import unwatched
from alrun.wasserstein.program import Program
from alrun.wasserstein.rules import Rules
from alrun.wasserstein.search import Found, Limits, Search

TO_THE_END = Limits(None, None, 0.0)
HAIR = 1e-9  # by which a cut may be wrong: rounding
SOLVED = 1e-7  # by which a bound or an optimum may be wrong: the solver's tolerance


def rules(**changes) -> Rules:
    """Ours, but for these changes."""
    ours = {
        "start": "k_centers",
        "root": True,
        "swaps": True,
        "capacitated": True,
        "lower": "filling",
        "triangle": False,
        "dual": False,
        "pruning": False,
        "near": None,
        "far": 1,
        "solver": "highs",
        "master_gap": 1e-3,
        "master_seconds": None,
        "columns": None,
    }
    return Rules(**{**ours, **changes})


PAPER = {"root": False, "swaps": False, "capacitated": False, "master_gap": 0.1}
VARIANTS = {
    "ours": rules(),
    "ours+(7)": rules(start="k_medoids", triangle=True),
    "(B+)+(6*)": rules(root=False, swaps=False),
    "(B+)": rules(root=False, swaps=False, lower="none"),
    "(B)+(6')+(7)": rules(**PAPER, lower="nearest", triangle=True),
    "(B)+(6*)": rules(**PAPER),
    "(B)": rules(**PAPER, lower="none"),
    "(B)+(6')+(7)+P": rules(**PAPER, lower="nearest", triangle=True, pruning=True),
}


def distances(points: ndarray, metric: str) -> ndarray:
    """All pairs, by definition; 1 - cos is half the squared distance of unit rows, which float32 rounds."""
    wide = points.astype(np.float64)
    if metric == "cosine":
        wide = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    squared = ((wide[:, None] - wide) ** 2).sum(axis=2)
    return np.sqrt(squared) if metric == "euclidean" else squared / 2


def price(matrix: ndarray, rows) -> float:
    """W of a selection, by POT's network simplex."""
    n, columns = len(matrix), np.ascontiguousarray(matrix[:, list(rows)])
    return float(ot.emd2(np.full(n, 1 / n), np.full(len(rows), 1 / len(rows)), columns))  # pyright: ignore


@dataclass(frozen=True)
class Priced:
    """All selections of so many columns that hold the fixed ones, rows sorted, and what each costs."""

    sets: ndarray
    costs: ndarray

    @classmethod
    def of(cls, matrix: ndarray, size: int, fixed: tuple[int, ...] = ()) -> "Priced":
        """Prices by linear programs of their own."""
        every = itertools.combinations(range(len(matrix)), size)
        sets = [rows for rows in every if set(fixed) <= set(rows)]
        return cls(np.array(sets), np.array([price(matrix, rows) for rows in sets]))

    @property
    def least(self) -> float:
        """The optimum."""
        return float(self.costs.min())

    def cost(self, rows) -> float:
        """Of one selection."""
        return float(self.costs[(self.sets == np.sort(rows)).all(axis=1)][0])

    def excess(self, cut: cuts.Cut) -> float:
        """By how much the cut exceeds a selection's cost at the most."""
        return float((cut.constant + cut.coefficients[self.sets].sum(axis=1) - self.costs).max())


def pool(seed: int, n: int = 12, width: int = 2) -> ndarray:
    """Normal points."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def task_of(
    points: ndarray, metric: str, size: int, fixed: tuple[int, ...] = (), candidates: ndarray | None = None
) -> Task:
    """The task of choosing `size` columns in all."""
    kept = np.sort(np.array(fixed, np.int64))
    rest = np.setdiff1d(np.arange(len(points)), kept) if candidates is None else candidates
    ground = Ground.of(points.astype(np.float32), metric)  # pyright: ignore[reportArgumentType]
    return Task(ground, kept, rest, size - len(kept))


def searched(task: Task, by: Rules, limits: Limits = TO_THE_END, seed: int = 0) -> Found:
    """A search from beginning to end."""
    return Search(task, by, limits, np.random.default_rng(seed), lambda record: None).run()


class Watched(Program):
    """Remembers each selection it learned from, and the cuts that it made of it."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.hats: list[Choice] = []

    def _learn(self) -> None:
        self.hats.append(self.hat)
        super()._learn()


@dataclass(frozen=True)
class Audit:
    """A search, how many cuts of how many selections were held against all selections, and what was wrong."""

    found: Found
    cuts: int
    wrong: list[str]


def audited(priced: Priced, task: Task, by: Rules, limits: Limits = TO_THE_END) -> Audit:
    """A search whose every record and cut is held against every selection; small pools are not enumerated."""
    programs: list[Watched] = []

    def watched(*arguments) -> Watched:
        programs.append(Watched(*arguments))
        return programs[-1]

    with mock.patch.object(search, "Program", watched), mock.patch.object(search, "FEW_ROWS", 0):
        found = searched(task, by, limits)
    wrong = [*_of_the_result(priced, found, by, limits), *_of_the_records(priced, found, by)]
    made = [cut for program in programs for cut in program.cuts]
    wrong += _broken(priced, made)
    hats = [hat for program in programs for hat in program.hats]
    checked = len(made)
    for hat in hats:
        kinds, faults = _of_all_kinds(priced, task, hat)
        checked, wrong = checked + kinds, wrong + faults
    return Audit(found, checked, wrong)


def _of_the_result(priced: Priced, found: Found, by: Rules, limits: Limits) -> list[str]:
    rows, cost, wrong = found.choice.rows, found.choice.cost, []
    if abs(priced.cost(rows) - cost) > HAIR:
        wrong.append(f"the cost {cost} of {sorted(rows)} is {priced.cost(rows)}")
    if by.pruning:
        return wrong if found.bound is None else [*wrong, "a bound in spite of pruning"]
    if limits is TO_THE_END:
        if cost - priced.least > SOLVED:
            wrong.append(f"the optimum {priced.least} was not found, but {cost}")
        if found.bound is None or priced.least - found.bound > SOLVED:
            wrong.append(f"the optimum {priced.least} was not proven, but {found.bound}")
        if found.stopped not in ("optimal", "gap"):
            wrong.append(f"ended by {found.stopped}")
    return wrong


def _of_the_records(priced: Priced, found: Found, by: Rules) -> list[str]:
    wrong, best, highest = [], np.inf, -np.inf
    for record in found.records:
        bound, objective = record["bound"], record["objective"]
        if objective < priced.least - HAIR or objective > best:
            wrong.append(f"objective {objective} after {best}, optimum {priced.least}")
        if bound is not None and (bound > priced.least + SOLVED or bound < highest or by.pruning):
            wrong.append(f"bound {bound} after {highest}, optimum {priced.least}")
        best, highest = objective, highest if bound is None else bound
    return wrong


def _of_all_kinds(priced: Priced, task: Task, hat: Choice) -> tuple[int, list[str]]:
    """Every kind of cut at one selection: none may exceed any cost, (B) and (B+) are exact at their own."""
    plain, strong = cuts.benders(task, hat, unwatched), cuts.capacitated(task, hat, unwatched)
    more = [cuts.filling(task, unwatched), cuts.nearest(task, unwatched), *cuts.triangle(task, hat)]
    if task.ground.metric == "euclidean":
        more.append(cuts.dual_inequality(task, hat))
    made = [plain, strong, *more]
    wrong = _broken(priced, made)
    wrong += [f"{cut.kind} is not tight" for cut in made[:2] if cut.at(hat.rows) < hat.cost - HAIR]
    if strong.constant != plain.constant or (strong.coefficients < plain.coefficients - HAIR).any():
        wrong.append("(B+) is below (B)")
    return len(made), wrong


def _broken(priced: Priced, made: list[cuts.Cut]) -> list[str]:
    excesses = [(cut.kind, priced.excess(cut)) for cut in made]
    return [f"{kind} is broken by {excess:.3g}" for kind, excess in excesses if excess > HAIR]
