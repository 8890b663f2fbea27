"""The nearest free pool points of synthetic ones: with and without replacement."""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from alrun.coverage.distances import check_moderate
from alrun.retrieval.inverted import Inverted
from alrun.retrieval.scan import CPU, Scan
from alrun.retrieval.sweep import Nearest

FIRST = 4  # neighbors of each query that are found at first; more than one or two are rarely taken by others
ENTRIES = 2**22  # of the lists that are made anew at once
Index = Literal["auto", "exact", "ivf"]


@runtime_checkable
class Finder(Protocol):
    """What finds the nearest free points: `Scan` all of them, `Inverted` nearly all."""

    points: ndarray

    @property
    def notes(self) -> dict[str, float]:
        """Its recall, and what it was reached with."""
        ...

    def nearest(self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"], count: int) -> Nearest:
        """The `count` nearest free points of each query by (squared distance, row)."""
        ...


@dataclass(frozen=True)
class Retrieval:
    """How pool points are found: exactly up to `exact_rows` rows (`auto`), by an inverted file beyond.

    An inverted file that finds the nearest point of fewer than a share `min_recall` of its probe is refused.
    """

    index: Index
    exact_rows: Annotated[int, Ge(1)]
    min_recall: Annotated[float, Gt(0), Le(1)]

    def over(
        self,
        points: Float32[ndarray, "n d"],
        device: torch.device = CPU,
        probe: Float32[ndarray, "p d"] | None = None,
    ) -> "NearestFree":
        """The index over these points, an array or a memory map; they are read and not copied.

        Args:
            points: the rows of the pool.
            device: where products are taken; an inverted file works on the CPU.
            probe: queries like those to come, on which an inverted file's recall is measured; without them
                points look for their nearest other one.

        Raises:
            ValueError: no points, a number that is none or not below 1e17 in size, or too low a recall.
        """
        scan = Scan(points, device)
        exact = len(points) <= self.exact_rows if self.index == "auto" else self.index == "exact"
        exact = exact or points.shape[1] == 0  # no cells without features
        return NearestFree(scan if exact else Inverted(scan, self.min_recall, probe))


class NearestFree:
    """Nearest points among those still free; ties fall to the smaller row.

    Distances are Euclidean and compared as sums in float64. By a `Scan` the answers are exact, by an
    `Inverted` file as good as its recall.
    """

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    @property
    def notes(self) -> dict[str, float]:
        """`recall`: the share of nearest points found, 1 where exact; and what it was reached with."""
        return self._finder.notes

    def nearest(
        self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"], count: int
    ) -> tuple[Int64[ndarray, "q {count}"], Float64[ndarray, "q {count}"]]:
        """The `count` nearest free points of each query by (distance, row), and these distances.

        Two queries may have the same neighbors.

        Raises:
            ValueError: queries that do not fit or are no numbers, or fewer free points than `count`.
        """
        self._check(queries, free, count, "neighbors")
        found = self._finder.nearest(queries, free, count)
        return found.rows, np.sqrt(found.gaps)

    def take(self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"]) -> Int64[ndarray, " q"]:
        """For each query in order the nearest free point that no query before it took.

        Equals the greedy loop over all points: lists of a few neighbors decide nearly all queries, and where
        a list ran out it is made anew, longer, among what is still free. `free` is left as it is.

        Raises:
            ValueError: queries that do not fit or are no numbers, or more of them than free points.
        Source: S4, section 3.2 and algorithm 1. Departs: a mask of free points in place of k = 1, 2, 4, ...
        """
        self._check(queries, free, len(queries), "queries")
        choice, wanted, width = _Choice(len(queries), free), np.arange(len(queries)), FIRST
        while len(wanted):
            width = min(width, len(queries) - choice.decided)
            found = self._finder.nearest(queries[wanted], choice.free, width)
            width *= 4
            wanted = choice.decide(wanted, found.rows)[: max(1, ENTRIES // width)]
        return choice.rows

    def _check(
        self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"], wanted: int, what: str
    ) -> None:
        n, d = self._finder.points.shape
        if queries.shape[1] != d or len(free) != n:
            raise ValueError(
                f"{n} points of {d} features need queries of {d} features and {n} flags of what is free, got "
                f"{queries.shape[1]} and {len(free)}; project queries as the points were"
            )
        check_moderate(queries)
        if wanted > (left := np.count_nonzero(free)):
            raise ValueError(
                f"{wanted} {what} were asked for and {left} of {n} points are free; ask for {left} at most"
            )


class _Choice:
    """The greedy choice while it is made: rows, what is still free, and each query's list."""

    def __init__(self, queries: int, free: Bool[ndarray, " n"]) -> None:
        self.rows, self.free, self.decided = np.full(queries, -1), free.copy(), 0
        self.lists: list[list[int]] = [[] for _ in range(queries)]

    def decide(self, wanted: Int64[ndarray, " w"], found: Int64[ndarray, "w m"]) -> Int64[ndarray, " s"]:
        """Takes in these lists and decides queries in order up to the first whose list ran out.

        Returns those that ran out: the first, and what would have if it took nothing.
        """
        for query, rows in zip(wanted.tolist(), found.tolist(), strict=True):
            self.lists[query] = rows
        short: list[int] = []
        taken: set[int] = set()
        for query in range(self.decided, len(self.rows)):
            row = next((row for row in self.lists[query] if self.free[row] and row not in taken), None)
            if row is None:
                short.append(query)
            elif short:
                taken.add(row)
            else:
                self.rows[query], self.free[row] = row, False
                self.lists[query], self.decided = [], query + 1
        return np.array(short, np.int64)
