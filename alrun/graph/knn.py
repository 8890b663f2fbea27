"""Exact k-nearest-neighbor graphs."""

from dataclasses import dataclass
from typing import Annotated, Literal

import faiss
import numpy as np
from annotated_types import Ge
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from alrun.pool import BLOCK_BYTES

SPARE = 8  # candidates beyond the k-th, so that most ties and rounding errors there are settled at once
LARGEST = 1e17  # squared distances of larger features overflow float32
FLOOR = 1e-30  # squared distances that differ by less may have underflowed in float32


@dataclass(frozen=True, eq=False)
class Graph:
    """Each row's k nearest other rows, by (distance, row), without self loops.

    `symmetrize` says what kernels make of the directed edges: nothing, or the larger or mean of both weights.
    """

    neighbors: Int64[ndarray, "n k"]
    distances: Float32[ndarray, "n k"]
    symmetrize: Literal["none", "max", "mean"]

    def __len__(self) -> int:
        return len(self.neighbors)

    @property
    def k(self) -> int:
        """Neighbors a row."""
        return self.neighbors.shape[1]


@dataclass(frozen=True)
class Knn:
    """How a neighbor graph is built: exact, ties to the smaller row, whatever the number of threads.

    Source: S0 section 4.3 (squared Euclidean distance between features). Departs: FAISS finds the candidates,
    distances are then recomputed from differences, so duplicates are at distance 0 exactly.
    """

    k: Annotated[int, Ge(1)]
    metric: Literal["sqeuclidean", "cosine"]
    symmetrize: Literal["none", "max", "mean"]

    def build(self, features: Float32[ndarray, "n d"]) -> Graph:
        """The graph of min(k, n - 1) neighbors a row.

        Cosine distance is 1 - cos, in [0, 2], taken as half the squared distance of unit rows. A zero row has
        no direction and counts as orthogonal: at 1 from every other row, at 0 from other zero rows.

        Raises:
            ValueError: a feature that is no number below 1e17 in size.
        """
        if not (fine := np.abs(features) < LARGEST).all():
            bad = np.flatnonzero(~fine.all(axis=1))[0]
            raise ValueError(
                f"features must be finite and below {LARGEST:g} in size, row {bad} holds "
                f"{features[bad][~fine[bad]][0]}; check the inputs and the training loss"
            )
        points = unit_rows(features) if self.metric == "cosine" else features
        neighbors, distances = nearest(points, min(self.k, len(points) - 1))
        scale = np.float32(0.5 if self.metric == "cosine" else 1.0)
        return Graph(neighbors, distances * scale, self.symmetrize)


