"""Greedy k-center: a batch that covers the points."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, loose_kernel
from alrun.coverage.distances import CHUNK, check_finite, fold, squared_distances
from alrun.pool import BLOCK_BYTES

SKETCH = 16  # float32 numbers a point: one cache line
SAMPLE = 4096  # points the axes of the sketch are taken from


def k_center(
    points: Float32[ndarray, "n d"],
    centers: Int64[ndarray, " l"],
    candidates: Int64[ndarray, " m"],
    size: int,
) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    """The candidates farthest from all centers one by one, and their Euclidean distance when chosen.

    Each choice becomes a center. Without any center the first is the candidate closest to the candidates'
    mean, at distance inf. Ties fall to the smaller row; no row is chosen twice, also among duplicates; there
    are at most m choices. Only squared distances as `squared_distances` gives them are compared, so the
    compiled way, which skips most of them, gives the same bits as the plain one.

    Raises:
        ValueError: a coordinate that is no finite number.
    Source: Sener and Savarese 2018, greedy version (ALGORITHMS 6.1).
    """
    check_finite(points, "features")
    points = np.ascontiguousarray(points)
    rows, size = np.sort(candidates), min(size, len(candidates))
    if len(centers) == 0 and size:
        nearest = squared_distances(points, rows, _mean(points, rows)).argmin()
        others, gaps = _chosen(points, rows[[nearest]], np.delete(rows, nearest), size - 1)
        return np.append(rows[nearest], others), np.append(np.inf, gaps)
    return _chosen(points, centers, rows, size)


def _chosen(
    points: ndarray, centers: ndarray, rows: ndarray, size: int
) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    if size == 0:
        return np.empty(0, np.int64), np.empty(0)
    if COMPILED:
        space = _sketched(points, np.concatenate([rows, centers]), _mean(points, rows))
        picks, squared = _pruned(space, _groups(space, len(rows), size), size)
    else:
        picks, squared = _plain(points, centers, rows, size)
    return rows[picks], np.sqrt(squared)


def _plain(
    points: ndarray, centers: ndarray, rows: ndarray, size: int
) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    """Positions chosen and their squared distances; each center is compared with each row."""
    gaps, picks, squared = np.full(len(rows), np.inf), np.empty(size, np.int64), np.empty(size)
    for center in centers:
        np.minimum(gaps, squared_distances(points, rows, points[center]), out=gaps)
    for step in range(size):
        picks[step] = best = gaps.argmax()
        squared[step] = gaps[best]
        np.minimum(gaps, squared_distances(points, rows, points[rows[best]]), out=gaps)
        gaps[picks[: step + 1]] = -np.inf
    return picks, squared


def _mean(points: ndarray, rows: ndarray) -> Float64[ndarray, " d"]:
    total = np.zeros(points.shape[1])
    for start in range(0, len(rows), CHUNK):
        total += points[rows[start : start + CHUNK]].sum(axis=0, dtype=np.float64)
    return total / len(rows)


class _Space(NamedTuple):
    """Candidates, then centers (`rows` of `points`), and sketches of them that bound distances from below.

    A sketch is, times `scale`, a point's first 15 coordinates along orthonormal axes around the mean, and the
    length of what is left. Exact sketches are no farther apart than their points, as the lengths of two
    rests differ by no more than the rests do; `slacks` say how far rounding moved a sketch.
    """

    points: ndarray
    rows: ndarray
    sketches: ndarray
    slacks: ndarray
    scale: float


class _Groups(NamedTuple):
    """Candidates by their nearest center, the one at the largest squared distance (`gaps`) first.

    Each group is a list linked both ways: `heads` of centers, `after` of candidates, -1 at the end, `before`
    of candidates, -1 - group at the start; `centers` are positions in `_Space.rows`. A gap only changes when
    its candidate leaves for a new group.
    """

    gaps: ndarray
    centers: ndarray
    heads: ndarray
    after: ndarray
    before: ndarray


def _sketched(points: ndarray, rows: ndarray, mean: ndarray) -> _Space:
    """Sketches of these rows.

    Rounding, in units of the length of the centered point: sqrt(64 d 2^-53) as the rest is the root of a
    difference of float64 sums, 2^-23 as sketches are kept in float32; 1e-18 of the longest is for underflow.
    """
    axes = _axes(points, rows, mean)
    scale = 2.0 ** -float(np.frexp(max(points.max(), -points.min()))[1])
    sketches, lengths = np.zeros((len(rows), SKETCH), np.float32), np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        here = slice(start, start + CHUNK)
        block = (points[rows[here]] - mean) * scale
        along, squares = block @ axes, np.einsum("nd,nd->n", block, block)
        rest = np.maximum(squares - np.einsum("nh,nh->n", along, along), 0)
        sketches[here, : axes.shape[1]], sketches[here, -1] = along, np.sqrt(rest)
        lengths[here] = np.sqrt(squares)
    slack = np.sqrt(64 * len(mean) * 2.0**-53) + 2.0**-23
    return _Space(points, rows, sketches, (slack * lengths + 1e-18).astype(np.float32), scale)


def _axes(points: ndarray, rows: ndarray, mean: ndarray) -> Float64[ndarray, "d h"]:
    """Orthonormal axes near the leading principal ones: subspace iteration on evenly spread rows."""
    some = points[rows[:: -(-len(rows) // SAMPLE)]] - mean
    axes = some[: min(SKETCH - 1, some.shape[1])].T
    for _ in range(4):
        axes = np.linalg.qr(some.T @ (some @ axes))[0]
    return axes


def _groups(space: _Space, count: int, size: int) -> _Groups:
    """The first `count` rows by the nearest of the others, with room for `size` groups more."""
    centers = np.append(np.arange(count, len(space.rows)), np.full(size, -1))
    gaps, own = np.full(count, np.inf), np.empty(count, np.int64)
    sketches, partners = space.sketches[:count], space.sketches[count:]
    # 1e-5 covers the rounding of 16 products in float32, which is below 2^-17 of both squared lengths.
    sizes, others = (np.einsum("nh,nh->n", z, z) * np.float32(1 - 1e-5) for z in (sketches, partners))
    each = max(1, BLOCK_BYTES // (64 * len(partners)))  # a block of 4 MiB stays in cache
    for start in range(0, count, each):
        block = sketches[start : start + each] @ (-2 * partners.T)
        block += others
        block += sizes[start : start + each, None]
        _settle(space, block, start, gaps, own)
    groups = _Groups(gaps, centers, np.full(len(centers), -1), np.full(count, -1), np.empty(count, np.int64))
    _link(groups, np.arange(count), own)
    return groups


def _link(groups: _Groups, rows: Int64[ndarray, " r"], own: Int64[ndarray, " r"]) -> None:
    """Makes lists of rows, given the group of each, that replace what these groups held."""
    order = np.lexsort((rows, -groups.gaps[rows], own))
    rows, own = rows[order], own[order]
    starts = np.append(True, own[1:] != own[:-1])
    groups.after[rows] = np.append(np.where(starts[1:], -1, rows[1:]), -1)
    groups.before[rows] = np.where(starts, -1 - own, np.append(-1, rows[:-1]))
    groups.heads[own[starts]] = rows[starts]


def _pruned(space: _Space, groups: _Groups, size: int) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    """As `_plain`, given what the groups are before the first choice."""
    picks, squared = np.empty(size, np.int64), np.empty(size)
    room = np.empty(len(groups.gaps), np.int64)
    for step in range(size):
        new = len(groups.heads) - size + step
        firsts = groups.heads[groups.heads >= 0]
        picks[step] = chosen = firsts[np.lexsort((firsts, -groups.gaps[firsts]))[0]]
        squared[step] = groups.gaps[chosen]
        groups.centers[new] = chosen
        # In order of rows: reading them at random takes three times as long where bounds leave many in doubt.
        doubtful = np.sort(room[: _doubtful(space, groups, chosen, room)])
        leaving = doubtful[: _leave(space, groups, chosen, doubtful)]
        if len(leaving):
            _link(groups, leaving, np.full(len(leaving), new))
    return picks, squared


@kernel
def _settle(space, lower, start, gaps, own):
    """Sets nearest centers and gaps of some rows, given lower bounds on squared distances of sketches."""
    count, widest = len(gaps), space.slacks[len(gaps) :].max()
    for at in range(len(lower)):
        one, bounds = start + at, lower[at]
        own[one] = bounds.argmin()
        _nears(space, gaps, one, count + own[one])
        reach = np.sqrt(gaps[one]) * space.scale + space.slacks[one] + widest
        for center in range(len(bounds)):
            if bounds[center] < reach * reach * (1 + 1e-5) and _nears(space, gaps, one, count + center):
                own[one] = center
                reach = np.sqrt(gaps[one]) * space.scale + space.slacks[one] + widest


@kernel
def _doubtful(space, groups, center, found):
    """How many candidates may be nearer to this center, itself a candidate until now, than to their own."""
    # Plain arrays: each use of a tuple's field costs as much as a distance of sketches.
    gaps, heads, after, centers = groups.gaps, groups.heads, groups.after, groups.centers
    sketches, slacks, scale = space.sketches, space.slacks, space.scale
    mine, extra = sketches[center], slacks[center]
    _unlink(groups, center)
    count = 0
    for own in range(len(heads)):
        one = heads[own]
        if one < 0:
            continue
        # Whoever is no farther from its own center than half way to this one is no nearer to this one.
        quarter = 0.25 * _apart(sketches, slacks, scale, centers[own], mine, extra)
        if gaps[one] > quarter:
            other = space.points[space.rows[centers[own]]]
            quarter = (0.25 - 1e-9) * _rough(other, space.points[space.rows[center]])
        while one >= 0 and gaps[one] > quarter:
            if _apart(sketches, slacks, scale, one, mine, extra) < gaps[one]:
                found[count] = one
                count += 1
            one = after[one]
    return count


@kernel
def _leave(space, groups, center, rows):
    """How many of these are nearer to this center than to their own; they come first, out of their groups."""
    count = 0
    for one in rows:
        if _nears(space, groups.gaps, one, center):
            _unlink(groups, one)
            rows[count] = one
            count += 1
    return count


@kernel
def _unlink(groups, one):
    before, after = groups.before[one], groups.after[one]
    if before < 0:
        groups.heads[-1 - before] = after
    else:
        groups.after[before] = after
    if after >= 0:
        groups.before[after] = before


@kernel
def _nears(space, gaps, one, center):
    """Whether a candidate is nearer to this center than its gap says; if so, its gap is set."""
    if _rough(space.points[space.rows[one]], space.points[space.rows[center]]) >= gaps[one] * (1 + 1e-9):
        return False
    gap = _squared(space.points[space.rows[one]], space.points[space.rows[center]])
    if gap >= gaps[one]:
        return False
    gaps[one] = gap
    return True


@kernel
def _squared(row, other):
    """A squared distance with the bits of `squared_distances`."""
    terms = np.empty(len(row))
    for at in range(len(row)):
        gap = np.float64(row[at]) - np.float64(other[at])
        terms[at] = gap * gap
    return fold(terms)


@loose_kernel
def _rough(row, other):
    """A squared distance, its sum in any order: within 1e-11 of the exact one up to 10,000 features."""
    total = 0.0
    for at in range(len(row)):
        gap = np.float64(row[at]) - np.float64(other[at])
        total += gap * gap
    return total


@loose_kernel
def _apart(sketches, slacks, scale, one, mine, extra):
    """A lower bound on a squared distance; 1e-5 is for the rounding of 16 squares in float32."""
    total = np.float32(0)
    for at in range(SKETCH):
        gap = sketches[one, at] - mine[at]
        total += gap * gap
    apart = max(0.0, np.float64(np.sqrt(total)) * (1 - 1e-5) - slacks[one] - extra) / scale
    return apart * apart
