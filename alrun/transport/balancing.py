"""Rows balanced among the columns: good duals to start from, then shortest paths."""

from collections.abc import Callable
from math import gcd, isqrt

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alrun.compiled import threads
from alrun.transport.augmentation import DONE, FULL, ULP, Residual, admit, balance, cross, nearest, spread

GOLDEN = 0.6180339887498949  # its multiples modulo 1 fill an interval evenly, without a period
CROWD = 64  # rows a column from which on the densities between columns can be counted
SPARE = 64  # parts a column beyond two a row, for rows that are split
PACE = 10**8  # steps between columns that are looked at from one call of `watch` to the next: 0.1 s

Watch = Callable[[], None]


def balanced(costs: ndarray, duals: ndarray | None, rows: ndarray, scale: float, watch: Watch) -> Residual:
    """These rows balanced among the columns."""
    graph = _begun(costs, duals, rows, scale, watch)
    n, width = len(rows), costs.shape[1]
    slack = 32 * ULP * (scale + float(np.abs(graph.start).max()))
    units = width // gcd(n, width)
    # Rows that will probably have to move.
    reach = max(np.partition(graph.gaps, _moves(graph))[_moves(graph)], slack)
    for column in range(width):
        admit(costs, graph, column, reach, units)
    for whole in (True, False):
        while (state := balance(costs, graph, units, whole, slack, PACE // width + 1)) != DONE:
            watch()
            if state == FULL:
                graph = graph._replace(parts=np.hstack([graph.parts, np.empty_like(graph.parts)]))
    return graph


def bounded(duals: ndarray, scale: float) -> ndarray:
    """Duals around zero, no farther apart than those of an optimum can be: twice the largest cost."""
    return np.clip(duals - np.median(duals), -2 * scale, 2 * scale)


def _begun(costs: ndarray, duals: ndarray | None, rows: ndarray, scale: float, watch: Watch) -> Residual:
    """These rows at their columns by duals that leave few to move; where there are none, from a sample."""
    n, width = len(rows), costs.shape[1]
    size = n // 4 // width * width
    if duals is not None or size < 4 * width:
        graph = _steered(costs, _held(costs, np.zeros(width) if duals is None else duals, rows), scale)
        if size < 4 * width or _moves(graph) <= isqrt(n * width):
            return graph
    sample = rows[np.sort((np.arange(size) * GOLDEN % 1 * n).astype(np.int64))]
    smaller = balanced(costs, duals, sample, scale, watch)
    watch()
    graph = _steered(costs, _held(costs, smaller.duals, rows), scale)
    graph.counts[1] = smaller.counts[1]
    return graph


def _steered(costs: ndarray, graph: Residual, scale: float) -> Residual:
    """After Newton steps toward equal loads, as long as one at least halves the rows that must move.

    Only where that saves time: a step takes about as long as n / 128 augmentations, and needs enough rows
    between any two columns. Source: Kitagawa, Merigot and Thibert 2019, the Hessian taken from the sample.
    """
    n, width = len(graph.rows), len(graph.duals)
    while n >= CROWD * width and _moves(graph) > n // 128:
        near = min(n - 1, 4 * _moves(graph))
        reach = np.partition(graph.gaps, near)[near]
        crossings = np.zeros((width, width))
        cross(costs, graph, reach, crossings)
        step = _settled(crossings + crossings.T, -graph.surplus / (width // gcd(n, width)))
        better = _held(costs, bounded(graph.duals + 2 * reach * step, scale), graph.rows)
        if 2 * _moves(better) > _moves(graph):
            return min(graph, better, key=_moves)
        graph = better
    return graph


def _settled(rates: Float64[ndarray, "b b"], lack: Float64[ndarray, " b"]) -> Float64[ndarray, " b"]:
    """Changes of duals that let each column win what it lacks, if pairs exchange `rates` per difference.

    Conjugate gradients without BLAS, whose sums depend on the number of threads.
    """
    total = rates.sum(axis=1)
    total += 1e-6 * total.mean() + np.finfo(float).tiny
    step, left = np.zeros_like(lack), lack.copy()
    way = left / total
    size = (left * way).sum()
    for _ in range(50):
        if size <= 0:
            break
        image = total * way - (rates * way).sum(axis=1)
        length = size / (way * image).sum()
        step += length * way
        left -= length * image
        before, size = size, (left * left / total).sum()
        way = left / total + size / before * way
    return step


def _held(costs: ndarray, duals: ndarray, rows: ndarray) -> Residual:
    """Every row at the column of least cost less dual, none taking part yet."""
    n, width = len(rows), len(duals)
    least, columns, gaps = assigned(costs, duals, rows)
    loads = np.bincount(columns, minlength=width)
    spread(costs, duals, rows, least, columns, gaps, loads)
    share = gcd(n, width)
    return Residual(
        duals=duals.copy(),
        start=duals,
        surplus=loads * (width // share) - n // share,
        rows=rows,
        gaps=gaps,
        # Two bytes a column, where that is enough, are sorted by counting.
        members=np.argsort(columns.astype(np.uint16) if width < 2**16 else columns, kind="stable"),
        bounds=np.concatenate([[0], np.cumsum(loads)]),
        reach=np.full(width, -1.0),
        # Most of it is never touched, and so takes no memory.
        parts=np.empty((5, 2 * n + SPARE * width), np.int64),
        heads=np.full(width, -1),
        steps=np.full((width, width), np.inf),
        movers=np.full((width, width), -1),
        counts=np.zeros(3, np.int64),
    )


def _moves(graph: Residual) -> int:
    """Whole rows that must leave their column."""
    n, width = len(graph.rows), len(graph.duals)
    return int(np.maximum(graph.surplus, 0).sum()) // (width // gcd(n, width))


def assigned(costs: ndarray, duals: ndarray, rows: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Of each row the least of costs - duals, its column and the gap to the next."""
    least, gaps = np.empty(len(rows)), np.empty(len(rows))
    columns = np.empty(len(rows), np.int64)
    with threads() as share:
        share(lambda start, stop: nearest(costs, duals, rows, least, columns, gaps, start, stop), len(rows))
    return least, columns, gaps
