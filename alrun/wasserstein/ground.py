"""Distances of a pool by any rows and columns, and what they are at least, without a matrix of them all."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, threads, whole_float32
from alrun.coverage.distances import check_moderate
from alrun.transport.distances import Metric, between, points_of

UNIT = 2.0**-24  # half the spacing of float32 numbers at 1
FLOOR = 1e-30  # squared distances of points of size about 1 that may have underflowed in float32
TILE_BYTES = 2**23  # of distances at once: they stay in cache
EXACT_ROWS = 2048  # up to which all distances are measured exactly: 0.1 s a pass


@dataclass(frozen=True, eq=False)
class Ground:
    """The points (n, e) that `points_of` makes of features, and their metric."""

    points: Float32[ndarray, "n e"]
    metric: Metric

    @classmethod
    def of(cls, features: Float32[ndarray, "n d"], metric: Metric) -> "Ground":
        """The ground that features and a metric span.

        Raises:
            ValueError: a feature that is not finite, or for the Euclidean metric not below 1e15 in size.
        """
        if metric == "euclidean":
            check_moderate(features)
        return cls(points_of(features, metric), metric)

    def __len__(self) -> int:
        return len(self.points)

    def columns(self, columns: Int64[ndarray, " b"]) -> Float64[ndarray, "n b"]:
        """Distances of all rows from these."""
        return between(self.points, self.points[columns], self.metric)

    def between(self, rows: Int64[ndarray, " m"], columns: Int64[ndarray, " b"]) -> Float64[ndarray, "m b"]:
        """Distances of some rows from others."""
        return between(self.points[rows], self.points[columns], self.metric)

    @property
    def is_small(self) -> bool:
        """Whether `floor` gives the distances themselves."""
        return len(self) <= EXACT_ROWS

    def tiles(self, columns: Int64[ndarray, " m"]) -> list[Int64[ndarray, " t"]]:
        """The columns in parts whose distances from all rows take up to 8 MiB."""
        each = max(1, TILE_BYTES // (8 if self.is_small else 4) // len(self))
        return np.array_split(columns, -(-len(columns) // each) or 1)

    def floor(
        self, columns: Int64[ndarray, " t"], rows: Int64[ndarray, " r"] | None = None
    ) -> Float32[ndarray, "t r"] | Float64[ndarray, "t r"]:
        """What the distances of these columns (the first axis here) from these rows, or all, are at least.

        In a small pool they are exact, in float64. Else they are float32 products made less by what rounding
        may have added, so that what is proven from them holds: less than 1e-5 of the points' squared sizes.
        """
        if self.is_small:
            return np.ascontiguousarray(between(self._at(rows), self.points[columns], self.metric).T)
        others = self._centered if rows is None else self._centered[rows]
        kept = self._kept if rows is None else self._kept[rows]
        with whole_float32():
            products = (self._centered[columns] @ others.T).numpy()
        lower = _lowered if COMPILED else _lowered_plainly
        with threads() as share:
            share(
                lambda start, stop: lower(
                    products, self._kept[columns], kept, self.metric == "euclidean", self._shrink, start, stop
                ),
                len(columns),
            )
        return products

    def _at(self, rows: Int64[ndarray, " r"] | None) -> Float32[ndarray, "r e"]:
        return self.points if rows is None else self.points[rows]

    @cached_property
    def _exponent(self) -> int:
        size = float(np.abs(self.points).max(initial=0))
        return int(np.clip(np.frexp(size)[1], -120, 120))

    @property
    def _shrink(self) -> np.float32:
        """By which distances of centered points become those of the points, rounded down for the roots."""
        power = self._exponent if self.metric == "euclidean" else 2 * self._exponent - 1
        return np.float32(2.0**power * (1 - 2.0**-22))

    @cached_property
    def _centered(self) -> torch.Tensor:
        # A power of two changes no digit, and products of points of size 1 neither overflow nor vanish.
        points = np.ldexp(self.points, -self._exponent)
        center = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        return torch.from_numpy(points - center)

    @cached_property
    def _kept(self) -> Float32[ndarray, " n"]:
        """Squared sizes of centered points, less what rounding may add to a squared distance.

        Source: products of `width` terms in any order (Higham 2002, section 3.1), points rounded after
        centering, and the few steps of `_lowered`.
        """
        width = self._centered.shape[1]
        error = width * UNIT / (1 - width * UNIT) + 20 * UNIT
        sizes = np.einsum("ne,ne->n", self._centered.numpy(), self._centered.numpy(), dtype=np.float64)
        return (sizes * (1 - error) - FLOOR).astype(np.float32)


@kernel
def _lowered(products, own, others, root, shrink, start, stop):
    """Makes products[start:stop] what the distances are at least."""
    zero, two = np.float32(0), np.float32(2)
    for j in range(start, stop):
        row, kept = products[j], own[j]
        for i in range(len(row)):
            squared = max(kept + others[i] - two * row[i], zero)
            row[i] = (np.sqrt(squared) if root else squared) * shrink


def _lowered_plainly(
    products: ndarray, own: ndarray, others: ndarray, root: bool, shrink: np.float32, start: int, stop: int
) -> None:
    """As `_lowered`."""
    part = products[start:stop]
    part *= -2
    part += own[start:stop, None] + others
    np.maximum(part, 0, out=part)
    if root:
        np.sqrt(part, out=part)
    part *= shrink
