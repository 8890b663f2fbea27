"""Equal points: searched once, and their neighbor lists written out for every row."""

import numpy as np
from jaxtyping import Float32, Int64, UInt64
from numpy import ndarray

from alrun.graph.points import Points, cuts
from alrun.pool import BLOCK_BYTES


def distinct(points: Points) -> tuple[Points, Int64[ndarray, " n"]]:
    """The first of each set of equal points, and for each point the place of its set among these."""
    _, first, group = np.unique(_marks(points), return_index=True, return_inverse=True)
    if len(first) == len(points):
        return points, np.arange(len(points))
    for block in points.blocks():
        if (points.take(block) != points.take(first[group[block]])).any():
            # Two different points have one mark: rare enough to copy and sort them all.
            _, first, group = np.unique(points.take() + 0, axis=0, return_index=True, return_inverse=True)
            break
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Points(points.features, points.norms, points.rows[first[order]]), place[group.ravel()]


def written_out(
    group: Int64[ndarray, " n"], neighbors: Int64[ndarray, "m g"], distances: Float32[ndarray, "m g"], k: int
) -> tuple[Int64[ndarray, "n k"], Float32[ndarray, "n k"]]:
    """The k < n nearest other rows of each row by (distance, row), from the g = min(k, m - 1) of its set.

    The k + 1 rows nearest to a point, itself one of them, lie in its own set and those g others, and are
    among the k + 1 first of theirs: whatever is left out comes after k + 1 rows that are as near or nearer.
    """
    m, n = len(neighbors), len(group)
    if m == n:
        return neighbors, distances
    members = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=m)
    starts = np.cumsum(counts) - counts
    sets = np.hstack([np.arange(m)[:, None], neighbors])
    gaps = np.hstack([np.zeros((m, 1), np.float32), distances])
    lists, lengths = np.full((m, k + 1), n), np.full((m, k + 1), np.inf, np.float32)
    crowded = (counts[sets] > 1).any(axis=1)
    lists[~crowded, : sets.shape[1]], lengths[~crowded, : sets.shape[1]] = (
        members[starts[sets[~crowded]]],
        gaps[~crowded],
    )
    deep = min(k + 1, int(counts.max()))
    for block in cuts(int(crowded.sum()), BLOCK_BYTES // (32 * deep * sets.shape[1])):
        at = np.flatnonzero(crowded)[block]
        rank = np.arange(deep)
        rows = members[np.minimum(starts[sets[at]][..., None] + rank, n - 1)]
        absent = rank >= counts[sets[at]][..., None]
        rows, far = np.where(absent, n, rows), np.where(absent, np.float32(np.inf), gaps[at][..., None])
        rows, far = rows.reshape(len(at), -1), far.reshape(len(at), -1)
        order = np.lexsort((rows, far), axis=1)[:, : k + 1]
        lists[at], lengths[at] = np.take_along_axis(rows, order, 1), np.take_along_axis(far, order, 1)
    return _without_self(group, lists, lengths)


def _without_self(
    group: Int64[ndarray, " n"], lists: Int64[ndarray, "m l"], lengths: Float32[ndarray, "m l"]
) -> tuple[Int64[ndarray, "n k"], Float32[ndarray, "n k"]]:
    """The lists of all rows, the row itself taken out, or else the last entry."""
    n, k = len(group), lists.shape[1] - 1
    neighbors, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    for block in cuts(n, BLOCK_BYTES // (64 * (k + 1))):
        rows, far = lists[group[block]], lengths[group[block]]
        own = rows == np.arange(block.start, block.stop)[:, None]
        order = np.argsort(own, axis=1, kind="stable")[:, :k]
        neighbors[block] = np.take_along_axis(rows, order, 1)
        distances[block] = np.take_along_axis(far, order, 1)
    return neighbors, distances


def _marks(points: Points) -> UInt64[ndarray, " n"]:
    """A number for each point, the same for equal ones and hardly ever for others."""
    weights = np.random.default_rng(0).integers(1, 2**63, points.width, dtype=np.uint64) | np.uint64(1)
    marks = np.empty(len(points), np.uint64)
    for block in points.blocks():
        # -0 is 0.
        bits = (points.take(block) + np.float32(0)).view(np.uint32)
        marks[block] = (bits * weights).sum(axis=1, dtype=np.uint64)
    return marks
