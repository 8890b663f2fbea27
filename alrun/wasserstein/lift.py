"""What each column costs at least at prices of the rows, where a row fills it by its own mass at most."""

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, loose_kernel, threads
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.over import Watch, unwatched

TRIES = 60  # tangents of a concave function of n pieces; five to eight are enough
TINY = 1e-30  # a step from zero; distances that float32 products tell apart from zero are larger
CLOSE = 1e-7  # of the numbers' size, between the best tangent point and what no point can exceed


def lifted(
    ground: Ground,
    prices: Float64[ndarray, " n"],
    size: int,
    columns: Int64[ndarray, " m"],
    *,
    rows: Int64[ndarray, " r"] | None = None,
    starts: Float64[ndarray, " m"] | None = None,
    enough: float = np.inf,
    watch: Watch = unwatched,
) -> tuple[Float64[ndarray, " m"], Float64[ndarray, " m"]]:
    """Of each column the mean of its k = n / size smallest distances less prices, and the largest of these.

    That is the cheapest way to fill a column of mass 1 / size by rows of mass 1 / n; the last value counts in
    part where k is no whole number. In a small pool it is exact but for rounding, else never more than the
    truth, and less by about 1e-5 of the points' sizes. With `rows`, a sample, it is an estimate. `starts`
    (largest values at similar prices) save time; so does `enough`: no value above it is made better. `watch`
    is called between blocks. Takes n m e products, 8 MiB at a time.

    Source: ALGORITHMS 3.3, (B+): lam~. The mean of the k smallest is the largest of t - sum (t - value)+ / k
    over all t, so that any t gives a lower bound.
    """
    if rows is not None:
        prices = prices[rows]
    share = len(prices) / size
    values, largest = np.empty(len(columns)), np.empty(len(columns))
    starts = np.full(len(columns), np.nan) if starts is None else starts
    done = 0
    for part in ground.tiles(columns):
        watch()
        at = slice(done, done + len(part))
        fill = _filled if COMPILED and not ground.is_small else _filled_plainly
        tile = ground.floor(part, rows)

        def work(start: int, stop: int, fill=fill, tile=tile, at=at) -> None:
            fill(tile, prices, share, starts[at], enough, values[at], largest[at], start, stop)

        with threads() as shared:
            shared(work, len(part))
        done = at.stop
    return values, largest


def _filled_plainly(
    tile: ndarray,
    prices: ndarray,
    share: float,
    starts: ndarray,
    enough: float,
    values: ndarray,
    largest: ndarray,
    start: int,
    stop: int,
) -> None:
    """By a partial sort of each column's values."""
    del starts, enough
    whole = int(share)
    for j in range(start, stop):
        costs = tile[j] - prices
        if whole < len(costs):
            costs.partition(whole)
            total = costs[:whole].sum() + (share - whole) * costs[whole]
            largest[j] = costs[whole] if share > whole else costs[:whole].max()
        else:
            total, largest[j] = costs.sum(), costs.max()
        values[j] = total / share


@kernel
def _filled(tile, prices, share, starts, enough, values, largest, start, stop):
    """By tangents of a concave function, see `_peak`."""
    size = np.abs(prices).max()
    for j in range(start, stop):
        row, t = tile[j], starts[j]
        if not t > -np.inf:
            t = row.mean() - prices.mean()
        best, largest[j] = _peak(row, prices, share, t, enough, size)
        values[j] = best - 1e-11 * (abs(best) + size)


@kernel
def _peak(row, prices, share, t, enough, size):
    """The largest value seen of f(t) = t - sum (t - costs)+ / share, and where: the peak, if below `enough`.

    The peak lies between the best points left and right of it; where their tangents meet is the next point.
    """
    value, slope = _tangent(row, prices, share, t)
    if slope > 0:
        step = 1e-3 * max(size, abs(t)) + TINY  # above zero even where all is zero
        left, left_value, left_slope, right = _walked(row, prices, share, t, value, slope, step)
        right_value, right_slope = _tangent(row, prices, share, right)
    else:
        right, right_value, right_slope = t, value, slope
        left = value  # no value is above the peak's place
        left_value, left_slope = _tangent(row, prices, share, left)
    best, at = (left_value, left) if left_value > right_value else (right_value, right)
    for _ in range(TRIES):
        if best > enough or left_slope <= 0 or right_slope >= 0:
            break
        t = (left_slope * left - left_value - right_slope * right + right_value) / (left_slope - right_slope)
        if left_value + left_slope * (t - left) - best <= CLOSE * (abs(best) + size):
            break
        value, slope = _tangent(row, prices, share, t)
        if value > best:
            best, at = value, t
        if slope > 0:
            left, left_value, left_slope = t, value, slope
        else:
            right, right_value, right_slope = t, value, slope
    return best, at


@kernel
def _walked(row, prices, share, left, value, slope, step):
    """By longer and longer steps from a point left of the peak: the last one left of it, one that is not."""
    while True:
        right = left + step
        right_value, right_slope = _tangent(row, prices, share, right)
        if right_slope <= 0:
            return left, value, slope, right
        left, value, slope, step = right, right_value, right_slope, 4 * step


@kernel
def _tangent(row, prices, share, t):
    """Value and slope of t - sum (t - costs)+ / share."""
    total, count = _excess(row, prices, t)
    return t - total / share, 1 - count / share


@loose_kernel
def _excess(row, prices, t):
    """Sum of (t - value)+ over a column's values, and how many are below t."""
    total, count = 0.0, 0
    for i in range(len(row)):
        room = t + prices[i] - row[i]
        total += max(room, 0.0)
        count += np.int64(room > 0)
    return total, count
