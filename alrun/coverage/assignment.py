"""Which medoids are nearest to each point, exactly, and what swapping one for a candidate would gain."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, loose_kernel
from alrun.graph.knn import unit_rows
from alrun.pool import BLOCK_BYTES

FLOOR = 1e-30  # squared distances that differ by less may have underflowed in float32
LEAST = 1e-9  # share of the objective that a swap must gain: far above rounding, far below interest
HANDFUL = 1 << 20  # comparisons that are done before other threads have started
Share = Callable[[Callable[[int, int], Any], int], None]


@dataclass(frozen=True, eq=False)
class Space:
    """Points with a distance: exact in float64, and from below in float32 by matrix products.

    The exact distance is sqrt(s) (Euclidean) or s / 2 between unit rows (cosine), where s adds the squared
    differences one coordinate after the other in float64.
    """

    points: Float32[ndarray, "n e"]
    lifted: Float32[ndarray, "n w"]
    cosine: bool

    @classmethod
    def of(cls, features: Float32[ndarray, "n d"], metric: Literal["euclidean", "cosine"]) -> "Space":
        """The space of these rows; zero rows are orthogonal to all others in the cosine distance.

        Row x is lifted to (y, t |y|^2, 1) with y = x - mean in float32 and t = 1 - (2.1 w + 8) u, w = d + 2,
        u = 2^-24. Its product with (-2 z, 1, t |z|^2) is a squared distance from below: rounding y, z and the
        norms errs by at most 7 u (|y|^2 + |z|^2), a product summed in any order by at most 1.01 w u
        (2 |y| |z| + |y|^2 + |z|^2), and 2 |y| |z| <= |y|^2 + |z|^2.
        """
        cosine = metric == "cosine"
        points = unit_rows(features) if cosine else features
        n, width = points.shape
        lifted = np.ones((n, width + 2), np.float32)
        mean, scale = points.mean(axis=0, dtype=np.float64), np.sqrt(0.5) if cosine else 1.0
        for block in _blocks(n, 16 * width):
            lifted[block, :width] = (points[block] - mean) * scale
            sizes = (lifted[block, :width].astype(np.float64) ** 2).sum(axis=1)
            lifted[block, width] = sizes * (1 - (2.1 * (width + 2) + 8) * 2.0**-24) - FLOOR
        return cls(points, lifted, cosine)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def ceiling(self) -> float:
        """All distances are smaller."""
        return 2.1 if self.cosine else 4.0 * float(np.sqrt(float(self.lifted[:, -2].max()) + 2 * FLOOR))

    def below(
        self,
        rows: Int64[ndarray, " r"],
        others: Int64[ndarray, " m"] | slice = slice(None),
        out: Float32[ndarray, "r m"] | None = None,
    ) -> Float32[ndarray, "r m"]:
        """Squared (cosine: plain) distances, never above the exact ones; they may be negative."""
        own = self.lifted[rows]
        own[:, :-2] *= -2
        own[:, -2:] = own[:, :-3:-1]
        return np.matmul(own, self.lifted[others].T, out=out)

    def cuts(self, reach: Float64[ndarray, " n"]) -> Float32[ndarray, " n"]:
        """What `below` is less than for every point nearer than `reach`."""
        return ((reach if self.cosine else reach**2) * (1 + 2.0**-22)).astype(np.float32)

    def nearer(
        self, center: int, rows: Int64[ndarray, " r"], reach: Float64[ndarray, " n"]
    ) -> tuple[Int64[ndarray, " m"], Float64[ndarray, " m"]]:
        """Those of the rows that are nearer to the center than their reach, and their distances from it."""
        gaps = self.distances(center, rows)
        near = gaps < reach[rows]
        return rows[near], gaps[near]

    def distances(self, center: int, rows: Int64[ndarray, " r"]) -> Float64[ndarray, " r"]:
        """Exact distances of these rows from one."""
        squares = np.zeros(len(rows))
        if COMPILED:
            _from_one(self.points, center, rows, squares)
        else:
            for column, own in zip(self.points[rows].T, self.points[center].astype(np.float64), strict=True):
                squares += (column - own) ** 2
        return squares * 0.5 if self.cosine else np.sqrt(squares)

    def two_nearest(
        self, rows: Int64[ndarray, " r"], medoids: Int64[ndarray, " k"], share: Share
    ) -> tuple[Int64[ndarray, "r 2"], Float64[ndarray, "r 2"]]:
        """For each row the nearest and second of the medoids (positions, -1 for none), and distances (inf).

        Ties fall to the earlier medoid.
        """
        near, gaps = np.full((len(rows), 2), -1), np.full((len(rows), 2), np.inf)
        if not COMPILED:
            for slot, medoid in enumerate(medoids):
                insert(near, gaps, slot, self.distances(int(medoid), rows))
            return near, gaps
        for block in _blocks(len(rows), 4 * (len(medoids) + self.lifted.shape[1])):
            self._compare(rows[block], medoids, near[block], gaps[block], share)
        return near, gaps if self.cosine else np.sqrt(gaps)

    def _compare(self, rows: ndarray, medoids: ndarray, near: ndarray, gaps: ndarray, share: Share) -> None:
        below, scale = self.below(rows, medoids), 0.5 if self.cosine else 1.0

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            _two_nearest(self.points, rows[part], medoids, below[part], scale, near[part], gaps[part])

        shared(share, work, *below.shape)


@dataclass(eq=False)
class Assignment:
    """Each point's nearest and second medoid, kept through swaps; slot `size` stands for the fixed ones.

    `reserve` is each point's distance to the nearest fixed medoid; without any, more than all distances.
    `losses` is what the sum of distances, `total`, grows by if the medoid of a slot is taken away.
    """

    space: Space
    chosen: Int64[ndarray, " size"]
    reserve: Float64[ndarray, " n"]
    share: Share
    near: Int64[ndarray, "n 2"] = field(init=False)
    gaps: Float64[ndarray, "n 2"] = field(init=False)
    losses: Float64[ndarray, " size"] = field(init=False)
    total: float = field(init=False)

    def __post_init__(self) -> None:
        self.near, self.gaps = self._anew(np.arange(len(self.space)))
        self._settle()

    @property
    def threshold(self) -> float:
        """What a swap must gain: a share of the total, and more than rounding of sums can feign."""
        return max(LEAST * self.total, self._slack)

    def improve(self, candidates: Int64[ndarray, " b"], below: Float32[ndarray, "b n"]) -> int:
        """Position of the first candidate that improves the medoids, which is swapped in; b if none does."""
        promising = self.changes(below) < -self.threshold
        promising &= ~np.isin(candidates, self.chosen)
        for at in np.flatnonzero(promising).tolist():
            if self.swap(int(candidates[at]), below[at]):
                return at
        return len(candidates)

    def changes(self, below: Float32[ndarray, "b n"]) -> Float64[ndarray, " b"]:
        """By how much the sum of distances would change with each candidate's best swap, from below.

        It grows with every distance, so distances from below give changes from below.
        """
        changes = np.empty(len(below))
        state = (self._cuts, self.near, self.gaps, self.losses, not self.space.cosine)
        compute = _changes if COMPILED else changes_plainly

        def work(start: int, stop: int) -> None:
            compute(below[start:stop], state, changes[start:stop])

        shared(self.share, work, *below.shape)
        return changes - self._slack

    def swap(self, candidate: int, below: Float32[ndarray, " n"]) -> bool:
        """Puts the candidate in the place where it gains most, if that is enough; whether it was.

        Ties fall to the earlier slot. Only points nearer to it than to their second medoid matter.
        """
        rows, new = self.space.nearer(candidate, np.flatnonzero(below < self._cuts), self.gaps[:, 1])
        (first, second), near = self.gaps[rows].T, self.near[rows, 0]
        size = len(self.chosen)
        change = np.bincount(near, np.maximum(new, first) - second, size + 1)[:size] + self.losses
        slot = int(change.argmin())
        if change[slot] + np.minimum(new - first, 0).sum() >= -self.threshold:
            return False
        self.chosen[slot] = candidate
        lost = (self.near == slot).any(axis=1)
        # Whoever is nearer to the candidate than to its second medoid needs no other.
        lost[rows] = False
        behind = (new >= first) & (near != slot)
        pushed = rows[(new < first) & (near != slot)]
        self.near[pushed, 1], self.gaps[pushed, 1] = self.near[pushed, 0], self.gaps[pushed, 0]
        self.near[rows, behind.astype(int)], self.gaps[rows, behind.astype(int)] = slot, new
        lost = np.flatnonzero(lost)
        self.near[lost], self.gaps[lost] = self._anew(lost)
        self._settle()
        return True

    def _anew(self, rows: Int64[ndarray, " r"]) -> tuple[Int64[ndarray, "r 2"], Float64[ndarray, "r 2"]]:
        near, gaps = self.space.two_nearest(rows, self.chosen, self.share)
        insert(near, gaps, len(self.chosen), self.reserve[rows])
        return near, gaps

    def _settle(self) -> None:
        first, second = self.gaps.T
        size = len(self.chosen)
        self.losses = np.bincount(self.near[:, 0], second - first, size + 1)[:size]
        self.total = float(np.ascontiguousarray(first).sum())
        # Adding n numbers in any order errs by at most n eps times the sum of their sizes.
        self._slack = 4 * len(first) * float(np.finfo(np.float64).eps) * float(second.sum())
        self._cuts = self.space.cuts(second)


def insert(near: ndarray, gaps: ndarray, slot: int, new: Float64[ndarray, " r"]) -> None:
    """Another medoid's distances join each row's nearest two, in place; ties fall to those that are there."""
    first, second = new < gaps[:, 0], new < gaps[:, 1]
    near[:, 1] = np.where(first, near[:, 0], np.where(second, slot, near[:, 1]))
    gaps[:, 1] = np.where(first, gaps[:, 0], np.where(second, new, gaps[:, 1]))
    near[first, 0], gaps[first, 0] = slot, new[first]


def changes_plainly(below: ndarray, state: tuple[Any, ...], changes: ndarray) -> None:
    """Writes `Assignment.changes`, but for rounding, to `changes`."""
    cuts, near, gaps, losses, rooted = state
    size = len(losses)
    for at, line in enumerate(below):
        hits = np.flatnonzero(line < cuts)
        new = np.maximum(line[hits].astype(np.float64), 0)
        first, second = gaps[hits].T
        new = np.minimum(np.sqrt(new) if rooted else new, second)
        own = np.bincount(near[hits, 0], np.maximum(new, first) - second, size + 1)[:size]
        changes[at] = (losses + own).min() + np.minimum(new - first, 0).sum()


@loose_kernel
def _changes(below, state, changes):
    """`changes_plainly`, compiled."""
    cuts, near, gaps, losses, rooted = state
    size = len(losses)
    own, hits = np.empty(size + 1), np.empty(below.shape[1] + 1, np.int64)
    for at in range(len(below)):
        own[:size] = losses
        everyone, count = 0.0, 0
        # Hits are few and at random: gathered without a branch, a candidate takes a third of the time.
        for row in range(below.shape[1]):
            hits[count] = row
            count += below[at, row] < cuts[row]
        for row in hits[:count]:
            new = np.float64(max(below[at, row], np.float32(0)))
            new = min(np.sqrt(new) if rooted else new, gaps[row, 1])
            everyone += min(new - gaps[row, 0], 0.0)
            own[near[row, 0]] += max(new, gaps[row, 0]) - gaps[row, 1]
        changes[at] = own[:size].min() + everyone


@kernel
def square(points, one, other):
    """The squared distance that `Space` compares, but for the root or the half."""
    total = 0.0
    for column in range(points.shape[1]):
        gap = np.float64(points[one, column]) - np.float64(points[other, column])
        total += gap * gap
    return total


@kernel
def _from_one(points, center, rows, squares):
    for at in range(len(rows)):
        squares[at] = square(points, rows[at], center)


@kernel
def _two_nearest(points, rows, medoids, below, scale, near, squares):
    for at in range(len(rows)):
        for slot in range(len(medoids)):
            if below[at, slot] < squares[at, 1]:
                new = scale * square(points, rows[at], medoids[slot])
                if new < squares[at, 0]:
                    near[at, 1], squares[at, 1] = near[at, 0], squares[at, 0]
                    near[at, 0], squares[at, 0] = slot, new
                elif new < squares[at, 1]:
                    near[at, 1], squares[at, 1] = slot, new


def shared(share: Share, work: Callable[[int, int], Any], n: int, each: int) -> None:
    """`work` on 0..n, among threads if it is worth their while at `each` comparisons an item."""
    if n * each < HANDFUL:
        work(0, n)
    else:
        share(work, n)


def _blocks(n: int, each: int) -> list[slice]:
    """0..n cut so that `each` bytes an item stay below 64 MiB a block."""
    step = max(1, BLOCK_BYTES // max(1, each))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
