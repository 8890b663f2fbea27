"""Kernels of the ascent: how far columns are filled by rows below their thresholds."""

import numpy as np
from numpy import ndarray

from alrun.compiled import kernel, loose_kernel


@kernel
def fills(tile, prices, thresholds, chosen, found, start, stop):
    """Takes from found[start:stop] the number of chosen columns that these rows fill."""
    for column in chosen:
        row, t = tile[column], thresholds[column]
        for i in range(start, stop):
            found[i] -= np.float64(row[i] - prices[i] < t)


def fills_plainly(
    tile: ndarray,
    prices: ndarray,
    thresholds: ndarray,
    chosen: ndarray,
    found: ndarray,
    start: int,
    stop: int,
) -> None:
    """As `fills`."""
    for column in chosen:
        found[start:stop] -= tile[column, start:stop] - prices[start:stop] < thresholds[column]


@loose_kernel
def excesses(tile, prices, thresholds, sums, counts, start, stop):
    """Of each column the sum of (threshold + price - distance)+, and how many of these are positive."""
    for j in range(start, stop):
        row, t = tile[j], thresholds[j]
        total, count = np.float32(0), np.float32(0)
        for i in range(len(row)):
            room = t + prices[i] - row[i]
            total += max(room, np.float32(0))
            count += np.float32(room > 0)
        sums[j], counts[j] = total, count


def excesses_plainly(
    tile: ndarray, prices: ndarray, thresholds: ndarray, sums: ndarray, counts: ndarray, start: int, stop: int
) -> None:
    """As `excesses`."""
    for j in range(start, stop):
        room = thresholds[j] + prices - tile[j]
        sums[j], counts[j] = np.maximum(room, 0).sum(), (room > 0).sum()
