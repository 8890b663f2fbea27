"""Exact transport of n uniform rows to B uniform columns, with optimal duals."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED
from alrun.transport.augmentation import COLUMN, ROW, UNITS
from alrun.transport.balancing import assigned, balanced, bounded
from alrun.transport.cycles import merged

LARGEST = 1e300  # sums and differences of larger costs overflow
PRECISION = 1e-9  # a certified gap, as a share of the value
FLOOR = 2.0**-44  # and as a share of the largest cost, where the value is almost zero

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Transport:
    """An optimal plan and optimal duals.

    Attributes:
        value: mean cost of the plan.
        gap: value minus what the duals prove, zero but for rounding.
        rows: of the plan's at most n + B - 1 entries, ascending; a row has several where it is split.
        columns: of these entries, ascending within a row.
        units: of these entries; all add up to the least common multiple of n and B.
        row_duals: u_i = min_j c_ij - v_j, exactly as float64 computes it.
        column_duals: v, with mean zero.
        augmentations: shortest paths, on samples of the rows too; 0 from POT.
        solver: `paths` (compiled) or `simplex` (POT).
    """

    value: float
    gap: float
    rows: Int64[ndarray, " m"]
    columns: Int64[ndarray, " m"]
    units: Int64[ndarray, " m"]
    row_duals: Float64[ndarray, " n"]
    column_duals: Float64[ndarray, " b"]
    augmentations: int
    solver: str


def transport(
    costs: Float64[ndarray, "n b"],
    start: Float64[ndarray, " b"] | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Transport:
    """The plan of least mean cost that gives every row mass 1/n and every column mass 1/B, and its duals.

    Exact also where B does not divide n: masses are integers, B / g a row and n / g a column, g = gcd(n, B).
    Equal costs and duplicate rows or columns allow several plans and duals; one of them comes back, the same
    for the same input, whatever the number of threads. `start` (column duals of a similar problem, see
    `relaxed`) changes the time, and which of several optima is found. `watch`, called now and then, may end
    it by an exception. Extra memory O(n + B^2).

    Each row begins at the column of least c_ij - v_j for column duals v that are optimal for a quarter of the
    rows (and theirs, for a sixteenth, ...); what a column has too much of moves along shortest paths. The
    result is certified: its gap is at most 1e-9 of its value (5.7e-14 of the largest cost, if that is more).

    Raises:
        ValueError: fewer rows than columns, costs or duals that are not finite and below 1e300 in size, or
            no certified plan from POT either, which solves again what the paths leave uncertified.
    Source: successive shortest paths (Ahuja, Magnanti, Orlin 1993, section 9.7) on the B columns alone, as
    for semi-discrete transport; ALGORITHMS 3.2. Departs: started from nested samples.
    """
    scale = _scale(costs, start)
    if COMPILED:
        found = _by_paths(np.ascontiguousarray(costs), start, scale, watch)
        if _certain(found, scale):
            return found
        log.warning("transport left a gap of %g at a value of %g; POT solves again", found.gap, found.value)
    found = _by_simplex(costs, scale)
    if not _certain(found, scale):
        raise ValueError(
            f"costs must allow a certified plan, got a gap of {found.gap:g} at a value of {found.value:g}; "
            f"check for costs of very different size (the largest is {scale:g})"
        )
    return found


def relaxed(
    costs: Float64[ndarray, "n b"], swapped: Int64[ndarray, " s"] | Sequence[int], previous: Transport
) -> Float64[ndarray, " b"]:
    """Column duals to start from when some columns of a solved problem have been replaced.

    The old columns keep their duals; each new one, in the order given, gets the dual at which it wins n // B
    rows from all before: an order statistic. Takes O(n) a swapped column.

    Raises:
        ValueError: columns that are out of range or named twice, or a problem of another shape.
    """
    n, width = costs.shape
    if (len(previous.row_duals), len(previous.column_duals)) != (n, width):
        raise ValueError(
            f"duals must be those of a problem of {n} rows and {width} columns, "
            f"got {len(previous.row_duals)} and {len(previous.column_duals)}; solve without a start"
        )
    new = np.asarray(swapped, np.int64)
    if len(np.unique(new)) < len(new) or not ((new >= 0) & (new < width)).all():
        raise ValueError(f"swapped columns must be distinct and in 0..{width - 1}, got {new.tolist()}")
    duals, least = previous.column_duals.copy(), previous.row_duals.copy()
    kept = np.setdiff1d(np.arange(width), new)
    if len(kept) == 0:
        return np.zeros(width)
    left = np.unique(previous.rows[np.isin(previous.columns, new)])
    least[left] = (costs[np.ix_(left, kept)] - duals[kept]).min(axis=1)
    for column in new:
        excess = costs[:, column] - least
        duals[column] = np.partition(excess, n // width)[n // width]
        np.minimum(least, costs[:, column] - duals[column], out=least)
    return duals


def _scale(costs: ndarray, start: ndarray | None) -> float:
    """Size of the largest cost; refuses what is no problem."""
    n, width = costs.shape
    if not 0 < width <= n:
        raise ValueError(f"costs must have a column, and no more columns than rows, got {n} x {width}")
    scale = float(max(abs(costs.min()), abs(costs.max())))
    if not scale < LARGEST:
        row, column = np.argwhere(~(np.abs(costs) < LARGEST))[0]
        raise ValueError(
            f"costs must be finite and below {LARGEST:g} in size, got {costs[row, column]} in row {row}, "
            f"column {column}; check the features"
        )
    if start is not None and (len(start) != width or not (np.abs(start) < LARGEST).all()):
        raise ValueError(f"start must be {width} finite duals, got {start}")
    return scale


def _by_paths(costs: ndarray, start: ndarray | None, scale: float, watch: Callable[[], None]) -> Transport:
    """By shortest paths."""
    n, width = costs.shape
    graph = balanced(costs, None if start is None else bounded(start, scale), np.arange(n), scale, watch)
    duals = graph.duals - graph.duals.mean()
    held = np.repeat(np.arange(width), np.diff(graph.bounds))
    aside = graph.gaps[graph.members] > graph.reach[held]
    rows, columns = graph.members[aside], held[aside]
    units = np.full(len(rows), width // gcd(n, width))
    least = np.empty(n)
    least[rows] = costs[rows, columns] - duals[columns]
    parts = graph.parts[:, : graph.counts[0]]
    parts = parts[:, parts[UNITS] > 0]
    part = graph.members[~aside]
    least[part] = assigned(costs, duals, part)[0]
    rows, columns = np.concatenate([rows, parts[ROW]]), np.concatenate([columns, parts[COLUMN]])
    plan = merged(rows, columns, np.concatenate([units, parts[UNITS]]), n, width)
    return _certificate(costs, plan, least, duals, int(graph.counts[1]), "paths")


def _by_simplex(costs: ndarray, scale: float) -> Transport:
    """By POT's network simplex, on costs of size about 1 (a power of two changes no digit)."""
    import ot  # its import takes seconds, and this is rarely needed

    n, width = costs.shape
    share = gcd(n, width)
    unit = 2.0 ** -np.frexp(scale)[1] if scale else 1.0
    demand = np.full(width, n / share)
    plan, notes = ot.emd(np.full(n, width / share), demand, costs * unit, numItermax=10**8, log=True)
    if notes["warning"] is not None:
        raise ValueError(f"transport must be solved, POT says: {notes['warning']}")
    rows, columns = np.nonzero(np.rint(plan))
    units = np.rint(plan[rows, columns]).astype(np.int64)
    duals = notes["v"] / unit
    duals -= duals.mean()
    least = np.min(costs - duals, axis=1)
    plan = merged(rows, columns, units, n, width)
    return _certificate(costs, plan, least, duals, 0, "simplex")


def _certificate(
    costs: ndarray,
    plan: tuple[ndarray, ndarray, ndarray],
    least: ndarray,
    duals: ndarray,
    paths: int,
    by: str,
) -> Transport:
    """The result with its value and gap."""
    rows, columns, units = plan
    # A sum, not an inner product: those may be added in another order with more threads.
    value = float((costs[rows, columns] * units).sum() / units.sum())
    gap = value - float(least.mean() + duals.mean())
    return Transport(value, gap, rows, columns, units, least, duals, paths, by)


def _certain(found: Transport, scale: float) -> bool:
    """Whether the gap is nothing but rounding."""
    return abs(found.gap) <= max(PRECISION * abs(found.value), FLOOR * scale)
