"""A sparse matrix times rows of values, in whole or for some rows alone with the same bits."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor
from torch.nn.functional import embedding_bag

from alrun.compiled import COMPILED, kernel


@dataclass(frozen=True, eq=False)
class Columns:
    """The pattern of M by columns: column j holds `rows` begins[j] to begins[j + 1], ascending."""

    begins: Int64[ndarray, " m"]
    rows: Int32[ndarray, " e"]


class Walk:
    """M (n, n), e.g. the row-stochastic matrix of label diffusion, as a product with values (n, c).

    A row of M x is torch's embedding_bag over that row's neighbors, added in the order in which the matrix
    stores them. Its bits depend on this row's bag alone: not on which other rows are computed, on threads, or
    on the order of the rows. `ordered` holds the rows in an order that keeps neighbors close.

    Attributes:
        row_of: if ordered, the row at each place, else None. All rows below are places.
        weights: of the values' type, float32 or float64.
    """

    def __init__(
        self, matrix: csr_array, dtype: torch.dtype, device: torch.device, ordered: bool = False
    ) -> None:
        self.row_of: Int64[ndarray, " n"] | None = None
        if ordered:
            self.row_of = locality(matrix)
            matrix = _moved(matrix, self.row_of)
        self.begins = matrix.indptr.astype(np.int64)
        counts = np.diff(self.begins)
        self._k = int(counts[0]) if len(counts) and (counts == counts[0]).all() else 0
        self.columns = torch.from_numpy(matrix.indices.astype(np.int32, copy=False)).to(device)
        self.weights = torch.from_numpy(matrix.data).to(device, dtype)
        self._bags = torch.from_numpy(self.begins.astype(np.int32)).to(device)
        self._back: Columns | None = None
        self._seen = np.zeros(-(-len(self) // 8) * 8, np.uint8)

    def __len__(self) -> int:
        return len(self.begins) - 1

    def step(self, values: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        """M times values; m = n, unless M holds some rows of a larger matrix."""
        return _bag_sums(self.columns, self.weights, self._bags, values)

    def step_of(self, rows: Int64[ndarray, " r"], values: Float[Tensor, "n c"]) -> Float[Tensor, "r c"]:
        """These rows of M times values, on the CPU, with the bits that `step` gives them."""
        if self._k:  # whole rows are copied, five times as fast as entry by entry
            own = torch.from_numpy(rows)
            columns = self.columns.view(-1, self._k).index_select(0, own).view(-1)
            weights = self.weights.view(-1, self._k).index_select(0, own).view(-1)
            bags = torch.arange(0, len(columns) + 1, self._k, dtype=torch.int32)
            return _bag_sums(columns, weights, bags, values)
        bags = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(self.begins[rows + 1] - self.begins[rows], out=bags[1:])
        entries = (_entries if COMPILED else _entries_plain)(self.begins, rows, bags)
        own = torch.from_numpy(entries)
        return _bag_sums(self.columns[own], self.weights[own], torch.from_numpy(bags), values)

    def edges_into(self, rows: Int64[ndarray, " r"]) -> int:
        """How many entries of M the columns `rows` hold."""
        return int((self.back.begins[rows + 1] - self.back.begins[rows]).sum())

    @property
    def back(self) -> Columns:
        """M by columns, made on first use."""
        if self._back is None:
            turned = (_turned if COMPILED else _turned_plain)(self.begins, self.columns.cpu().numpy())
            self._back = Columns(*turned)
        return self._back

    def into(self, rows: Int64[ndarray, " r"], closed: Bool[ndarray, " n"]) -> Int64[ndarray, " s"]:
        """The rows i outside `closed` with an entry M_ij for some j in `rows`, ascending."""
        back = self.back
        if COMPILED:
            found, words = np.empty(len(self) + 1, np.int64), self._seen.view(np.uint64)
            return found[: _into(back.begins, back.rows, rows, closed, self._seen, words, found)]
        found = np.unique(back.rows[_entries_of(back.begins, rows)]).astype(np.int64)
        return found[~closed[found]]


def locality(matrix: csr_array) -> Int64[ndarray, " n"]:
    """An order of rows in which neighbors are close (reverse Cuthill-McKee): the row at each place."""
    # Taking the pattern as if it were symmetric costs a third and brings nearly as much: at a million rows of
    # twenty neighbors 0.5 s, after which a step takes 55 ms instead of 184.
    indices, indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    pattern = csr_array((np.ones(matrix.nnz, np.int8), indices, indptr), shape=matrix.shape)
    return reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)


def _bag_sums(columns: Tensor, weights: Tensor, bags: Tensor, values: Tensor) -> Tensor:
    if not len(columns):
        return torch.zeros((len(bags) - 1, values.shape[1]), dtype=values.dtype, device=values.device)
    return embedding_bag(
        columns, values, bags, per_sample_weights=weights, mode="sum", include_last_offset=True
    )


def _moved(matrix: csr_array, row_of: Int64[ndarray, " n"]) -> csr_array:
    """Rows and columns in another order, each row's entries in the order they had."""
    place = np.empty(len(row_of), np.int32)
    place[row_of] = np.arange(len(row_of), dtype=np.int32)
    entries = _entries_of(matrix.indptr.astype(np.int64), row_of)
    begins = np.concatenate([[0], np.cumsum(np.diff(matrix.indptr)[row_of])])
    return csr_array((matrix.data[entries], place[matrix.indices[entries]], begins), shape=matrix.shape)


def _entries_of(begins: Int64[ndarray, " m"], rows: Int64[ndarray, " r"]) -> Int64[ndarray, " e"]:
    return _entries_plain(begins, rows, np.concatenate([[0], np.cumsum(begins[rows + 1] - begins[rows])]))


def _entries_plain(begins: ndarray, rows: ndarray, bags: ndarray) -> ndarray:
    """The numbers of the entries of some rows, which fill `bags`."""
    counts = np.diff(bags)
    return np.repeat(begins[rows] - bags[:-1], counts) + np.arange(bags[-1])


def _turned_plain(begins: ndarray, columns: ndarray) -> tuple[ndarray, ndarray]:
    n = len(begins) - 1
    rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(begins))
    ends = np.cumsum(np.bincount(columns, minlength=n))
    return np.concatenate([[0], ends]), rows[np.argsort(columns, kind="stable")]


@kernel
def _entries(begins, rows, bags):
    entries = np.empty(bags[-1], np.int64)
    for q in range(len(rows)):
        shift = begins[rows[q]] - bags[q]
        for e in range(bags[q], bags[q + 1]):
            entries[e] = shift + e
    return entries


@kernel
def _turned(begins, columns):
    n = len(begins) - 1
    at = np.zeros(n + 1, np.int64)
    for e in range(len(columns)):
        at[columns[e] + 1] += 1
    for j in range(n):
        at[j + 1] += at[j]
    ends, rows = at.copy(), np.empty(len(columns), np.int32)
    for i in range(n):
        for e in range(begins[i], begins[i + 1]):
            rows[ends[columns[e]]] = i
            ends[columns[e]] += 1
    return at, rows


@kernel
def _into(begins, sources, rows, closed, seen, words, found):
    for q in range(len(rows)):
        for e in range(begins[rows[q]], begins[rows[q] + 1]):
            seen[sources[e]] = 1
    count = 0
    for word in range(len(words)):
        if words[word] == 0:
            continue
        for i in range(
            8 * word, min(8 * word + 8, len(closed))
        ):  # without branches; `found` has one to spare
            found[count] = i
            count += seen[i] & (1 - closed[i])
        words[word] = 0
    return count
