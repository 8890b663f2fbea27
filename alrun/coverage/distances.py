"""Distances whose bits do not depend on who computes them, and the checks that they are numbers."""

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import kernel

CHUNK = 256  # rows worked on at once: 1 MiB in float64 at 512 features stays in cache
LARGEST = 1e15  # squared distances of larger features might overflow float32


def check_finite(rows: Float32[ndarray, "n w"], name: str) -> None:
    """Refuses numbers that are none.

    Raises:
        ValueError: a value that is no finite number.
    """
    # The extremes hold any NaN, and take no array of flags.
    if not np.isfinite([rows.min(initial=0), rows.max(initial=0)]).all():
        bad = int(np.isfinite(rows).all(axis=1).argmin())
        raise ValueError(
            f"{name} must be finite, got NaN or inf in row {bad}; check the inputs and the training loss"
        )


def check_moderate(points: Float32[ndarray, "n d"]) -> None:
    """Refuses features whose squared distances might not be float32 numbers.

    Raises:
        ValueError: a feature that is no number below 1e15 in size.
    """
    # The extremes hold any NaN, and take no array of flags.
    if not (np.abs([points.min(initial=0), points.max(initial=0)]) < LARGEST).all():
        fine = np.abs(points) < LARGEST
        bad = int(fine.all(axis=1).argmin())
        raise ValueError(
            f"features must be finite and below {LARGEST:g} in size, row {bad} holds "
            f"{points[bad][~fine[bad]][0]}; check the inputs and the training loss"
        )


def check_directed(points: Float32[ndarray, "n d"]) -> None:
    """Refuses rows of zeros, which have no direction that cosines could compare.

    Raises:
        ValueError: a row of zeros.
    """
    if not (directed := points.any(axis=1)).all():
        raise ValueError(
            f"the cosine metric needs rows that are not zero, row {int(directed.argmin())} is; "
            "use strategy.metric=euclidean, or other features"
        )


def squared_distances(
    points: Float32[ndarray, "n d"], rows: Int64[ndarray, " m"], center: ndarray
) -> Float64[ndarray, " m"]:
    """Squared Euclidean distances from these rows to one center (d,), the only ones that are ever compared.

    Squares of differences, all in float64, added up as `folded` does.
    """
    squared, center = np.empty(len(rows)), center.astype(np.float64)
    for start in range(0, len(rows), CHUNK):
        gaps = points[rows[start : start + CHUNK]] - center
        squared[start : start + CHUNK] = folded(gaps * gaps)
    return squared


def folded(terms: Float64[ndarray, "m w"]) -> Float64[ndarray, " m"]:
    """Sums of rows in an order that vector units like, the same wherever they are taken.

    Terms from the middle on are added to those from the first on, until one is left; overwrites them.
    """
    while (width := terms.shape[1]) > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:]
        terms = terms[:, :half]
    return terms[:, 0]


@kernel
def fold(terms):
    """The sum of a row, with the bits of `folded`; overwrites it."""
    width = len(terms)
    while width > 1:
        half = (width + 1) // 2
        for at in range(width - half):
            terms[at] += terms[at + half]
        width = half
    return terms[0]
