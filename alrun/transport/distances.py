"""Costs between rows: distances in float64, summed feature by feature, in one order on every path."""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, threads
from alrun.pool import BLOCK_BYTES

Metric = Literal["euclidean", "cosine"]


def costs(
    features: Float32[ndarray, "n d"], columns: Int64[ndarray, " b"], metric: Metric
) -> Float64[ndarray, "n b"]:
    """Distances from all rows to the rows `columns`.

    Euclidean: the square root of the sum of squared differences, added in float64 in the order of the
    features. Cosine: 1 - cos as half that sum between unit rows in float32, so in [0, 2] but for rounding. A
    zero row has no direction and counts as orthogonal: at 1 from every other row, at 0 from other zero rows.
    So a row is at 0 from itself and its duplicates, exactly, and distances are symmetric to the last bit.
    Extra memory: one copy of the features for cosine.

    Raises:
        ValueError: a feature that is not finite, or columns that are no rows.
    """
    if len(columns) and not ((columns >= 0) & (columns < len(features))).all():
        bad = columns[(columns < 0) | (columns >= len(features))][0]
        raise ValueError(f"columns must be rows 0..{len(features) - 1}, got {bad}")
    points = points_of(features, metric)
    return between(points, points[columns], metric)


def between(
    points: Float32[ndarray, "m e"], targets: Float32[ndarray, "b e"], metric: Metric
) -> Float64[ndarray, "m b"]:
    """As `costs`, between points that `points_of` made."""
    across = np.ascontiguousarray(targets.T, dtype=np.float64)
    found = np.empty((len(points), len(targets)))
    fill = _fill if COMPILED else _fill_plainly
    with threads() as share:
        share(
            lambda start, stop: fill(points, across, metric == "euclidean", found, start, stop), len(points)
        )
    return found


def points_of(features: Float32[ndarray, "n d"], metric: Metric) -> Float32[ndarray, "n e"]:
    """Rows whose squared Euclidean distances the metric is made of: for cosine unit rows.

    Zero rows, if any, then share one further axis (e = d + 1).

    Raises:
        ValueError: a feature that is not finite.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    if not np.isfinite(norms).all():
        bad = np.flatnonzero(~np.isfinite(norms))[0]
        wrong = features[bad][~np.isfinite(features[bad])][0]
        raise ValueError(
            f"features must be finite, row {bad} holds {wrong}; check the inputs and the training loss"
        )
    if metric == "euclidean":
        return np.ascontiguousarray(features)
    zero = norms == 0
    unit = np.empty((len(features), features.shape[1] + bool(zero.any())), np.float32)
    unit[:, features.shape[1] :] = zero[:, None]
    np.divide(
        features, np.where(zero, 1, norms)[:, None], out=unit[:, : features.shape[1]], casting="same_kind"
    )
    return unit


def distance(squared: Float64[ndarray, "*s"], metric: Metric) -> Float64[ndarray, "*s"]:
    """What the metric makes of squared Euclidean distances between points."""
    return np.sqrt(squared) if metric == "euclidean" else squared / 2


@kernel
def _fill(points, targets, root, found, start, stop):
    """Distances of points[start:stop] from the targets, one a column."""
    for i in range(start, stop):
        sums = found[i]
        sums[:] = 0.0
        for f in range(points.shape[1]):
            own = np.float64(points[i, f])
            for k in range(targets.shape[1]):
                gap = own - targets[f, k]
                sums[k] += gap * gap
        for k in range(targets.shape[1]):
            sums[k] = np.sqrt(sums[k]) if root else sums[k] / 2


def _fill_plainly(
    points: ndarray, targets: ndarray, root: bool, found: ndarray, start: int, stop: int
) -> None:
    """As `_fill`."""
    each = max(1, BLOCK_BYTES // (16 * targets.shape[1] + 1))
    for first in range(start, stop, each):
        block = points[first : min(first + each, stop)]
        sums = np.zeros((len(block), targets.shape[1]))
        for f in range(points.shape[1]):
            gaps = block[:, f, None].astype(np.float64) - targets[f]
            gaps *= gaps
            sums += gaps
        found[first : first + len(block)] = distance(sums, "euclidean" if root else "cosine")
