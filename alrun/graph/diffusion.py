"""Label diffusion: values spread over a graph while labeled rows stay clamped.

Below, `walk` is the row-stochastic M (n, n) of `kernels.transition` and A the set of clamped rows. With +1 or
-1 on A and zero elsewhere at the start, the values are chi_ic = 2 p_ic - a_i, where p_ic is the chance that
the walk from i is absorbed in A at class c within T steps, and a_i = sum_c p_ic.

Source: S0 sections 4.1 and 4.3; the exact incremental update is ALGORITHMS 1.6.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.sparse import csr_array

# A push along more than this share of all edges costs more than a full step.
PUSH_SHARE = 0.05


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


class Diffusion:
    """Diffused values for every number of steps 0..T, updated exactly when rows are clamped.

    Holds T + 1 slices (n, c) of float64, so that shorter diffusions (B.3) cost nothing. `hops` (n,) is the
    fewest steps by which the walk comes to a clamped row: 0 on clamped rows, T + 1 where there is none within
    T.
    """

    def __init__(
        self, walk: csr_array, start: Float64[ndarray, "n c"], clamped: Bool[ndarray, " n"], steps: int
    ) -> None:
        self.steps, self.clamped = steps, clamped.copy()
        self._walk, self._back = walk, csr_array(walk.T)
        self._slices = [start.copy()]
        for _ in range(steps):
            self._slices.append(self._full_step(self._slices[-1]))
        self.hops: Int64[ndarray, " n"] = np.full(len(start), steps + 1)
        self._shorten(np.flatnonzero(clamped))

    def values(self, steps: int) -> Float64[ndarray, "n c"]:
        """chi^(steps) for 0..T; the slice itself, to be read only."""
        return self._slices[steps]

    def reached(self, steps: int) -> Bool[ndarray, " n"]:
        """Rows from which a clamped row is at most `steps` (0..T) steps away, clamped rows included."""
        return self.hops <= steps

    def clamp(self, rows: Int64[ndarray, " q"], values: Float64[ndarray, "q c"]) -> None:
        """Clamps distinct rows; only what has one of them within T hops is computed anew.

        The change of a slice, times M, is the change of the next one. From the first push along more than a
        twentieth of all edges on, steps are made in full: the choice depends on counts alone, and both ways
        give the same values up to rounding.
        """
        self._shorten(rows)
        self.clamped[rows] = True
        pushed, change = rows, values - self._slices[0][rows]
        self._slices[0][rows] = values
        for step in range(1, self.steps + 1):
            if self._edges(pushed) > PUSH_SHARE * self._walk.nnz:
                for later in range(step, self.steps + 1):
                    self._slices[later] = self._full_step(self._slices[later - 1])
                return
            touched, gain = self._push(pushed, change)
            now = self._slices[step]
            now[touched] += gain
            own = values - now[rows]
            now[rows] = values
            pushed, change = np.concatenate([touched, rows]), np.concatenate([gain, own])

    def _full_step(self, before: Float64[ndarray, "n c"]) -> Float64[ndarray, "n c"]:
        after = self._walk @ before
        after[self.clamped] = self._slices[0][self.clamped]
        return after

    def _edges(self, rows: Int64[ndarray, " q"]) -> int:
        return int((self._back.indptr[rows + 1] - self._back.indptr[rows]).sum())

    def _push(
        self, rows: Int64[ndarray, " q"], change: Float64[ndarray, "q c"]
    ) -> tuple[Int64[ndarray, " r"], Float64[ndarray, "r c"]]:
        """Free rows i that have one of `rows` among their neighbors, and sum_j M_ij change_j for each."""
        edges = self._back[rows]
        touched, place = np.unique(edges.indices, return_inverse=True)
        gain = csr_array((edges.data, place, edges.indptr), shape=(len(rows), len(touched))).T @ change
        free = ~self.clamped[touched]
        return touched[free].astype(np.int64), gain[free]

    def _shorten(self, sources: Int64[ndarray, " s"]) -> None:
        """Lowers hops to what the new sources allow, breadth first along in-edges."""
        self.hops[sources] = 0
        front = sources
        for step in range(1, self.steps + 1):
            near = np.unique(self._back[front].indices)
            front = near[self.hops[near] > step]
            self.hops[front] = step
