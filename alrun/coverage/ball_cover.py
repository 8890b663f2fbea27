"""Batches whose balls of one radius cover as many rows as possible."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, nextafter
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, threads
from alrun.coverage.assignment import FLOOR, Space, square
from alrun.coverage.distances import check_moderate
from alrun.graph.points import cuts
from alrun.pool import BLOCK_BYTES

STRIPE = 64  # distances looked at together


class Cover(NamedTuple):
    """Which rows are covered, and how many more the ball of each row would cover."""

    covered: Bool[ndarray, " n"]
    gains: Int64[ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Balls:
    """A ball around each row: all rows at distances, as `Space.distances` gives them, of at most `radius`."""

    space: Space
    radius: float

    @classmethod
    def of(cls, points: Float32[ndarray, "n d"], radius: float) -> "Balls":
        """Balls in the Euclidean distance.

        Raises:
            ValueError: a feature that is no number below 1e15 in size, or a radius that is not at least 0.
        """
        check_moderate(points)
        if not radius >= 0:
            raise ValueError(f"the radius of balls must be at least 0, got {radius}; null finds one")
        return cls(Space.of(points, "euclidean"), radius)

    def __len__(self) -> int:
        return len(self.space)

    def nothing_covered(self) -> Cover:
        """Where covers start from. Takes all n^2 distances, 2 n^2 d flops, and memory for a block of them."""
        return Cover(np.zeros(len(self), bool), self.tally(np.arange(len(self))))

    def covering(self, before: Cover, rows: Int64[ndarray, " b"]) -> Cover:
        """The cover with the balls of these rows too.

        Gains fall by what is newly covered, or are counted anew from what is left where that is less. So
        covering the whole pool takes no more distances than `nothing_covered`, besides the balls' own.
        """
        ball = self.tally(rows) > 0
        new, left = np.flatnonzero(ball & ~before.covered), np.flatnonzero(~ball & ~before.covered)
        gains = before.gains - self.tally(new) if len(new) <= len(left) else self.tally(left)
        return Cover(before.covered | ball, gains)

    def tally(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " n"]:
        """For each row of the pool, how many of these rows lie in its ball.

        Products in float32 decide but for the pairs they leave in doubt, which are compared in float64. So
        neither blocks nor threads change it, nor whether kernels are compiled.
        """
        counts, given = np.zeros(len(self), np.int64), (self.space.points, self._slacks, *self._limits)
        compute = _tally if COMPILED else tally_plainly
        with threads() as share:
            for block in cuts(len(rows), BLOCK_BYTES // (4 * len(self))):
                own, below = rows[block], self.space.below(rows[block])

                def work(start: int, stop: int, own: ndarray = own, below: ndarray = below) -> None:
                    compute(*given, own, below, counts, start, stop)

                share(work, len(self))
        return counts

    @cached_property
    def _limits(self) -> tuple[np.float32, np.float32, float]:
        """Pairs bounded from below by more than the first are apart, from above by the second together."""
        radius = min(self.radius, self.space.ceiling)
        return self.space.cuts(np.array([radius]))[0], np.float32(radius**2 * (1 - 2.0**-20)), radius

    @cached_property
    def _slacks(self) -> Float32[ndarray, " n"]:
        """What `Space.below` and both rows' slacks add up to is at least the squared distance.

        `Space.of` takes (2.1 w + 8) u |y|^2 and a floor off for each row so as to stay below, and rounding
        may take as much again; these are twice both, for their own rounding.
        """
        lifted = self.space.lifted
        sizes = lifted[:, -2].astype(np.float64) + FLOOR
        return ((4 * (2.1 * lifted.shape[1] + 8) * 2.0**-24) * sizes + 4 * FLOOR).astype(np.float32)


def ball_cover(
    balls: Balls, before: Cover, candidates: Int64[ndarray, " m"], size: int
) -> tuple[Int64[ndarray, " b"], Int64[ndarray, " b"], Cover]:
    """The candidates whose balls cover the most rows not yet covered, one by one; how many; the cover then.

    Ties fall to the smaller row. It ends at `size` choices, or where no candidate's ball covers a row more.

    Source: Yehuda et al. 2022, algorithm 1 (ProbCover). Departs: gains are kept up to date instead of a list
    of all edges, so memory is O(n). The authors' code leaves the boundary of balls out, and the last n mod
    500 rows are never chosen; here balls are closed, and all candidates take part.
    """
    rows, gained, cover = np.sort(candidates), [], before
    picks: list[int] = []
    while len(picks) < size and len(rows) and cover.gains[rows].max() > 0:
        best = int(rows[cover.gains[rows].argmax()])
        picks.append(best)
        gained.append(int(cover.gains[best]))
        cover = balls.covering(cover, np.array([best]))
    return np.array(picks, np.int64), np.array(gained, np.int64), cover


def pure_radius(points: Float32[ndarray, "n d"], groups: Int64[ndarray, " n"], purity: float) -> float:
    """The largest radius at which a share of at least `purity` (in (0, 1]) of the balls is pure.

    A ball is pure if all its rows are of one group: as long as its radius is below the distance from its
    center to the nearest stranger. So the result is the last number below one of these distances, and no
    search is needed; without strangers it is larger than all distances.

    Raises:
        ValueError: a feature that is no number below 1e15 in size.
    Source: Yehuda et al. 2022, the choice of delta, where groups are k-means clusters, as many as classes,
    and purity is 0.95. Departs: exact, instead of the best of a few radii.
    """
    check_moderate(points)
    space = Space.of(points, "euclidean")
    gaps = np.sort(stranger_distances(space, groups))
    # 1e-12: 0.55 * 100 is a little above 55.
    gap = float(gaps[len(gaps) - ceil(purity * len(gaps) * (1 - 1e-12))])
    return space.ceiling if gap == inf else nextafter(gap, 0.0)


def stranger_distances(space: Space, groups: Int64[ndarray, " n"]) -> Float64[ndarray, " n"]:
    """Each row's distance to the nearest row of another group, inf where there is none."""
    squares = np.full(len(space), np.inf)
    compute = _strangers if COMPILED else strangers_plainly
    rows = np.arange(len(space))
    with threads() as share:
        for block in cuts(len(space), BLOCK_BYTES // (4 * len(space))):
            own, below, out = rows[block], space.below(rows[block]), squares[block]

            def work(
                start: int, stop: int, own: ndarray = own, below: ndarray = below, out: ndarray = out
            ) -> None:
                compute(space.points, groups, own[start:stop], below[start:stop], out[start:stop])

            share(work, len(own))
    return np.sqrt(squares)


def tally_plainly(
    points: ndarray,
    slacks: ndarray,
    cut: np.float32,
    sure: np.float32,
    radius: float,
    rows: ndarray,
    below: ndarray,
    counts: ndarray,
    start: int,
    stop: int,
) -> None:
    """Adds to the counts of rows `start` to `stop` how many of `rows` are within the radius."""
    part = below[:, start:stop]
    inside = part + slacks[rows][:, None] + slacks[start:stop] <= sure
    one, other = np.nonzero((part <= cut) & ~inside)
    inside[one, other] = np.sqrt(_squares(points, rows[one], other + start)) <= radius
    counts[start:stop] += inside.sum(axis=0)


def strangers_plainly(
    points: ndarray, groups: ndarray, rows: ndarray, below: ndarray, squares: ndarray
) -> None:
    """Writes the squared distances of rows to their nearest strangers."""
    for at, row in enumerate(rows):
        others = np.flatnonzero(groups != groups[row])
        if len(others):
            first = others[below[at, others].argmin()]
            least = float(_squares(points, rows[at : at + 1], np.array([first]))[0])
            near = others[below[at, others] <= least * (1 + 2.0**-22)]
            squares[at] = _squares(points, np.full(len(near), row), near).min(initial=least)


def _squares(points: ndarray, rows: ndarray, others: ndarray) -> Float64[ndarray, " b"]:
    """Squared distances pair by pair, with the bits of `square`."""
    squares = np.zeros(len(rows))
    for column in points.T:
        squares += (column[rows].astype(np.float64) - column[others]) ** 2
    return squares


@kernel
def _tally(points, slacks, cut, sure, radius, rows, below, counts, start, stop):
    """`tally_plainly`, compiled."""
    for at in range(len(rows)):
        row, own = rows[at], slacks[rows[at]]
        for first in range(start, stop, STRIPE):
            last = min(first + STRIPE, stop)
            if _any_at_most(below[at, first:last], cut):
                for other in range(first, last):
                    low = below[at, other]
                    if low <= cut:
                        inside = low + own + slacks[other] <= sure
                        counts[other] += inside or np.sqrt(square(points, row, other)) <= radius


@kernel
def _strangers(points, groups, rows, below, squares):
    """`strangers_plainly`, compiled."""
    for at in range(len(rows)):
        row = rows[at]
        for first in range(0, below.shape[1], STRIPE):
            last = min(first + STRIPE, below.shape[1])
            if _any_at_most(below[at, first:last], squares[at]):
                for other in range(first, last):
                    if below[at, other] < squares[at] and groups[other] != groups[row]:
                        squares[at] = min(squares[at], square(points, row, other))


@kernel
def _any_at_most(below, cut):
    # Counted without a branch, which vector units do: nearly all are above.
    count = 0
    for low in below:
        count += low <= cut
    return count > 0
