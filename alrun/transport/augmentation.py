"""Kernels of exact transport: rows lie in the columns that hold them and move along shortest paths."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from alrun.compiled import kernel

# Rows of the array of parts: position of the row, its column, its units there, the next and last part there.
ROW, COLUMN, UNITS, AFTER, BEFORE = 0, 1, 2, 3, 4
# What `balance` says when it returns.
DONE, FULL, PAUSED = 0, 1, 2
ULP = 2.0**-52


class Residual(NamedTuple):
    """Who holds what, and what moving on would cost; all arrays are changed in place.

    A row that its column wins by a wide gap takes no part until that column's dual has fallen by as much.

    Attributes:
        duals: of columns; they only fall, from `start`.
        surplus: units a column has too many, negative where it lacks some.
        rows: of the costs, each held by one column at first: `members[bounds[j] : bounds[j + 1]]` are the
            positions of column j's rows, and `gaps` by how much the column wins them at the start.
        reach: rows with a gap up to this take part, per column.
        parts: rows or split rows that take part, in a linked list a column, the first in `heads`.
        steps: the least cost of moving any part of column j to column k; `movers` is that part.
        counts: parts, augmentations, columns settled by all searches.
    """

    duals: ndarray
    start: ndarray
    surplus: ndarray
    rows: ndarray
    gaps: ndarray
    members: ndarray
    bounds: ndarray
    reach: ndarray
    parts: ndarray
    heads: ndarray
    steps: ndarray
    movers: ndarray
    counts: ndarray


@kernel
def nearest(costs, duals, rows, least, columns, gaps, start, stop):
    """Writes the least of costs - duals for rows[start:stop], its first column, and the gap to the next."""
    for p in range(start, stop):
        i = rows[p]
        first = np.inf
        second = np.inf
        column = 0
        # Selections, not branches: those cannot be foreseen, and took four times as long at 20 columns.
        for k in range(len(duals)):
            value = costs[i, k] - duals[k]
            nearer = value < first
            other = first if nearer else value
            second = other if other < second else second
            first = value if nearer else first
            column = k if nearer else column
        least[p] = first
        columns[p] = column
        gaps[p] = second - first


@kernel
def spread(costs, duals, rows, least, columns, gaps, loads):
    """Gives rows whose columns tie but for rounding, one by one, to the least loaded of these columns."""
    for p in range(len(rows)):
        i = rows[p]
        best = columns[p]
        if gaps[p] > 2 * ULP * (abs(least[p]) + 2 * abs(duals[best])):
            continue
        for k in range(len(duals)):
            slack = 2 * ULP * (abs(costs[i, k]) + abs(duals[k]))
            if costs[i, k] - duals[k] - least[p] <= slack and loads[k] < loads[best]:
                best = k
        loads[columns[p]] -= 1
        loads[best] += 1
        columns[p] = best


@kernel
def cross(costs, graph, reach, crossings):
    """Counts rows that would go from a column to the next best if its dual fell by `reach`."""
    for j in range(len(graph.duals)):
        for p in graph.members[graph.bounds[j] : graph.bounds[j + 1]]:
            if graph.gaps[p] > reach:
                continue
            i = graph.rows[p]
            least = np.inf
            following = j
            for k in range(len(graph.duals)):
                if k != j and costs[i, k] - graph.duals[k] < least:
                    least = costs[i, k] - graph.duals[k]
                    following = k
            crossings[j, following] += 1


@kernel
def enter(costs, graph, part, column):
    """Puts a part at the head of a column's list, and its row among the column's least moves."""
    parts, steps, movers = graph.parts, graph.steps, graph.movers
    after = graph.heads[column]
    parts[COLUMN, part] = column
    parts[AFTER, part] = after
    parts[BEFORE, part] = -1
    if after >= 0:
        parts[BEFORE, after] = part
    graph.heads[column] = part
    i = parts[ROW, part]
    own = costs[i, column]
    for k in range(len(graph.heads)):
        step = costs[i, k] - own
        if step < steps[column, k]:
            steps[column, k] = step
            movers[column, k] = part


@kernel
def leave(costs, graph, part, column):
    """Takes a part out of a column's list; where it was the least move, looks for the next."""
    parts, steps, movers = graph.parts, graph.steps, graph.movers
    after, before = parts[AFTER, part], parts[BEFORE, part]
    if after >= 0:
        parts[BEFORE, after] = before
    if before >= 0:
        parts[AFTER, before] = after
    else:
        graph.heads[column] = after
    for k in range(len(graph.heads)):
        if movers[column, k] != part:
            continue
        last = steps[column, k]
        least = np.inf
        mover = -1
        other = graph.heads[column]
        while other >= 0:
            i = parts[ROW, other]
            step = costs[i, k] - costs[i, column]
            if step < least:
                least = step
                mover = other
                if step <= last:  # a duplicate: none can be less
                    break
            other = parts[AFTER, other]
        steps[column, k] = least
        movers[column, k] = mover


