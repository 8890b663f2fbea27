"""Label diffusion: values spread over a graph while labeled rows stay clamped.

Below, `walk` is the row-stochastic M (n, n) of `kernels.transition` and A the set of clamped rows. With +1 or
-1 on A and zero elsewhere at the start, the values are chi_ic = 2 p_ic - a_i, where p_ic is the chance that
the walk from i is absorbed in A at class c within T steps, and a_i = sum_c p_ic.

Source: S0 sections 4.1 and 4.3; the exact incremental update is ALGORITHMS 1.6.
"""

from copy import copy

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int16, Int64
from numpy import ndarray
from scipy.sparse import csr_array

from alrun.compiled import COMPILED, kernel
from alrun.graph.walk import Walk

# Finding and recomputing more than these shares of edges and rows costs more than a full step (measured).
EDGES_SHARE = 0.4
ROWS_SHARE = 0.7
# Values of more bytes leave the cache; from so many clamps on an order by locality repays at an eighth of it.
CACHED_BYTES = 8 << 20
OFTEN = 20


def clamp_values(labels: Int64[ndarray, " b"], classes: int) -> Float64[ndarray, "b c"]:
    """+1 for a row's own class, -1 for the others.

    Raises:
        ValueError: a label outside 0..classes-1.
    """
    if (wrong := labels[(labels < 0) | (labels >= classes)]).size:
        raise ValueError(
            f"labels to clamp must be in 0..{classes - 1}, got {wrong[0]}; clamp labeled rows only"
        )
    return 2.0 * np.eye(classes)[labels] - 1.0


def diffuse(
    walk: csr_array, start: Float64[ndarray, "n c"], clamped: Bool[ndarray, " n"], steps: int
) -> Float64[ndarray, "n c"]:
    """chi^(T): `steps` times chi <- M chi, with clamped rows reset to their start after each step.

    The plain definition, kept as the reference of `Diffusion`. Source: S0 section 4.3.
    """
    values = start.copy()
    for _ in range(steps):
        values = walk @ values
        values[clamped] = start[clamped]
    return values


def reached(walk: csr_array, clamped: Bool[ndarray, " n"], steps: int) -> Bool[ndarray, " n"]:
    """Rows from which the walk comes to a clamped row within `steps` steps, clamped rows included.

    A matter of edges, never of chi = 0: between two classes values cancel to 0 in rows that are reached.
    """
    found = clamped.copy()
    for _ in range(steps):
        found |= walk @ found.astype(np.float64) > 0
    return found


