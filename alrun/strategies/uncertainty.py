"""Uncertainty of class probabilities; the largest comes first, ties fall to the smaller row."""

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from scipy.special import xlogy

from alrun.pool import smallest
from alrun.rounds import Batch


def confidence_gap(probabilities: Float[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """1 - max_c p_c, in [0, 1 - 1/C]. Source: S0 section 6.2 (uncertainty); Lewis and Gale 1994."""
    return 1.0 - probabilities.max(axis=1).astype(np.float64)


def margin(probabilities: Float[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """1 - (p_(1) - p_(2)), the two largest probabilities, in [0, 1]. Source: S0 section 6.2 (margin)."""
    top = np.partition(probabilities.astype(np.float64), -2, axis=1)
    return 1.0 - (top[:, -1] - top[:, -2])


def entropy(probabilities: Float[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """-sum_c p_c log p_c in nats, with 0 log 0 = 0, in [0, log C]. Source: S0 section 6.2 (entropy)."""
    wide = probabilities.astype(np.float64)
    return -xlogy(wide, wide).sum(axis=1)


def largest(rows: Int64[ndarray, " m"], scores: Float64[ndarray, " m"], size: int) -> Batch:
    """The `size` rows with the largest scores, in that order.

    Raises:
        ValueError: a score that is no number.
    """
    chosen = smallest(rows, -scores, size)
    return Batch(rows=chosen, scores=scores[np.searchsorted(rows, chosen)])