@kernel
def admit(costs, graph, column, reach, units):
    """Lets the column's rows with a gap up to `reach` take part."""
    for p in graph.members[graph.bounds[column] : graph.bounds[column + 1]]:
        if graph.reach[column] < graph.gaps[p] <= reach:
            part = graph.counts[0]
            graph.parts[ROW, part] = graph.rows[p]
            graph.parts[UNITS, part] = units
            graph.counts[0] += 1
            enter(costs, graph, part, column)
    graph.reach[column] = reach


@kernel
def search(graph, source, distance, parent, settled):
    """Settles columns by reduced distance from the source up to the first that lacks units; how many.

    Negative where no such column can be reached.
    """
    duals, width = graph.duals, len(graph.duals)
    ahead = np.full(width, np.inf)
    distance[:] = np.inf
    distance[source] = 0.0
    column = source
    for count in range(width):
        settled[count] = column
        here = distance[column]
        ahead[column] = np.inf
        if graph.surplus[column] < 0:
            return count + 1
        base = here + duals[column]
        steps = graph.steps[column]
        for k in range(width):
            # Rounding may leave a step a few bits below zero. A settled column is never nearer than `here`.
            reached = max(base + steps[k] - duals[k], here)
            nearer = reached < distance[k]
            distance[k] = reached if nearer else distance[k]
            ahead[k] = reached if nearer else ahead[k]
            parent[k] = column if nearer else parent[k]
        least = np.inf
        for k in range(width):
            if ahead[k] < least:
                least = ahead[k]
                column = k
        if least == np.inf:
            return -count - 1
    return 0


@kernel
def widen(costs, graph, distance, settled, found, slack, units):
    """Lets rows take part that the settled columns might lose by this path; whether there were any."""
    far = distance[settled[found - 1]] if found > 0 else np.inf
    more = False
    for j in settled[: abs(found)]:
        fall = graph.start[j] - graph.duals[j] + far - distance[j] + slack
        if fall > graph.reach[j]:
            admit(costs, graph, j, 2 * fall, units)
            more = True
    return more


@kernel
def twin(graph, row, column):
    """The row's part in a column, -1 if it has none there."""
    part = graph.heads[column]
    while part >= 0 and graph.parts[ROW, part] != row:
        part = graph.parts[AFTER, part]
    return part


@kernel
def shift(costs, graph, parent, source, target, amount, units):
    """Moves units along the path from the source to the target; `units` are a whole row's."""
    graph.surplus[source] -= amount
    graph.surplus[target] += amount
    # From the target back: what a column gets then does not change how it gave.
    k = target
    while k != source:
        j = parent[k]
        part = graph.movers[j, k]
        # Two parts of a row in one column would be moved one by one, and there would be ever more of them.
        other = twin(graph, graph.parts[ROW, part], k) if amount < units else -1
        if graph.parts[UNITS, part] > amount:
            graph.parts[UNITS, part] -= amount
            rest, part = part, graph.counts[0]
            if other < 0:
                graph.parts[ROW, part] = graph.parts[ROW, rest]
                graph.parts[UNITS, part] = amount
                graph.counts[0] += 1
        else:
            leave(costs, graph, part, j)
            if other >= 0:
                graph.parts[UNITS, part] = 0
        if other < 0:
            enter(costs, graph, part, k)
        else:
            graph.parts[UNITS, other] += amount
        k = j


@kernel
def room(graph, parent, source, target):
    """As many units as the path from the source to the target can take."""
    amount = min(graph.surplus[source], -graph.surplus[target])
    k = target
    while k != source:
        amount = min(amount, graph.parts[UNITS, graph.movers[parent[k], k]])
        k = parent[k]
    return amount


@kernel
def balance(costs, graph, units, whole, slack, most):
    """Moves units by shortest paths until no column has too many.

    While `whole`, rows of so many units are moved undivided, also into a column that lacks fewer, and a
    column may keep less than a row too many. Otherwise rows are split as needed; `FULL` if no room is left
    for their parts. `PAUSED` after `most` columns were settled; the next call goes on. Duals are trusted up
    to `slack`.
    """
    width, last = len(graph.duals), graph.counts[2] + most
    distance = np.empty(width)
    parent = np.empty(width, np.int64)
    settled = np.empty(width, np.int64)
    for source in range(width):
        while graph.surplus[source] >= (units if whole else 1):
            free = graph.parts.shape[1] - graph.counts[0]
            if not whole and free < width + len(graph.rows):
                return FULL
            if graph.counts[2] >= last:
                return PAUSED
            found = search(graph, source, distance, parent, settled)
            graph.counts[2] += abs(found)
            if widen(costs, graph, distance, settled, found, slack, units):
                continue
            target = settled[found - 1]
            for j in settled[:found]:
                graph.duals[j] -= distance[target] - distance[j]
            amount = units if whole else room(graph, parent, source, target)
            shift(costs, graph, parent, source, target, amount, units)
            graph.counts[1] += 1
    return DONE
