"""A batch by label diffusion in mini-batches on a fixed graph.

Source: S0 Algorithm 1 with B.1, B.2 and B.3, read as in ALGORITHMS 1.4 and 1.5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray
from scipy.sparse import csr_array

from alrun.graph.diffusion import Diffusion, walk_for
from alrun.graph.kernels import hub_free, transition
from alrun.graph.least import Least, Score
from alrun.graph.walk import Walk
from alrun.pool import smallest

Clamp = Callable[[Int64[ndarray, " p"], Float64[ndarray, "p c"]], Float64[ndarray, "p c"]]
Ranks = Float64[ndarray, " n"] | None

# Sums of weights that are equal in these decimals tie.
TIED = 12


@dataclass(frozen=True)
class Query:
    """Settings of a batch query.

    Attributes:
        steps: diffusion steps T at the batch's start.
        mini_batch: rows P picked before the values are diffused anew.
        shrink_below: B.3, the share delta of the pool: with fewer unreached rows T falls by one; None is off.
        influence: B.1, whether a row counts by the weights of its own neighbors (`row`) or by what it gives
            to others (`col`).
        soft: B.2, whether unlabeled rows start from soft labels; then B.1 never applies.
    """

    steps: Annotated[int, Ge(1)]
    mini_batch: Annotated[int, Ge(1)]
    shrink_below: Annotated[float, Ge(0), Le(1)] | None
    influence: Literal["row", "col"]
    soft: bool


@dataclass(frozen=True, eq=False)
class Situation:
    """Where a batch query starts: weights W, chi^(0), its clamped rows, and the sorted rows to pick from.

    Labels are diffused in the type of chi^(0), float32 or float64.
    """

    weights: csr_array
    start: Float[ndarray, "n c"]
    labeled: Bool[ndarray, " n"]
    candidates: Int64[ndarray, " m"]

    def __post_init__(self) -> None:
        """Refuses candidates that could be picked twice or bought before.

        Raises:
            ValueError: candidates that are repeated, unsorted or labeled.
        """
        if (np.diff(self.candidates) <= 0).any():
            raise ValueError(
                f"candidates must be sorted and distinct, got {self.candidates[:5].tolist()}; use np.unique"
            )
        if (known := self.candidates[self.labeled[self.candidates]]).size:
            raise ValueError(
                f"candidates must be unlabeled, row {known[0]} is not; choose among pool.unlabeled"
            )


@dataclass(frozen=True, eq=False)
class Picked:
    """Rows in order of choice, their scores when picked, and what happened on the way.

    Attributes:
        unreached: unlabeled rows of the pool from which no clamped row was within T steps, at the start.
        steps: T after the last mini-batch.
        by_influence: rows picked by B.1.
        hub_free: of these, rows that are nobody's neighbor, so that clamping them reaches no one.
    """

    rows: Int64[ndarray, " b"]
    scores: Float64[ndarray, " b"]
    unreached: int
    steps: int
    by_influence: int
    hub_free: int


@dataclass(frozen=True, eq=False)
class Ground:
    """What a batch query takes from the graph alone, so that a fixed graph gives it once.

    Attributes:
        walk: M of the label diffusion.
        influence: B.1's sums of weights, `row` and `col`, to as many decimals as tie.
        hub_free: rows that are nobody's neighbor.
    """

    walk: Walk
    influence: Mapping[str, Float64[ndarray, " n"]]
    hub_free: Bool[ndarray, " n"]

    @classmethod
    def of(cls, weights: csr_array, classes: int, updates: int, dtype: np.dtype) -> "Ground":
        """The ground of W (n, n), for values of so many classes that are clamped about `updates` times."""
        influence = {name: weights.sum(axis=axis).round(TIED) for name, axis in (("row", 1), ("col", 0))}
        return cls(walk_for(transition(weights), classes, updates, dtype), influence, hub_free(weights))


@dataclass(frozen=True, eq=False)
class Diffused:
    """Diffused labels on a ground, and the scores of the rows that may be picked.

    Both follow each clamp, with the bits that a diffusion from the start gives, whatever came before.
    """

    ground: Ground
    state: Diffusion
    least: Least

    @classmethod
    def start(
        cls,
        ground: Ground,
        start: Float[ndarray, "n c"],
        labeled: Bool[ndarray, " n"],
        steps: int,
        score: Score,
    ) -> "Diffused":
        """Labels diffused by full steps from chi^(0); all unlabeled rows may be picked."""
        state = Diffusion(ground.walk, start, labeled, steps)
        return cls(ground, state, Least(state, np.flatnonzero(~labeled), score))

    def among(self, candidates: Int64[ndarray, " m"]) -> "Diffused":
        """The same labels, to be clamped apart from these, with some of the rows that may be picked."""
        state = self.state.copy()
        return Diffused(self.ground, state, self.least.among_only(state, candidates))

    def clamp(self, rows: Int64[ndarray, " p"], values: Float[ndarray, "p c"]) -> None:
        """Clamps distinct rows, which can be picked no more."""
        self.state.clamp(rows, values)
        self.least.clamped(rows)


def batch_query(
    at: Situation, size: int, query: Query, score: Score, clamp: Clamp, ranks: Ranks = None
) -> Picked:
    """As `pick`, from labels diffused for this query alone."""
    updates = -(-size // query.mini_batch)
    ground = Ground.of(at.weights, at.start.shape[1], updates, at.start.dtype)
    state = Diffusion(ground.walk, at.start, at.labeled, query.steps)
    return pick(Diffused(ground, state, Least(state, at.candidates, score)), size, query, clamp, ranks)


def pick(at: Diffused, size: int, query: Query, clamp: Clamp, ranks: Ranks = None) -> Picked:
    """min(size, m) of m rows, `mini_batch` at a time: the smallest scores, or B.1's choice of the unreached.

    `ranks` (n,), the largest first, stand in for B.1's influence where they are given.

    `clamp(rows, values)` is called after each mini-batch but the last with its rows and their diffused
    values, and says to what they are clamped in `at`. Ties (scores equal to 12 decimals) fall to the smaller
    row.

    Source: S0 Algorithm 1, B.1-B.3. Departs: B.1 applies where more candidates than the mini-batch holds are
    unreached, and never with soft starts; B.3 counts the pool's unreached rows by edges, not by chi = 0,
    lowers T for the next mini-batch, and stops at T = 1 (ALGORITHMS 1.4).
    """
    size = min(size, int(at.least.open.sum()))
    steps, first_unreached = query.steps, len(at.state.unreached(query.steps))
    rows, scores, explored = np.empty(size, np.int64), np.empty(size), np.zeros(size, bool)
    for begun in range(0, size, query.mini_batch):
        p = min(query.mini_batch, size - begun)
        own = slice(begun, begun + p)
        unreached = at.state.unreached(steps)
        dark = unreached[at.least.open[unreached]]
        explored[own] = by_influence = len(dark) > p and not query.soft
        influence = at.ground.influence[query.influence] if ranks is None else ranks
        picks = smallest(dark, -influence[dark], p) if by_influence else at.least.among(p, steps)
        values = at.state.at(picks, steps).astype(np.float64)
        rows[own], scores[own] = picks, at.least.score(values)
        if begun + p < size:
            at.clamp(picks, clamp(picks, values))
        if query.shrink_below is not None and len(unreached) < query.shrink_below * len(at.state):
            steps = max(steps - 1, 1)
    lonely = at.ground.hub_free[rows[explored]]
    return Picked(rows, scores, first_unreached, steps, int(explored.sum()), int(lonely.sum()))
