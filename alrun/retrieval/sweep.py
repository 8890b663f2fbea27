"""One thread's way through the points: products tell what may be among the nearest, distances what is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from alrun.compiled import whole_float32
from alrun.graph.points import cuts, gap_bounds, key_bounds

# Points of a tile, in numbers, and products with the queries: what a core's caches hold. Tiles four times as
# large take twice as long for 1,000 queries.
CPU_POINTS, CPU_PRODUCTS = 2**19, 2**20
GPU_POINTS, GPU_PRODUCTS = 2**26, 2**27
QUERIES = 1024  # that go through one tile at once
PENDING = 2  # times what the lists hold: so many pairs are compared together
LARGEST = float(np.finfo(np.float32).max)  # no limit yet; only keys of rows that are not free are larger


@dataclass(eq=False)
class Nearest:
    """For each of q queries its m nearest so far by (squared distance, row); -1 at infinity where fewer."""

    rows: Int64[ndarray, "q m"]
    gaps: Float64[ndarray, "q m"]

    @classmethod
    def none(cls, queries: int, count: int) -> "Nearest":
        """Empty lists."""
        return cls(np.full((queries, count), -1, np.int64), np.full((queries, count), np.inf))

    def take(
        self, query: Int64[ndarray, " p"], rows: Int64[ndarray, " p"], gaps: Float64[ndarray, " p"]
    ) -> Int64[ndarray, " u"]:
        """Puts further rows, each at most once for a query, into the lists; which lists these are."""
        hit, place = np.unique(query, return_inverse=True)
        m = self.rows.shape[1]
        of = np.concatenate([np.repeat(np.arange(len(hit)), m), place])
        rows = np.concatenate([self.rows[hit].ravel(), rows])
        gaps = np.concatenate([self.gaps[hit].ravel(), gaps])
        order = np.lexsort((rows, gaps, of))
        of = of[order]
        order = order[np.arange(len(of)) - np.searchsorted(of, of) < m]
        self.rows[hit], self.gaps[hit] = rows[order].reshape(-1, m), gaps[order].reshape(-1, m)
        return hit

    def join(self, other: "Nearest") -> None:
        """Takes over what lists of the same queries hold of other rows."""
        query, place = np.nonzero(other.rows >= 0)
        self.take(query, other.rows[query, place], other.gaps[query, place])


@runtime_checkable
class Field(Protocol):
    """Points that are handed out by tiles, and distances to them."""

    device: torch.device

    def tile(self, part: slice, free: ndarray, room: ndarray) -> tuple[ndarray, Tensor, Tensor] | None:
        """Rows of a part, centered points, half their squared norms; None where no row is free."""
        ...

    def gaps(self, queries: ndarray, rows: ndarray) -> ndarray:
        """Squared distances from each query to its point."""
        ...


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries as they are and about the points' center, and how many neighbors each wants."""

    queries: Float32[ndarray, "q d"]
    centered: Float32[ndarray, "q d"]
    count: int

    @cached_property
    def sizes(self) -> Float64[ndarray, " q"]:
        """Squared norms about the center."""
        return np.einsum("qd,qd->q", self.centered, self.centered, dtype=np.float64)


class Sweep:
    """The nearest so far; for each query the largest key it need look at; pairs not compared yet."""

    def __init__(self, field: Field, asked: Asked) -> None:
        self.field, self.asked = field, asked
        self.groups = list(cuts(len(asked.queries), QUERIES))
        self.own = [torch.from_numpy(asked.centered[group]).to(field.device) for group in self.groups]
        self.limits = torch.full((len(asked.queries),), LARGEST, device=field.device)
        self.found = Nearest.none(len(asked.queries), asked.count)
        self.pending: list[tuple[ndarray, ndarray]] = []
        self.held = 0

    def among(self, free: Bool[ndarray, " n"], start: int, stop: int) -> Nearest:
        """The nearest free points among these rows."""
        width = min(self._width(), max(1, stop - start))
        room = np.empty((width, self.asked.queries.shape[1]), np.float32)
        memory = torch.empty(width * max(map(len, self.own), default=0), device=self.field.device)
        for part in cuts(stop - start, width):
            tile = self.field.tile(slice(start + part.start, start + part.stop), free, room)
            if tile is None:
                continue
            rows, points, halves = tile
            for group, own in zip(self.groups, self.own, strict=True):
                keys = memory[: len(own) * len(points)].view(len(own), len(points))
                with whole_float32():
                    torch.addmm(halves, own, points.T, alpha=-1, out=keys)
                self._look(rows, keys, group)
        self._compare()
        return self.found

    def _width(self) -> int:
        """Points of a tile."""
        points, products = CPU_POINTS, CPU_PRODUCTS
        if self.field.device.type != "cpu":
            points, products = GPU_POINTS, GPU_PRODUCTS
        q, d = self.asked.queries.shape
        return max(1, min(points // max(1, d), products // min(QUERIES, max(1, q))))

    def _look(self, rows: Int64[ndarray, " t"], keys: Float32[Tensor, "g t"], group: slice) -> None:
        """Remembers pairs that may be among the nearest; many of them are compared at once."""
        limits = self.limits[group]
        at = (keys.amin(dim=1) <= limits).nonzero()[:, 0]
        if not len(at):
            return
        keys, limits, queries = keys[at], limits[at], group.start + at.cpu().numpy()
        hits = keys <= limits[:, None]
        if keys.shape[1] > self.asked.count and int(hits.sum()) > 2 * self.asked.count * len(at):
            hits = keys <= torch.minimum(limits, self._within(keys, queries))[:, None]
        query, place = (each.cpu().numpy() for each in hits.nonzero(as_tuple=True))
        self.pending.append((queries[query], rows[place]))
        self.held += len(query)
        if self.held > PENDING * self.found.rows.size:
            self._compare()

    def _compare(self) -> None:
        """Takes the distances of the pairs remembered, and lowers the limits."""
        if not self.held:
            return
        query, rows = (np.concatenate(each) for each in zip(*self.pending, strict=True))
        self.pending, self.held = [], 0
        changed = self.found.take(query, rows, self.field.gaps(self.asked.queries[query], rows))
        bounds = self._bounds(changed, self.found.gaps[changed, -1])
        self.limits[torch.from_numpy(changed).to(bounds.device)] = bounds

    def _within(self, keys: Float32[Tensor, "u t"], query: Int64[ndarray, " u"]) -> Float32[Tensor, " u"]:
        """Keys that none of the nearest exceeds, told from the keys of one tile."""
        kth = keys.kthvalue(self.asked.count, dim=1).values.double().cpu().numpy()
        return self._bounds(query, gap_bounds(kth, self.asked.sizes[query], self.asked.queries.shape[1]))

    def _bounds(self, query: Int64[ndarray, " u"], gaps: Float64[ndarray, " u"]) -> Float32[Tensor, " u"]:
        """Keys that no point within these squared distances exceeds."""
        keys = key_bounds(gaps, self.asked.sizes[query], self.asked.queries.shape[1])
        return torch.from_numpy(np.minimum(keys, np.float32(LARGEST))).to(self.field.device)
