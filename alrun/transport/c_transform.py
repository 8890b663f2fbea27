"""The best duals of all n columns for given duals of the rows, streamed."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, threads, whole_float32
from alrun.pool import BLOCK_BYTES
from alrun.transport.augmentation import ULP
from alrun.transport.distances import Metric, distance

UNIT = 2.0**-24  # half the spacing of float32 numbers at 1
FLOOR = 1e-30  # squared distances of points of size about 1 that may have underflowed in float32
CHUNK = 64  # pairs that a kernel looks at before it asks whether one of them is in question
TILE = 2048


def c_transform(
    points: torch.Tensor,
    row_duals: Float64[ndarray, " n"],
    metric: Metric,
    watch: Callable[[], None] = lambda: None,
    columns: Int64[ndarray, " m"] | None = None,
) -> Float64[ndarray, " m"]:
    """For every row j as a column, min over all rows i of (distance of i and j) - row_duals[i].

    `columns` are those that are asked for, by default all. `points` are those of `points_of` on the device
    that shall do the work. The distances are those of `costs`: exact float64 minima come back, the same bits
    on every device and number of threads. Time n^2 d / 2 at the most (n m d for m of n columns), float32
    matrix products; extra memory a few tiles of 2048 x 2048.

    As i = j is among the rows and no distance is negative, only rows of larger dual can lower a column's
    minimum, so that half of all pairs are never looked at. For the others a float32 product says what the
    squared distance is at least; only pairs that may be less than the least so far are measured exactly.
    `watch`, called between tiles, may end it by an exception.

    Raises:
        ValueError: duals that are not finite, or not one for each point.
    Source: ALGORITHMS 3.2 (lam). For the Euclidean metric and duals that are minima over columns themselves
    `metric_transform` gives almost as much without looking at pairs.
    """
    if row_duals.shape != (len(points),) or not np.isfinite(row_duals).all():
        raise ValueError(
            f"row duals must be {len(points)} finite numbers, got {len(row_duals)} from "
            f"{row_duals.min()} to {row_duals.max()}"
        )
    columns = np.arange(len(points)) if columns is None else columns
    search = _Search(points, row_duals, metric, columns)
    for targets in _cuts(len(columns)):
        for sources in _cuts(len(points)):
            if -search.duals[sources.start] >= search.least[targets].max():
                break
            watch()
            search.compare(targets, sources)
    found = np.empty(len(columns))
    found[search.turn] = search.least
    return found


def metric_transform(
    row_duals: Float64[ndarray, " n"], column_duals: Float64[ndarray, " b"], largest: float, width: int
) -> Float64[ndarray, " n"]:
    """At most the c-transform, and less by rounding only: -row_duals, for Euclidean costs and optimal duals.

    With u_i = min_k d(i, k) - v_k the triangle inequality gives d(i, j) - u_i >= d(i, j) - d(i, k) + v_k >=
    v_k - d(j, k) = -u_j for the column k that is least for j, and i = j attains it. Computed distances of
    points of `width` features, `largest` at most, are off by (width + 4) / 2 units in the last place; three
    distances, two duals and their differences enter.
    """
    sizes = 3 * largest + 2 * float(np.abs(row_duals).max() + np.abs(column_duals).max())
    return -row_duals - (width + 16) * ULP * sizes


class _Search:
    """The least so far, for columns in the order of falling duals; the rows stand in that order, too."""

    def __init__(
        self,
        points: torch.Tensor,
        row_duals: Float64[ndarray, " n"],
        metric: Metric,
        columns: Int64[ndarray, " m"],
    ):
        self.points, self.root = points, metric == "euclidean"
        self.order = np.argsort(-row_duals, kind="stable")
        self.duals = row_duals[self.order]
        self.turn = np.argsort(-row_duals[columns], kind="stable")
        self.own = columns[self.turn]
        self.least = -row_duals[self.own]
        # A power of two, so that products neither overflow nor vanish; scaling by it changes no digit.
        size = max((float(points[rows].abs().max()) for rows in _cuts(len(points))), default=0.0)
        self.scale = 2.0 ** -float(np.clip(np.frexp(size)[1], -120, 120))
        center = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
        for rows in _cuts(len(points)):
            center += (points[rows] * self.scale).sum(dim=0, dtype=torch.float64)
        self.center = (center / max(1, len(points))).float()
        width = points.shape[1]
        # Squared distances from products are too large by at most this share of both squared norms: products
        # of `width` terms in any order (Higham 2002, section 3.1) and points rounded after centering.
        self.error = width * UNIT / (1 - width * UNIT) + 8 * UNIT
        sizes = np.concatenate([self._kept(rows) for rows in _cuts(len(points))])
        self.kept = sizes[self.order]
        self.own_kept = sizes[self.own]

    def compare(self, targets: slice, sources: slice) -> None:
        """Lowers the least of the targets to what the sources give."""
        with whole_float32():
            products = self._centered(self.own[targets]) @ self._centered(self.order[sources]).T
        lower = self._lower if COMPILED and self.points.device.type == "cpu" else self._lower_plainly
        lower(products, targets, sources)

    def _centered(self, rows: Int64[ndarray, " r"]) -> torch.Tensor:
        return self.points[torch.from_numpy(rows).to(self.points.device)] * self.scale - self.center

    def _kept(self, at: slice) -> ndarray:
        """Squared norms of rows, less what rounding may add to a squared distance."""
        rows = np.arange(at.start, at.stop)
        sizes = self._centered(rows).double().square().sum(dim=1).cpu().numpy()
        return sizes * (1 - self.error) - FLOOR

    def _lower(self, products: torch.Tensor, targets: slice, sources: slice) -> None:
        points, tile = self.points.numpy(), products.numpy()
        own, theirs = self.own[targets], self.order[sources]
        kept, other_kept = self.own_kept[targets], self.kept[sources]
        least, duals = self.least[targets], self.duals[sources]

        def work(start: int, stop: int) -> None:
            _lowered(
                points, tile, own, theirs, kept, other_kept, least, duals, self.scale, self.root, start, stop
            )

        with threads() as share:
            share(work, len(own))

    def _lower_plainly(self, products: torch.Tensor, targets: slice, sources: slice) -> None:
        """As `_lowered`, in torch."""
        device = products.device
        least, duals, kept, other_kept = (
            torch.from_numpy(array).to(device)
            for array in (
                *(self.least[targets], self.duals[sources]),
                *(self.own_kept[targets], self.kept[sources]),
            )
        )
        bound = least[:, None] + (duals + 4 * ULP * (least.abs().max() + duals.abs().max()))
        bound *= self.scale
        bound *= bound if self.root else 2 * self.scale
        gaps = products.double().mul_(-2).add_(kept[:, None]).add_(other_kept)
        doubt = (gaps <= bound).logical_and_(-duals < least[:, None])
        pairs = doubt.nonzero()
        own, theirs = (torch.from_numpy(rows).to(device) for rows in (self.own[targets], self.order[sources]))
        for some in pairs.split(max(1, BLOCK_BYTES // (8 * self.points.shape[1] + 8))):
            squared = _squared(self.points[own[some[:, 0]]], self.points[theirs[some[:, 1]]])
            # NumPy's square root is rounded correctly everywhere, torch's is not.
            values = distance(squared.cpu().numpy(), "euclidean" if self.root else "cosine")
            mine, other = some.cpu().numpy().T
            np.minimum.at(self.least[targets], mine, values - self.duals[sources][other])


def _squared(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Squared distances of pairs of points, summed in the order of the features."""
    sums = torch.zeros(len(one), dtype=torch.float64, device=one.device)
    for f in range(one.shape[1]):
        gap = one[:, f].double() - other[:, f].double()
        # Two steps: a fused multiply-add would round once instead of twice.
        sums += gap * gap
    return sums


