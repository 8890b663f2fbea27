"""k-medoids: rows that all points are near to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import threads
from alrun.coverage.assignment import Assignment, Share, Space
from alrun.coverage.distances import check_moderate
from alrun.pool import BLOCK_BYTES

FEW = 8  # candidates compared at once just after a swap


@dataclass(frozen=True, eq=False)
class KMedoids:
    """Medoids, in order of what they are worth, and how they were found.

    Attributes:
        rows: by falling loss, ties to the smaller row.
        losses: what the objective grows by if this medoid is taken away; inf if there is no other.
        objective: mean distance of all points to their nearest medoid, fixed ones included; inf without any.
        history: the objective at the start and after each swap, strictly falling.
        sweeps: how often all tried candidates were compared, in whole sweeps and parts of one.
        tried: candidates that swaps were looked for among.
        converged: no swap with one of these lowers the objective by a 1e-9 share of it.
    """

    rows: Int64[ndarray, " b"]
    losses: Float64[ndarray, " b"]
    objective: float
    history: Float64[ndarray, " s"]
    sweeps: float
    tried: int
    converged: bool

    @property
    def swaps(self) -> int:
        """Swaps made."""
        return len(self.history) - 1


def k_medoids(
    points: Float32[ndarray, "n d"],
    fixed: Int64[ndarray, " l"],
    candidates: Int64[ndarray, " m"],
    size: int,
    *,
    metric: Literal["euclidean", "cosine"],
    rng: np.random.Generator,
    sample: int | None,
    sweeps: int,
    in_time: Callable[[], bool] = lambda: True,
) -> KMedoids:
    """`size` of the candidates that, with the fixed medoids, are near to all points: a local optimum.

    Minimizes the mean over all n points of the distance to the nearest of fixed and chosen medoids. Starts
    from distance-weighted draws, then goes through the candidates in random order and makes each swap that
    lowers the objective by more than a 1e-9 share of it, until none does. Cosine distance is 1 - cos, in
    [0, 2]; a zero row is at 1 from all but zero rows. The result is the same for any number of threads and
    size of blocks, compiled or not. Takes 2 n m d flops a sweep and one copy of the points.

    `sample`: swaps are looked for among so many uniformly drawn candidates (CLARA's thrift); None is all.
    `sweeps`: at most so many passes through them. After two to six none finds more; the first gets within
    0.5 % of their objective, so 1 is enough from 10,000 rows on, and better than a sample of a fifth.
    `in_time`: no further swap is looked for once it says no.

    Raises:
        ValueError: a feature that is no number below 1e15 in size; a row that is out of range, repeated, or
            both fixed and candidate; a size outside 0..m; a sample or sweeps below 1.
    Source: Schubert and Rousseeuw 2021 (FasterPAM: eager swaps, removal losses shared among medoids);
        ALGORITHMS 6.3. Departs: distances of a block of candidates are products in float32 from below;
        only what they leave in doubt is compared, in float64, so no matrix of distances is kept.
    """
    _check(points, fixed, candidates, size)
    if (least := min(sweeps, 1 if sample is None else sample)) < 1:
        raise ValueError(f"sample and sweeps must be at least 1, got {least}; sample=None is all candidates")
    space, n = Space.of(points, metric), len(points)
    with threads() as share:
        reserve = _reserve(space, fixed, share)
        if size == 0:
            return _none(float(reserve.mean()) if len(fixed) else np.inf)
        chosen = _start(space, np.sort(candidates), size, reserve, rng)
        order = rng.permutation(np.sort(candidates))[:sample]
        found = Assignment(space, chosen, reserve, share)
        history, seen, converged = _descend(found, order, sweeps, in_time)
    by_loss = np.lexsort((found.chosen, -found.losses))
    losses = found.losses[by_loss] / n if size > 1 or len(fixed) else np.full(1, np.inf)
    history, passes = np.array(history) / n, seen / len(order)
    return KMedoids(found.chosen[by_loss], losses, float(history[-1]), history, passes, len(order), converged)


def _none(objective: float) -> KMedoids:
    return KMedoids(np.empty(0, np.int64), np.empty(0), objective, np.array([objective]), 0.0, 0, True)


def _check(points: ndarray, fixed: ndarray, candidates: ndarray, size: int) -> None:
    check_moderate(points)
    rows = np.concatenate([np.unique(fixed), candidates])
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(points):
        wrong = rows[(rows < 0) | (rows >= len(points))][0]
        raise ValueError(f"medoids must be rows in 0..{len(points) - 1}, got {wrong}")
    distinct, counts = np.unique(rows, return_counts=True)
    if len(distinct) < len(rows):
        raise ValueError(
            f"a candidate must be named once and not be fixed, got row {distinct[counts > 1][0]} twice; "
            "leave fixed rows out of the candidates"
        )
    if not 0 <= size <= len(candidates):
        raise ValueError(f"size must be in 0..{len(candidates)}, the number of candidates, got {size}")


def _reserve(space: Space, fixed: ndarray, share: Share) -> Float64[ndarray, " n"]:
    if len(fixed) == 0:
        return np.full(len(space), space.ceiling)
    return np.ascontiguousarray(space.two_nearest(np.arange(len(space)), fixed, share)[1][:, 0])


def _start(
    space: Space, candidates: ndarray, size: int, reserve: ndarray, rng: np.random.Generator
) -> Int64[ndarray, " size"]:
    """Candidates drawn in proportion to their distance from those before, the best of a few draws each time.

    Source: Arthur and Vassilvitskii 2007 (k-means++, section 5: greedy), with distances, not their squares.
    """
    nearest, taken = reserve.copy(), np.zeros(len(candidates), bool)
    for _ in range(size):
        weights = np.where(taken, 0.0, nearest[candidates])
        if not weights.any():  # nothing but duplicates of medoids is left
            weights = (~taken).astype(float)
        sums = np.cumsum(weights)
        drawn = np.searchsorted(sums, rng.random(2 + int(np.log(size))) * sums[-1], side="right")
        drawn = np.minimum(drawn, np.flatnonzero(weights)[-1])  # a draw may round up to the whole sum
        cuts, options = space.cuts(nearest), []
        for center, below in zip(candidates[drawn].tolist(), space.below(candidates[drawn]), strict=True):
            options.append(space.nearer(center, np.flatnonzero(below < cuts), nearest))
        best = int(np.argmax([(nearest[rows] - gaps).sum() for rows, gaps in options]))
        rows, gaps = options[best]
        nearest[rows], taken[drawn[best]] = gaps, True
    return candidates[taken]


def _descend(
    found: Assignment, order: ndarray, sweeps: int, in_time: Callable[[], bool]
) -> tuple[list[float], int, bool]:
    """Swaps until none of the candidates improves the medoids, `sweeps` are over, or the time is up.

    Returns the sums of distances from the first to the last, candidates compared, and whether none is left.
    """
    n, m = len(found.space), len(order)
    step = max(1, min(m, BLOCK_BYTES // (4 * n)))
    room = np.empty((step, n), np.float32)
    history, seen, quiet, held = [found.total], 0, 0, -1
    block, below = order[:0], room[:0]
    while quiet < m and seen < sweeps * m and in_time():
        at = seen % m
        if at // step != held:
            held = at // step
            block = order[held * step : (held + 1) * step]
            below = found.space.below(block, out=room[: len(block)])
        place = at - held * step
        # A swap makes the rest of what was compared worthless: few at first, more while none is found.
        few = slice(place, min(len(block), place + min(max(FEW, quiet), m - quiet)))
        swapped = found.improve(block[few], below[few])
        if swapped < few.stop - place:
            history.append(found.total)
            seen, quiet = seen + swapped + 1, 1
        else:
            seen, quiet = seen + swapped, quiet + swapped
    return history, seen, quiet >= m
