"""How much longer one method must query than another to be as accurate."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from alrun.report.aggregating import Method, Panel


@dataclass(frozen=True)
class Reached:
    """Where a method's mean accuracy first reaches a level: labels, and query seconds up to there."""

    labels: int
    query_seconds: float


@dataclass(frozen=True)
class Ratio:
    """Two methods at the highest accuracy that both reach, over as many seeds as both have.

    `ratio` is the first method's total query seconds over the second's; NaN where the second needs no query,
    the level being reached with the first set already.
    """

    first: str
    second: str
    seeds: int
    accuracy: float
    at: tuple[Reached, Reached]
    ratio: float


def ratios(panel: Panel) -> Iterator[Ratio]:
    """Every ordered pair of a panel's methods that have a seed in common.

    Runs of a seed begin with the same labels, so only seeds that both methods have are counted. A and T are a
    method's mean over these of test accuracy and of total query seconds after each round. The
    level is L = min(max A_first, max A_second), maxima over rounds; what a method needs is T at the first
    round whose A is at least L. Rounds are not interpolated: a query is paid for as a whole. Curves are
    not smoothed: one that falls below L again has reached it all the same.
    """
    for one, other in permutations(panel.methods, 2):
        common = one.seeds & other.seeds
        if not common:
            continue
        first, second = one.of(common), other.of(common)
        level = min(float(mean_accuracy(each).max()) for each in (first, second))
        at = reached(first, level), reached(second, level)
        ratio = at[0].query_seconds / at[1].query_seconds if at[1].query_seconds > 0 else np.nan
        yield Ratio(first.name, second.name, len(common), level, at, float(ratio))


def reached(method: Method, level: float) -> Reached:
    """The first round whose mean accuracy is at least `level`, which one must be."""
    place = int(np.flatnonzero(mean_accuracy(method) >= level)[0])
    return Reached(int(method.labels[place]), float(method.total_query.mean(axis=0)[place]))


def mean_accuracy(method: Method) -> np.ndarray:
    """Test accuracy by label count, the mean over seeds."""
    return method.values("accuracy").mean(axis=0)