def unit_rows(features: Float32[ndarray, "n d"]) -> Float32[ndarray, "n e"]:
    """Rows divided by their Euclidean norm; zero rows, if any, share one further axis (e = d + 1)."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))[:, None]
    zero = norms == 0
    unit = (features / np.where(zero, 1, norms)).astype(np.float32)
    return np.hstack([unit, zero.astype(np.float32)]) if zero.any() else unit


def nearest(points: Float32[ndarray, "n d"], k: int) -> tuple[Int64[ndarray, "n k"], Float32[ndarray, "n k"]]:
    """The k nearest other rows of each row by (squared Euclidean distance, row), and these distances.

    Distances are sums in float64 of squared differences, rounded to float32 before they are compared.
    """
    if k == 0:
        return np.empty((len(points), 0), np.int64), np.empty((len(points), 0), np.float32)
    neighbors, distances, certain = _among_candidates(points, k)
    if not certain.all():
        rows = np.flatnonzero(~certain)
        neighbors[rows], distances[rows] = _among_all(points, rows, k)
    return neighbors, distances


def _among_candidates(
    points: Float32[ndarray, "n d"], k: int
) -> tuple[Int64[ndarray, "n k"], Float32[ndarray, "n k"], Bool[ndarray, " n"]]:
    """Neighbors among what FAISS finds, and where these are certainly the nearest of all rows.

    A row that was not found has a FAISS distance of at least `edge`. Were it as near as the k-th neighbor,
    its norm would be at most |x| + sqrt(d_k), hence its FAISS distance at most d_k + `_rounding`.
    """
    n, d = points.shape
    width = min(n, k + 1 + SPARE)
    centered = _centered(points).astype(np.float32)
    index = faiss.IndexFlatL2(d)
    index.add(centered)
    edge, found = index.search(centered, width)
    sizes = np.einsum("nd,nd->n", centered, centered, dtype=np.float64)
    neighbors, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    for rows in _blocks(np.arange(n), 8 * width * d):
        gaps = _distances(points[rows][:, None], points[found[rows]])
        gaps[found[rows] == rows[:, None]] = np.inf
        order = np.lexsort((found[rows], gaps), axis=1)[:, :k]
        neighbors[rows] = np.take_along_axis(found[rows], order, 1)
        distances[rows] = np.take_along_axis(gaps, order, 1)
    last = distances[:, -1].astype(np.float64)
    return neighbors, distances, (edge[:, -1] > last + _rounding(sizes, last, d, np.float32)) | (width == n)


def _first_equals(points: Float32[ndarray, "n d"], k: int) -> Int64[ndarray, " m"]:
    """The k + 1 smallest of each set of equal rows, sorted: no other row can be among k nearest ones."""
    _, group = np.unique(points, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    sets = group.ravel()[order]
    rank = np.arange(len(sets)) - np.searchsorted(sets, sets)
    return np.sort(order[rank <= k])


def _among_all(
    points: ndarray, rows: Int64[ndarray, " r"], k: int
) -> tuple[Int64[ndarray, "r k"], Float32[ndarray, "r k"]]:
    """Neighbors among all rows: whatever float64 inner products leave in doubt is compared exactly."""
    others = _first_equals(points, k)
    wide = _centered(points)
    sizes, partners = np.einsum("nd,nd->n", wide, wide), wide[others].T
    neighbors, distances = [], []
    for block in _blocks(rows, 8 * len(others)):
        gaps = sizes[block][:, None] + sizes[others] - 2 * wide[block] @ partners
        gaps[block[:, None] == others] = np.inf
        last = np.maximum(np.partition(gaps, k - 1, axis=1)[:, k - 1], 0)
        # What rounds to the same float32 as the k-th distance ties with it.
        reach = last * (1 + 2.0**-22) + 4 * _rounding(sizes[block], last, points.shape[1], np.float64)
        for row, gap, bound in zip(block, gaps, reach, strict=True):
            near = others[gap <= bound]
            exact = _distances(points[row], points[near])
            order = np.lexsort((near, exact))[:k]
            neighbors.append(near[order])
            distances.append(exact[order])
    return np.reshape(neighbors, (-1, k)).astype(np.int64), np.reshape(distances, (-1, k)).astype(np.float32)


def _rounding(
    sizes: Float64[ndarray, " b"], gaps: Float64[ndarray, " b"], width: int, kind: type
) -> Float64[ndarray, " b"]:
    """What rounding can do to squared distances taken from inner products.

    The distances are those between points of squared norm `sizes` and partners no farther than `gaps`
    (squared). Source: Higham and Mary 2019, theorem 3.1: the error of an inner product grows with
    sqrt(width); with factor 8 the bound fails with probability below 1e-13.
    """
    error = 8 * (np.sqrt(width) + 8) * np.finfo(kind).eps / 2
    return error * (2 * np.sqrt(sizes) + np.sqrt(gaps)) ** 2 + FLOOR


def _centered(points: Float32[ndarray, "n d"]) -> Float64[ndarray, "n d"]:
    """Points around their mean: inner products lose digits far from the origin."""
    return points - points.mean(axis=0, dtype=np.float64)


def _distances(own: ndarray, others: ndarray) -> ndarray:
    """Squared Euclidean distances along the last axis, float32."""
    gaps = others.astype(np.float64)
    gaps -= own
    gaps *= gaps
    return gaps.sum(axis=-1).astype(np.float32)


def _blocks(rows: Int64[ndarray, " r"], each: int) -> list[Int64[ndarray, " b"]]:
    """Rows cut so that `each` bytes a row stay below 64 MiB a block."""
    return np.array_split(rows, max(1, -(-len(rows) * each // BLOCK_BYTES)))