@kernel
def _lowered(points, tile, own, theirs, kept, other_kept, least, duals, scale, root, start, stop):
    """Lowers the least of own[start:stop] to distance - dual of any of the others."""
    for j in range(start, stop):
        for first in range(0, len(theirs), CHUNK):
            if -duals[first] >= least[j]:
                break
            some = slice(first, min(first + CHUNK, len(theirs)))
            size = abs(least[j]) + max(abs(duals[first]), abs(duals[some.stop - 1]))
            room = least[j] + 4 * ULP * size
            if not _doubtful(tile[j, some], other_kept[some], duals[some], kept[j], room, scale, root):
                continue
            for i in range(first, some.stop):
                bound = (room + duals[i]) * scale
                bound *= bound if root else 2 * scale
                near = kept[j] + other_kept[i] - 2 * tile[j, i] <= bound
                if near and -duals[i] < least[j]:
                    least[j] = min(least[j], _gap(points[own[j]], points[theirs[i]], root) - duals[i])


@kernel
def _doubtful(products, kept, duals, own_kept, room, scale, root):
    """Whether any of these distances may be less than room + dual."""
    doubt = 0
    # Slices and no early end: so the loop is done four pairs at a time.
    for i in range(len(products)):
        bound = (room + duals[i]) * scale
        bound *= bound if root else 2 * scale
        doubt |= np.int64(own_kept + kept[i] - 2 * products[i] <= bound)
    return doubt > 0


@kernel
def _gap(one, other, root):
    """Distance of two points, summed in the order of the features."""
    total = 0.0
    for f in range(len(one)):
        gap = np.float64(one[f]) - np.float64(other[f])
        total += gap * gap
    return np.sqrt(total) if root else total / 2


def _cuts(n: int) -> list[slice]:
    return [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
