"""The most typical rows of clusters that hold the fewest labels."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from alrun.coverage.distances import check_moderate
from alrun.graph.knn import nearest


def most_typical(
    points: Float32[ndarray, "n d"],
    clusters: Int64[ndarray, " n"],
    labeled: Int64[ndarray, " l"],
    candidates: Int64[ndarray, " m"],
    size: int,
    *,
    neighbors: int,
    smallest: int,
) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    """The most typical candidate of one cluster after the other, and how typical it is.

    The next cluster is the one with the fewest labels, of these the one with the most rows, of these the one
    with the smallest row; each choice counts as a label of its cluster. Clusters of fewer than `smallest`
    rows wait until no other has a candidate left. Ties in typicality fall to the smaller row; there are at
    most m choices.

    All rows of a cluster count, for its size and as neighbors, be they labeled, candidates or neither: how
    dense the pool is somewhere does not depend on who may be chosen.

    Raises:
        ValueError: a feature that is no number below 1e15 in size.
    Source: Hacohen et al. 2022, TypiClust. Departs: the authors' code leaves labeled and chosen rows out of
    the neighbors, goes round the clusters in one order made at the start, drops clusters of 5 rows too, and
    fails where a cluster has nothing left.
    """
    check_moderate(points)
    offered = np.zeros(len(points), bool)
    offered[candidates] = True
    waiting = _waiting(clusters, labeled, offered, smallest)
    lines: dict[int, Iterator[tuple[int, float]]] = {}
    rows, scores = np.empty(min(size, len(candidates)), np.int64), np.empty(min(size, len(candidates)))
    for step in range(len(rows)):
        small, labels, rest, first, left = heappop(waiting)
        if first not in lines:
            own = np.flatnonzero(clusters == clusters[first])
            lines[first] = _line(own, typicality(points[own], neighbors), offered)
        rows[step], scores[step] = next(lines[first])
        if left > 1:
            heappush(waiting, (small, labels + 1, rest, first, left - 1))
    return rows, scores


def typicality(points: Float32[ndarray, "m d"], neighbors: int) -> Float64[ndarray, " m"]:
    """Each point's inverse mean Euclidean distance to its nearest min(neighbors, m - 1) others.

    It is inf where these are all duplicates, and 0 for a single point.

    Source: Hacohen et al. 2022, typicality. Departs: the authors' code takes squared distances, adds 1e-5 to
    their mean, and takes no more than half of the cluster.
    """
    count = min(neighbors, len(points) - 1)
    if count < 1:
        return np.zeros(len(points))
    _, squared = nearest(points, count)
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(squared.astype(np.float64)).mean(axis=1)


def _waiting(
    clusters: Int64[ndarray, " n"], labeled: Int64[ndarray, " l"], offered: Bool[ndarray, " n"], smallest: int
) -> list[tuple[bool, int, int, int, int]]:
    """A heap of clusters: whether small, labels, rows (negative), first row, candidates (one at least)."""
    names, firsts, rows = np.unique(clusters, return_index=True, return_counts=True)
    labels, left = (np.bincount(clusters[some], minlength=names[-1] + 1) for some in (labeled, offered))
    waiting = [
        (bool(count < smallest), int(labels[name]), -int(count), int(first), int(left[name]))
        for name, first, count in zip(names, firsts, rows, strict=True)
        if left[name]
    ]
    heapify(waiting)
    return waiting


def _line(
    rows: Int64[ndarray, " s"], scores: Float64[ndarray, " s"], offered: Bool[ndarray, " n"]
) -> Iterator[tuple[int, float]]:
    """Candidates among the rows of a cluster, the most typical first, and how typical they are."""
    order = np.argsort(-scores, kind="stable")
    return ((int(rows[at]), float(scores[at])) for at in order if offered[rows[at]])
