"""Rows to be compared, the one way their distances are summed, and candidates ranked by it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64, Shaped
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, threads
from alrun.pool import BLOCK_BYTES

SPARE = 4  # candidates beyond the k-th, so that most ties and rounding errors there are settled at once
LANES = 8  # a processor adds eight terms at once
FLOOR = 1e-30  # squared distances that differ by less may have underflowed in float32


@dataclass(frozen=True, eq=False)
class Points:
    """Rows `rows` of the features, each divided by its norm; points are named by their place among `rows`.

    Norms are ones or Euclidean norms. Zero rows, if any, share one further axis, on which they are 1.
    Quotients are rounded to float32 and made block by block: no copy of the features is held.
    """

    features: Float32[ndarray, "n d"]
    norms: Float64[ndarray, " n"]
    rows: Int64[ndarray, " m"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Coordinates of a point."""
        return self.features.shape[1] + self._has_zero

    @property
    def data(self) -> tuple[ndarray, ndarray, ndarray]:
        """What kernels read."""
        return self.features, self.norms, self.rows

    def take(self, at: Int64[ndarray, " b"] | slice = slice(None)) -> Float32[ndarray, "b e"]:
        """These points; perhaps a view of the features, so not to be written to."""
        rows = self.rows[at]
        if isinstance(at, slice) and len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            rows = slice(rows[0], rows[-1] + 1)  # gathering rows takes longer than all that follows
        if not self._is_unit:
            return self.features[rows]
        norms = self.norms[rows][:, None]
        zero = norms == 0
        block = (self.features[rows] / np.where(zero, 1, norms)).astype(np.float32)
        return np.hstack([block, zero.astype(np.float32)]) if self._has_zero else block

    def centered(self, kind: Any, at: Int64[ndarray, " b"] | slice = slice(None)) -> Shaped[ndarray, "b e"]:
        """These points around the center in float32 or float64 (`kind`), rounded once."""
        return np.subtract(self.take(at), self.center, dtype=kind)

    @cached_property
    def center(self) -> Float32[ndarray, " e"]:
        """About their mean: inner products lose digits far from the origin."""
        total = np.zeros(self.width)
        for block in self.blocks():
            total += self.take(block).sum(axis=0, dtype=np.float64)
        return (total / len(self)).astype(np.float32)

    @cached_property
    def sizes(self) -> Float64[ndarray, " m"]:
        """Squared norms around the center."""
        sizes = np.empty(len(self))
        for block in self.blocks():
            centered = self.centered(np.float32, block)
            sizes[block] = np.einsum("be,be->b", centered, centered, dtype=np.float64)
        return sizes

    def blocks(self) -> Iterator[slice]:
        """All points, cut so that a block in float64 stays below 8 MiB."""
        return cuts(len(self), BLOCK_BYTES // 8 // (8 * self.width))

    @cached_property
    def _is_unit(self) -> bool:
        return bool((self.norms != 1).any())

    @cached_property
    def _has_zero(self) -> bool:
        return bool((self.norms == 0).any())


def cuts(n: int, each: int) -> Iterator[slice]:
    """0..n in slices of `each` rows, one at least."""
    each = max(1, each)
    return (slice(start, min(start + each, n)) for start in range(0, n, each))


def uncertain(
    points: Points,
    found: Int32[ndarray, "m w"],
    edge: Float64[ndarray, " m"],
    last: Float32[ndarray, " m"],
) -> Int64[ndarray, " u"]:
    """Points whose candidates `found` may not hold all neighbors up to the squared distance `last`.

    By float32 inner products all others are at least at the squared distance `edge`. Were one as near as
    `last`, its norm would be at most |x| + sqrt(last), and that distance at most last + `rounding`.
    """
    far = last.astype(np.float64)
    everyone = (found >= 0).sum(axis=1) >= len(points) - 1
    return np.flatnonzero(~everyone & ~(edge > far + rounding(points.sizes, far, points.width, np.float32)))


def rounding(
    sizes: Float64[ndarray, " b"], gaps: Float64[ndarray, " b"], width: int, kind: Any
) -> Float64[ndarray, " b"]:
    """What rounding can do to squared distances taken from inner products.

    The distances are those between points of squared norm `sizes` and partners no farther than `gaps`
    (squared); `kind` is the products' type. Source: Higham and Mary 2019, theorem 3.1: the error of an inner
    product grows with sqrt(width); with factor 8 the bound fails with probability below 1e-13.
    """
    return slack(width, kind) * (2 * np.sqrt(sizes) + np.sqrt(gaps)) ** 2 + FLOOR


def gap_bounds(
    keys: Float64[ndarray, " b"], sizes: Float64[ndarray, " b"], width: int
) -> Float64[ndarray, " b"]:
    """What squared distances are at most where keys by float32 products are at most these.

    A key is half a point's squared norm less its inner product with a partner of squared norm `sizes`.
    """
    # A distance D is at most 2 key + size + share (2 sqrt(size) + sqrt(D))^2, and the square at most
    # 8 size + 2 D.
    share = slack(width, np.float32)
    return (np.maximum(2 * keys + sizes, 0) + 8 * share * sizes + FLOOR) / (1 - 2 * share)


def key_bounds(
    gaps: Float64[ndarray, " b"], sizes: Float64[ndarray, " b"], width: int
) -> Float32[ndarray, " b"]:
    """What such keys are at most where squared distances are at most these."""
    far = gaps * (1 + 2.0**-22)  # what rounds to the same float32 ties
    limits = (far + rounding(sizes, far, width, np.float32) - sizes) / 2
    return np.nextafter(limits.astype(np.float32), np.float32(np.inf))


def slack(width: int, kind: Any) -> float:
    """The share of the squared sum of norms that rounding can take in `rounding`."""
    return float(8 * (np.sqrt(width) + 8) * np.finfo(kind).eps / 2)


def squared_distances(own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances along the last axis, float32, on the tensors' device.

    The one way they are taken: squares of differences in float64, with zeros after them up to a power of
    two, are added by putting the second half on the first until one is left; that is rounded to float32.
    """
    terms = others.double() - own.double()
    terms *= terms
    most = 1 << (terms.shape[-1] - 1).bit_length()
    terms = torch.nn.functional.pad(terms, (0, most - terms.shape[-1]))
    while most > 1:
        most //= 2
        terms = terms[..., :most] + terms[..., most:]
    return terms[..., 0].float()


def ranked(
    points: Points, found: Int32[ndarray, "m w"], k: int
) -> tuple[Int64[ndarray, "m k"], Float32[ndarray, "m k"]]:
    """Each point's k nearest of its candidates by (distance, place), itself left out.

    A candidate may come twice; -1 stands for none. Where fewer than k are left, m at infinity follows.
    """
    if not COMPILED:
        whole = torch.from_numpy(points.take())
        neighbors, distances = ranked_on(whole, torch.from_numpy(found), k)
        return neighbors.numpy(), distances.numpy()
    neighbors = np.full((len(points), k), len(points), np.int64)
    distances = np.full((len(points), k), np.inf, np.float32)
    with threads() as share:
        share(lambda lo, hi: _rank(points.data, found, neighbors, distances, lo, hi), len(points))
    return neighbors, distances


def ranked_on(whole: torch.Tensor, found: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `ranked`, for all points as one tensor, on its device."""
    m, width = found.shape
    neighbors = torch.full((m, k), m, device=whole.device)
    distances = torch.full((m, k), torch.inf, device=whole.device)
    for block in cuts(m, BLOCK_BYTES // (32 * width * whole.shape[1])):
        # Ascending places first: the stable sort by distance then leaves ties in this order.
        near = found[block].long().sort(dim=1).values
        gaps = squared_distances(whole[block][:, None], whole[near])
        own = torch.arange(m, device=whole.device)[block][:, None]
        gaps[(near == own) | (near < 0)] = torch.inf
        gaps[:, 1:][near[:, 1:] == near[:, :-1]] = torch.inf
        gaps, order = gaps.sort(dim=1, stable=True)
        neighbors[block, :width] = near.gather(1, order)[:, :k]
        distances[block, :width] = gaps[:, :k]
    neighbors[distances.isinf()] = m
    return neighbors, distances


@kernel
def room(data, others):
    """Memory for a point and for the terms of its distances to some others; one entry more for zero rows."""
    d, most = data[0].shape[1], LANES
    while most < d + 1:
        most *= 2
    return np.zeros(d + 1), np.zeros((others, most))


@kernel
def write_gaps(data, point, others, gaps, memory):
    """`squared_distances` between a point and others; infinity to itself and to -1."""
    features, norms, rows = data
    own, terms = memory
    d, norm = features.shape[1], norms[rows[point]]
    own[d] = norm == 0
    for i in range(d):
        own[i] = np.float32(features[rows[point], i] / (norm + own[d]))
    # All terms before any sum: reading a row then need not wait for the sums of the last one.
    for at in range(others.shape[0]):
        row = rows[max(others[at], 0)]
        other, mine, zero = features[row], terms[at], np.float64(norms[row] == 0)
        norm = norms[row] + zero
        for i in range(d):
            difference = np.float64(np.float32(other[i] / norm)) - own[i]
            mine[i] = difference * difference
        mine[d] = (zero - own[d]) * (zero - own[d])
        mine[d + 1 :] = 0.0
    for at in range(others.shape[0]):
        mine, half = terms[at], terms.shape[1]
        while half > LANES:
            half //= 2
            first, second = mine[:half], mine[half : 2 * half]
            for i in range(half):
                first[i] += second[i]
        even, odd = (mine[0] + mine[4]) + (mine[2] + mine[6]), (mine[1] + mine[5]) + (mine[3] + mine[7])
        gaps[at] = np.inf if others[at] < 0 or others[at] == point else even + odd


@kernel
def insert(neighbors, distances, others, gaps, held):
    """Puts candidates at finite gaps in a list by (distance, place), each once; what has no room drops out.

    The list's first `held` entries count.
    """
    k = distances.shape[0]
    for i in range(others.shape[0]):
        gap, other, at = gaps[i], others[i], held
        if gap == np.inf:
            continue
        while at > 0 and distances[at - 1] > gap:
            at -= 1
        while at > 0 and distances[at - 1] == gap and neighbors[at - 1] > other:
            at -= 1
        if at == k or (at > 0 and neighbors[at - 1] == other):
            continue
        held = min(held + 1, k)
        for j in range(held - 1, at, -1):
            distances[j] = distances[j - 1]
            neighbors[j] = neighbors[j - 1]
        distances[at] = gap
        neighbors[at] = other


@kernel
def _rank(data, found, neighbors, distances, start, stop):
    gaps, memory = np.empty(found.shape[1], np.float32), room(data, found.shape[1])
    for point in range(start, stop):
        write_gaps(data, point, found[point], gaps, memory)
        insert(neighbors[point], distances[point], found[point], gaps, 0)
