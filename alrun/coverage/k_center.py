"""Greedy k-center: a batch that covers the points."""

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.pool import BLOCK_BYTES


def k_center(
    points: Float32[ndarray, "n d"],
    centers: Int64[ndarray, " l"],
    candidates: Int64[ndarray, " m"],
    size: int,
) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    """The candidates farthest from all centers one by one, and their Euclidean distance when chosen.

    Each choice becomes a center. Without any center the first is the candidate closest to the candidates'
    mean, at distance inf. Ties fall to the smaller row; no row is chosen twice, also among duplicates.

    Raises:
        ValueError: a coordinate that is no finite number.
    Source: Sener and Savarese 2018, greedy version (ALGORITHMS 6.1).
    """
    if not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1))[0]
        raise ValueError(f"features must be finite, got NaN or inf in row {bad}; check inputs and training")
    # float64 and centered: distances from inner products lose digits far from the origin.
    origin = points[candidates].mean(axis=0, dtype=np.float64)
    own = points[candidates] - origin
    norms = (own**2).sum(axis=1)
    gaps = np.full(len(own), np.inf)
    each = max(1, BLOCK_BYTES // (8 * max(1, len(own))))
    for start in range(0, len(centers), each):
        block = points[centers[start : start + each]] - origin
        gaps = np.minimum(gaps, _squared(own, norms, block).min(axis=1))
    picks, distances = [], []
    for _ in range(size):
        best = int(gaps.argmax()) if len(centers) or picks else int(norms.argmin())
        picks.append(best)
        distances.append(np.sqrt(gaps[best]))
        gaps = np.minimum(gaps, _squared(own, norms, own[best : best + 1])[:, 0])
        gaps[picks] = -np.inf
    return candidates[picks], np.array(distances)


def _squared(own: ndarray, norms: ndarray, block: ndarray) -> ndarray:
    return np.maximum(norms[:, None] + (block**2).sum(axis=1) - 2 * own @ block.T, 0.0)
