"""Leading principal directions of rows that are seen block by block."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk  # pyright: ignore[reportAttributeAccessIssue]

from alrun.graph.points import cuts
from alrun.pool import BLOCK_BYTES

# Wider rows take no covariance matrix: in float64 that of 3,072 pixels has 75 MB, and of 12,288 1.2 GB
WIDEST = 2048
SPARE = 20  # further directions that are carried along, so that the wanted ones settle sooner
ROUNDS = 12  # passes over wide rows at most
SETTLED = 1e-5  # relative change of the variances after which no further pass is made


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows made block by block: `read(part)` gives float32 (b, width) for a slice of 0..count."""

    count: int
    width: int
    read: Callable[[slice], Float32[ndarray, "b d"]]

    @classmethod
    def of(cls, features: "Float32[ndarray, 'n d'] | Rows") -> "Rows":
        """An array or memory map as rows that are read."""
        if isinstance(features, Rows):
            return features
        return cls(features.shape[0], features.shape[1], features.__getitem__)

    def blocks(self) -> Iterator[tuple[slice, Float64[ndarray, "b d"]]]:
        """All rows in float64, by blocks of 16 MiB.

        Raises:
            ValueError: a block of another shape, or a number that is none.
        """
        for part in cuts(self.count, BLOCK_BYTES // 4 // (8 * max(1, self.width))):
            block = self.read(part).astype(np.float64)
            if block.shape != (part.stop - part.start, self.width):
                raise ValueError(
                    f"rows {part.start}..{part.stop - 1} must come as {(part.stop - part.start, self.width)} "
                    f"numbers, got {block.shape}"
                )
            if not np.isfinite(block).all():
                bad = int(np.isfinite(block).all(axis=1).argmin())
                raise ValueError(
                    f"features must be finite, row {part.start + bad} holds NaN or inf; check the inputs and "
                    "the training loss"
                )
            yield part, block


def spectrum(
    rows: Rows, count: int
) -> tuple[Float64[ndarray, " d"], Float64[ndarray, "d k"], Float64[ndarray, " k"]]:
    """Mean, principal directions and variances (divisor n), widest first; at most `count` above zero.

    Up to 2,048 features from the covariance matrix, accumulated about a provisional mean; beyond by
    iterations on a subspace, until variances change by less than 1e-5 of themselves. All in float64, memory
    8 bytes an entry of the matrix (or of count + 20 directions) and some blocks.
    Source: Halko, Martinsson and Tropp 2011, section 4.5, for wide rows.
    """
    if rows.width <= WIDEST:
        mean, matrix = _covariance(rows)
        first = max(0, rows.width - count)
        values, vectors = eigh(
            matrix, lower=True, subset_by_index=[first, rows.width - 1], overwrite_a=True, check_finite=False
        )
        values, vectors = values[::-1], vectors[:, ::-1]
    else:
        mean = _mean(rows)
        values, vectors = _subspace(rows, mean, count)
    # what float64 makes of a rank that is not full
    kept = values > max(0.0, values.max(initial=0)) * rows.width * np.finfo(np.float64).eps
    return mean, np.ascontiguousarray(vectors[:, kept]), values[kept]


def _covariance(rows: Rows) -> tuple[Float64[ndarray, " d"], Float64[ndarray, "d d"]]:
    """The mean and the lower triangle of the covariance matrix, in one pass."""
    about = total = np.zeros(rows.width)
    matrix = np.zeros((rows.width, rows.width), order="F")
    for part, block in rows.blocks():
        if part.start == 0:
            about = block.mean(axis=0)
        block -= about
        total = total + block.sum(axis=0)
        matrix = dsyrk(1.0, block.T, beta=1.0, c=matrix, lower=1, overwrite_c=1)
    shift = total / rows.count
    matrix /= rows.count
    matrix -= np.outer(shift, shift)
    return about + shift, matrix


def _mean(rows: Rows) -> Float64[ndarray, " d"]:
    total = np.zeros(rows.width)
    for _, block in rows.blocks():
        total += block.sum(axis=0)
    return total / rows.count


def _subspace(
    rows: Rows, mean: Float64[ndarray, " d"], count: int
) -> tuple[Float64[ndarray, " k"], Float64[ndarray, "d k"]]:
    """Variances and directions; each pass multiplies the subspace by the covariance matrix."""
    wide = min(count + SPARE, rows.width, rows.count)
    start = np.random.default_rng(0).standard_normal((rows.width, wide))  # any start ends at the same
    basis, values = np.linalg.qr(start)[0], np.zeros(wide)
    vectors = basis
    for _ in range(ROUNDS):
        image, inner = np.zeros_like(basis), np.zeros((wide, wide))
        for _, block in rows.blocks():
            block -= mean
            scores = block @ basis
            image += block.T @ scores
            inner += scores.T @ scores
        before = values
        values, turn = np.linalg.eigh(inner / rows.count)
        values, vectors = values[::-1], basis @ turn[:, ::-1]
        basis = np.linalg.qr(image)[0]
        if (np.abs(values - before)[:count] <= SETTLED * values[:count] + values[0] * 1e-14).all():
            break
    return values[:count], vectors[:, :count]