def walk_for(matrix: csr_array, columns: int, updates: int, dtype: np.dtype) -> Walk:
    """M for diffusions of `columns` columns of values, float32 or float64, on the CPU.

    `updates` is how many clamps are expected: more repay an order of rows that keeps neighbors close, which
    is private and changes no bit.
    """
    size = (len(matrix.indptr) - 1) * columns * dtype.itemsize
    ordered = size > (CACHED_BYTES if updates < OFTEN else CACHED_BYTES // 8)
    kind = torch.float32 if dtype == np.float32 else torch.float64
    return Walk(matrix, kind, torch.device("cpu"), ordered)


class Diffusion:
    """Diffused values for every number of steps 0..T, updated exactly when rows are clamped.

    Holds T + 1 slices (n, c) of the start's type, float32 or float64, so that shorter diffusions (B.3) cost
    nothing. A clamp computes anew the rows that have a changed row among their neighbors, slice by slice,
    each as a full step would: incremental and full diffusion give the same bits, whatever the order of
    clamps. `hops` (n,) is the fewest steps by which the walk comes to a clamped row: 0 on clamped rows, T + 1
    where there is none within T. The walk may come from `walk_for`, where `updates` is said, and be shared.

    Source: ALGORITHMS 1.6. Departs: rows are recomputed instead of changes added up, so nothing drifts and
    float32 needs no refresh; a row that comes out as it was is not followed further.
    """

    def __init__(
        self,
        walk: csr_array | Walk,
        start: Float[ndarray, "n c"],
        clamped: Bool[ndarray, " n"],
        steps: int,
        updates: int = 0,
    ) -> None:
        self.steps, self.dtype = steps, start.dtype
        self._walk = walk if isinstance(walk, Walk) else walk_for(walk, start.shape[1], updates, start.dtype)
        self._row_of, self._place_of = self._walk.row_of, _inverse(self._walk.row_of)
        order = slice(None) if self._row_of is None else self._row_of
        self._clamped = clamped[order].copy()
        self._slices = [torch.from_numpy(start[order].copy())]
        self._changed: list[Int64[ndarray, " r"] | None] = []
        self._hops = np.full(len(start), steps + 1, np.int16)
        self._in_full(1)
        self._shorten(np.flatnonzero(self._clamped))

    def __len__(self) -> int:
        return len(self._walk)

    def copy(self) -> "Diffusion":
        """Another diffusion that goes on from here; the two share the walk alone."""
        other = copy(self)
        other._clamped, other._hops = self._clamped.copy(), self._hops.copy()
        other._slices, other._changed = [values.clone() for values in self._slices], list(self._changed)
        return other

    @property
    def hops(self) -> Int16[ndarray, " n"]:
        """Steps to the nearest clamped row, at most T + 1."""
        return self._hops if self._place_of is None else self._hops[self._place_of]

    def values(self, steps: int) -> Float[ndarray, "n c"]:
        """chi^(steps) for 0..T, to be read only."""
        values = self._slices[steps].numpy()
        return values if self._place_of is None else values[self._place_of]

    def at(self, rows: Int64[ndarray, " r"], steps: int) -> Float[ndarray, "r c"]:
        """chi^(steps) of these rows, for 0..T."""
        return self._slices[steps].numpy()[self._placed(rows)]

    def reached(self, steps: int) -> Bool[ndarray, " n"]:
        """Rows from which a clamped row is at most `steps` (0..T) steps away, clamped rows included."""
        return self.hops <= steps

    def unreached(self, steps: int) -> Int64[ndarray, " u"]:
        """The rows from which no clamped row is at most `steps` (0..T) steps away, ascending."""
        places = np.flatnonzero(self._hops > steps)
        return places if self._row_of is None else np.sort(self._row_of[places])

    def changed(self, steps: int) -> Int64[ndarray, " r"] | None:
        """The rows whose chi^(steps) the last clamp changed; None where any may have."""
        places = self._changed[steps]
        return places if places is None or self._row_of is None else self._row_of[places]

    def clamp(self, rows: Int64[ndarray, " q"], values: Float[ndarray, "q c"]) -> None:
        """Clamps distinct rows; only what can have changed is computed anew.

        Once that would be more than a set share of all rows or edges, this slice and all later ones are
        made in full: the choice depends on counts alone, and both ways give the same bits.
        """
        places, tied = self._placed(rows), torch.from_numpy(values).to(self._slices[0].dtype)
        self._shorten(places)
        self._clamped[places] = True
        moved = self._put(0, places, tied)
        self._changed = [moved]
        for step in range(1, self.steps + 1):
            if self._walk.edges_into(moved) > EDGES_SHARE * len(self._walk.columns):
                return self._in_full(step)
            near = self._walk.into(moved, self._clamped)
            if len(near) > ROWS_SHARE * len(self):
                return self._in_full(step)
            fresh = self._put(step, near, self._walk.step_of(near, self._slices[step - 1]))
            moved = np.concatenate([fresh, self._put(step, places, tied)])
            self._changed.append(moved)
        return None

    def _in_full(self, first: int) -> None:
        """Makes the slices from `first` on by full steps."""
        tied = torch.from_numpy(np.flatnonzero(self._clamped))
        del self._slices[first:], self._changed[first:]
        for _ in range(first, self.steps + 1):
            after = self._walk.step(self._slices[-1])
            self._slices.append(after.index_copy_(0, tied, self._slices[0][tied]))
        self._changed += [None] * (self.steps + 1 - len(self._changed))

    def _put(
        self, step: int, places: Int64[ndarray, " r"], values: Float[torch.Tensor, "r c"]
    ) -> Int64[ndarray, " s"]:
        """Writes rows of a slice and gives those that were not so before."""
        own, new = self._slices[step].numpy(), values.numpy()
        if COMPILED:
            moved = np.empty(len(places), np.int64)
            return moved[: _put(own, places, new, moved)]
        differ = (own[places] != new).any(axis=1)
        own[places] = new
        return places[differ]

    def _shorten(self, sources: Int64[ndarray, " s"]) -> None:
        """Lowers hops to what the new sources allow, breadth first along in-edges."""
        if COMPILED:
            _shorten(self._walk.back.begins, self._walk.back.rows, self._hops, sources, self.steps)
            return
        self._hops[sources] = 0
        front, nobody = sources, np.zeros(len(self._hops), bool)
        for step in range(1, self.steps + 1):
            near = self._walk.into(front, nobody)
            front = near[self._hops[near] > step]
            self._hops[front] = step

    def _placed(self, rows: Int64[ndarray, " r"]) -> Int64[ndarray, " r"]:
        return rows if self._place_of is None else self._place_of[rows]


def _inverse(row_of: Int64[ndarray, " n"] | None) -> Int64[ndarray, " n"] | None:
    if row_of is None:
        return None
    places = np.empty_like(row_of)
    places[row_of] = np.arange(len(row_of))
    return places


@kernel
def _put(own, places, new, moved):
    count = 0
    for q in range(len(places)):
        i, differs = places[q], False
        for c in range(own.shape[1]):
            differs |= own[i, c] != new[q, c]
            own[i, c] = new[q, c]
        if differs:
            moved[count] = i
            count += 1
    return count


@kernel
def _shorten(begins, rows, hops, sources, steps):
    queue = np.empty(len(hops), np.int64)
    count, done = 0, 0
    for q in range(len(sources)):
        if hops[sources[q]] > 0:
            hops[sources[q]] = 0
            queue[count] = sources[q]
            count += 1
    while done < count and hops[queue[done]] < steps:
        j = queue[done]
        done += 1
        for e in range(begins[j], begins[j + 1]):
            i = rows[e]
            if hops[i] > hops[j] + 1:
                hops[i] = hops[j] + 1
                queue[count] = i
                count += 1
