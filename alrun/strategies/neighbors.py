"""Rows near the labeled ones: what SEALS restricts the pool to."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.graph.search import Search
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Neighbors:
    """The union of the k nearest neighbors of all labeled rows. Scores are distances to the nearest of these.

    Where features depend on the model, they are the k nearest candidates, searched anew each round. Fixed
    features give Algorithm 3: neighbors in the whole pool, each labeled row's found once, when it is bought;
    bought rows leave. That search depends on no model, so as in S1 it is no query time; its seconds stand
    apart as `once_neighbors`. The set grows by at most b k rows a round, and less where neighbors are labeled
    or shared. Where it is smaller than what is asked for, rows drawn from the rest follow, with an infinite
    score; before the first label, all are drawn.

    Attributes:
        k: neighbors a labeled row.
        metric: squared Euclidean distance, or 1 - cos.

    Source: S1 section 5 and Algorithm 3 (Coleman et al. 2022, SEALS). Departs: k is 100 as in SEALS, S1 names
    none; Algorithm 3 does not say that labeled rows leave, nor what to do without enough neighbors.
    """

    k: Annotated[int, Ge(1)]
    metric: Literal["sqeuclidean", "cosine"]
    needs = frozenset({"features"})

    def select(self, current: Round, size: int) -> Batch:
        """The `size` of these nearest to a labeled row, ties to the smaller row."""
        near = self.restrict(current, size)
        return Batch(near.rows[:size], near.scores[:size], near.notes)

    def restrict(self, current: Round, size: int) -> Batch:
        """All of these, `size` rows at least, by (score, row)."""
        gaps = self._kept(current) if current.life.fixed else self._refreshed(current)
        gaps = gaps[current.candidates]
        near = np.flatnonzero(np.isfinite(gaps))
        near = near[np.argsort(gaps[near], kind="stable")]
        missing = max(0, size - len(near))
        drawn = current.rng.choice(np.flatnonzero(np.isinf(gaps)), missing, replace=False) if missing else []
        chosen = np.concatenate([near, np.asarray(drawn, np.int64)])
        return Batch(
            current.candidates[chosen], gaps[chosen], {"neighbors": float(len(near)), "drawn": float(missing)}
        )

    def _refreshed(self, current: Round) -> Float64[ndarray, " n"]:
        """Distances to the labeled rows that have a candidate among their k nearest; infinite elsewhere."""
        gaps = np.full(len(current.pool), np.inf)
        if len(current.pool.labeled):
            features = current.features
            with current.timed("graph", 0):
                search = Search(features, self.metric, current.life.device)
                _lower(gaps, *search.nearest(current.pool.labeled, self.k, current.candidates))
        return gaps

    def _kept(self, current: Round) -> Float64[ndarray, " n"]:
        """As `_refreshed` in the whole pool, one purchase after another."""
        everyone = np.arange(len(current.pool))
        search = current.once(
            f"neighbors_{self.metric}", lambda _: Search(current.features, self.metric, current.life.device)
        )

        def update(gaps: Float64[ndarray, " n"], rows: Int64[ndarray, " b"]) -> Float64[ndarray, " n"]:
            _lower(gaps, *search.nearest(rows, self.k, everyone))
            return gaps

        with current.life.clock.part("neighbors"), current.work.clock.part("once"):
            return current.kept(
                f"neighbors {self.k} {self.metric}", lambda: np.full(len(everyone), np.inf), update
            )


def _lower(
    gaps: Float64[ndarray, " n"], neighbors: Int64[ndarray, "q k"], distances: Float32[ndarray, "q k"]
) -> None:
    """Lowers each row's distance to that from any of the rows whose neighbor it is."""
    np.minimum.at(gaps, neighbors.ravel(), distances.ravel().astype(np.float64))
