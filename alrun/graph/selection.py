"""The nearest so far of many points, kept while tiles of inner products go by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32
from numpy import ndarray

from alrun.compiled import loose_kernel, threads

FAR = 3e38  # no key yet; a third of it keeps a point from itself
STRIPE = 64

Share = Callable[[Callable[[int, int], Any], int], None]


class Lists(NamedTuple):
    """For each of m points the places of the others with the w smallest keys yet, and these keys, ascending.

    The key of a pair is half the other's squared norm (`halves`) less the inner product: half the squared
    distance but for what is the same for all pairs of a point. `limits` are the largest keys. A point that
    was seen and is in no list has a key of at least the limit.
    """

    halves: Float32[ndarray, " m"]
    keys: Float32[ndarray, "m w"]
    found: Int32[ndarray, "m w"]
    limits: Float32[ndarray, " m"]

    @classmethod
    def empty(cls, sizes: Float64[ndarray, " m"], width: int) -> "Lists":
        """Lists of `width` entries, for points of these squared norms."""
        m = len(sizes)
        keys, found = np.full((m, width), FAR, np.float32), np.full((m, width), -1, np.int32)
        return cls((sizes / 2).astype(np.float32), keys, found, np.full(m, FAR, np.float32))

    @property
    def edge(self) -> Float64[ndarray, " m"]:
        """The squared distances that belong to the limits."""
        return 2 * (self.limits.astype(np.float64) + self.halves)

    def take(
        self,
        share: Share,
        tile: "Tile",
        rows: Int32[ndarray, " r"],
        columns: Int32[ndarray, " c"],
        same: bool,
    ) -> None:
        """Puts the keys of a tile in the lists of its rows and of its columns.

        Where both are the `same` points, those of the rows do.
        """

        def keep_rows(start: int, stop: int) -> None:
            products = tile.products(start, stop)
            if same:
                places = np.arange(start, stop)
                products[places, places] = -FAR / 3
            _keep_rows(products, self, rows, columns, start, stop)

        def keep_columns(start: int, stop: int) -> None:
            _keep_columns(tile.whole.numpy(), self, rows, columns, start, stop)

        share(keep_rows, len(rows))
        if not same:
            share(keep_columns, len(columns))


class Tile:
    """Inner products of some points with some others, in memory that is used again."""

    def __init__(self, own: ndarray, others: ndarray, memory: torch.Tensor) -> None:
        self.own, self.others = torch.from_numpy(own), torch.from_numpy(others).T
        self.whole = memory[: len(own) * len(others)].view(len(own), len(others))

    def products(self, start: int, stop: int) -> ndarray:
        """The whole tile, its rows start:stop filled in."""
        torch.mm(self.own[start:stop], self.others, out=self.whole[start:stop])
        return self.whole.numpy()


@contextmanager
def workers() -> Iterator[Share]:
    """As `threads`, while torch itself keeps to one: each worker multiplies its own rows.

    Small products shared out by OpenMP take eight times as long where other programs use the cores, since its
    threads wait for each other thousands of times, spinning.
    """
    before = torch.get_num_threads()
    with threads() as share:
        torch.set_num_threads(1)
        try:
            yield share
        finally:
            torch.set_num_threads(before)


@loose_kernel
def _put(keys, found, key, other):
    """Puts a key in its sorted list, if it is among the smallest; the largest one then."""
    last = keys.shape[0] - 1
    if key >= keys[last]:
        return keys[last]
    at = last
    while at > 0 and keys[at - 1] > key:
        keys[at] = keys[at - 1]
        found[at] = found[at - 1]
        at -= 1
    keys[at] = key
    found[at] = other
    return keys[last]


@loose_kernel
def _keep_rows(tile, lists, rows, columns, start, stop):
    halves, keys, found, limits = lists
    theirs, near = halves[columns], np.empty(STRIPE, np.int32)
    for i in range(start, stop):
        products, limit = tile[i], limits[rows[i]]
        own_keys, own_found = keys[rows[i]], found[rows[i]]
        for at in range(0, products.shape[0], STRIPE):
            own, half = products[at : at + STRIPE], theirs[at : at + STRIPE]
            # Most stripes end here; a fixed length lets 16 keys be compared at once.
            hit = own.shape[0] < STRIPE
            if not hit:
                for j in range(STRIPE):
                    hit |= half[j] - own[j] < limit
            if hit:
                count = 0
                for j in range(own.shape[0]):
                    near[count] = j
                    count += half[j] - own[j] < limit
                for j in near[:count]:
                    limit = _put(own_keys, own_found, half[j] - own[j], columns[at + j])
        limits[rows[i]] = limit


@loose_kernel
def _keep_columns(tile, lists, rows, columns, start, stop):
    halves, keys, found, limits = lists
    theirs, near = limits[columns[start:stop]], np.empty(STRIPE, np.int32)
    for i in range(tile.shape[0]):
        products, half = tile[i, start:stop], halves[rows[i]]
        for at in range(0, products.shape[0], STRIPE):
            own, limit = products[at : at + STRIPE], theirs[at : at + STRIPE]
            hit = own.shape[0] < STRIPE
            if not hit:
                for j in range(STRIPE):
                    hit |= half - own[j] < limit[j]
            if hit:
                count = 0
                for j in range(own.shape[0]):
                    near[count] = j
                    count += half - own[j] < limit[j]
                for j in near[:count]:
                    other = columns[start + at + j]
                    limit[j] = _put(keys[other], found[other], half - own[j], rows[i])
    limits[columns[start:stop]] = theirs
