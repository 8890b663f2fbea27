"""Transport plans with at most one entry fewer than rows and columns together."""

from itertools import pairwise

import numpy as np
from jaxtyping import Int64
from numpy import ndarray


def merged(
    rows: Int64[ndarray, " m"],
    columns: Int64[ndarray, " m"],
    units: Int64[ndarray, " m"],
    n: int,
    width: int,
) -> tuple[Int64[ndarray, " e"], Int64[ndarray, " e"], Int64[ndarray, " e"]]:
    """The entries of a plan of n rows and `width` columns by row, then column, each pair once.

    At most n + width - 1: where ties have left more, units are shifted along cycles of entries, which changes
    no row's and no column's sum, nor the cost of an optimal plan. Rows of one entry are in no cycle.
    """
    split = np.bincount(rows, minlength=n)[rows] > 1
    keys, place = np.unique(rows[split] * width + columns[split], return_inverse=True)
    few = np.zeros((3, len(keys)), np.int64)
    few[:2] = np.divmod(keys, width)
    np.add.at(few[2], place, units[split])
    if len(rows) - split.sum() + len(keys) > n + width - 1:
        few = _forest(few)
    # Whole rows are many and sorted by place, split ones about as few as columns.
    entry = np.full(n, -1)
    entry[rows[~split]] = np.flatnonzero(~split)
    whole = entry[entry >= 0]
    places = np.searchsorted(rows[whole], few[0])
    kept = [
        np.insert(array[whole], places, some) for array, some in zip((rows, columns, units), few, strict=True)
    ]
    return kept[0], kept[1], kept[2]


def _forest(entries: Int64[ndarray, "3 m"]) -> Int64[ndarray, "3 e"]:
    """Entries (row, column, units) between the same sums whose graph has no cycle."""
    graph: dict[int, dict[int, int]] = {}
    for row, column, amount in entries.T.tolist():
        # Columns are nodes 0, 1, ..., rows are -1, -2, ...
        _add(graph, -1 - row, column, amount)
    rows = sorted((node for node in graph if node < 0), reverse=True)
    kept = [(-1 - row, column, graph[row][column]) for row in rows for column in sorted(graph[row])]
    return np.array(kept, dtype=np.int64).T


def _add(graph: dict[int, dict[int, int]], row: int, column: int, amount: int) -> None:
    """Adds an entry to the forest, and breaks the cycle that it may close."""
    path = _path(graph, column, row)
    _put(graph, row, column, amount)
    # Around the cycle row, column, ..., row entries gain and lose in turn; the new one gains.
    edges = list(pairwise([row, *path]))
    shift = min((graph[a][b] for a, b in edges[1::2]), default=0)
    for place, (a, b) in enumerate(edges):
        _put(graph, a, b, graph[a][b] + (-shift if place % 2 else shift))


def _put(graph: dict[int, dict[int, int]], a: int, b: int, amount: int) -> None:
    """Sets the units between two nodes; none is no edge."""
    for one, other in ((a, b), (b, a)):
        if amount:
            graph.setdefault(one, {})[other] = amount
        else:
            del graph[one][other]


def _path(graph: dict[int, dict[int, int]], start: int, stop: int) -> list[int]:
    """Nodes from start to stop, both included; none if they are in different trees."""
    before = {start: start}
    queue = [start]
    for node in queue:
        for other in graph.get(node, ()):
            if other not in before:
                before[other] = node
                queue.append(other)
    if stop not in before:
        return []
    path = [stop]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]
