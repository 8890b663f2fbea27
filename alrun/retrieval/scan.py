"""The exact nearest free points of a few queries: one pass over all points in bounded memory."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from alrun.coverage.distances import folded
from alrun.graph.knn import LARGEST, check_features
from alrun.graph.points import cuts
from alrun.graph.selection import workers
from alrun.retrieval.sweep import CPU_POINTS, GPU_POINTS, Asked, Nearest, Sweep

CPU = torch.device("cpu")
SAMPLE = 4096  # points whose mean is the center: it bounds rounding, and no result depends on it
PAIRS = 2**21  # numbers of which distances are taken at once: 16 MiB in float64


class Scan:
    """Points to look for neighbors among, in memory or memory-mapped; every search reads them once in order.

    Float32 inner products tell of most points that they are too far away; of the others distances are
    compared, sums in float64 of squared differences added as `alrun.coverage.distances.folded` does. So
    the answers depend neither on blocks, threads and device nor on where the points lie. Memory: 4 bytes a
    point; a search takes 40 MB a thread (200 MB where most points are equally near) and 48 bytes a query and
    neighbor. On a GPU the points are held too, if half of what is free there holds them.
    """

    def __init__(self, points: Float32[ndarray, "n d"], device: torch.device = CPU) -> None:
        """Reads all points once.

        Raises:
            ValueError: no points, or a number that is none or not below 1e17 in size.
        """
        if not len(points):
            raise ValueError("a search needs points, got none; give the pool's features")
        self.points, self.device = points, device
        spread = np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(np.int64)
        some = points[spread]
        if not (np.abs(some) < LARGEST).all():
            check_features(points)
        self._center = some.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._halves = self._half_sizes()
        self._resident = self._placed()

    def __len__(self) -> int:
        return len(self.points)

    @property
    def notes(self) -> dict[str, float]:
        """The share of nearest points found."""
        return {"recall": 1.0}

    def nearest(self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"], count: int) -> Nearest:
        """The `count` nearest free points of each query by (squared distance, row).

        At most as many as are free; queries are finite, and below 1e15 in size.
        """
        asked = Asked(queries, queries - self._center, count)
        if self.device.type != "cpu":
            return Sweep(self, asked).among(free, 0, len(self))
        parts: dict[int, Nearest] = {}

        def work(start: int, stop: int) -> None:
            parts[start] = Sweep(self, asked).among(free, start, stop)

        with workers() as share:
            share(work, len(self))
        first, *others = (parts[start] for start in sorted(parts))
        for other in others:
            first.join(other)
        return first

    def gaps(self, queries: Float32[ndarray, "p d"], rows: Int64[ndarray, " p"]) -> Float64[ndarray, " p"]:
        """Squared distances, the only ones ever compared, from each query to its point."""
        gaps = np.zeros(len(rows))
        if self.points.shape[1]:
            for part in cuts(len(rows), PAIRS // self.points.shape[1]):
                terms = self.points[rows[part]].astype(np.float64) - queries[part]
                terms *= terms
                gaps[part] = folded(terms)
        return gaps

    def tile(
        self, part: slice, free: Bool[ndarray, " n"], room: Float32[ndarray, "r d"]
    ) -> tuple[Int64[ndarray, " t"], Float32[Tensor, "t d"], Float32[Tensor, " t"]] | None:
        """Rows of a part, centered points, and half their squared norms (infinity for rows not free).

        None where no row is free; points may be written to `room`.
        """
        open_ = free[part]
        if not (left := np.count_nonzero(open_)):
            return None
        rows, at = np.arange(part.start, part.stop), part
        if 2 * left < len(rows):
            rows = at = rows[open_]
        halves = self._halves[at]
        if len(halves) > left:
            halves = np.where(open_, halves, np.float32(np.inf))
        if self._resident is not None:
            on = at if isinstance(at, slice) else torch.from_numpy(at).to(self.device)
            return rows, self._resident[on], self._on(halves)
        points = np.subtract(self.points[at], self._center, out=room[: len(rows)])
        return rows, self._on(points), self._on(halves)

    def _on(self, values: Float32[ndarray, "..."]) -> Float32[Tensor, "..."]:
        return torch.from_numpy(values).to(self.device)

    def _half_sizes(self) -> Float32[ndarray, " n"]:
        halves = np.empty(len(self), np.float32)
        for part in cuts(len(self), CPU_POINTS // max(1, self.points.shape[1])):
            centered = np.subtract(self.points[part], self._center)
            sizes = np.einsum("td,td->t", centered, centered, dtype=np.float64)
            if not (sizes < LARGEST**2).all():
                check_features(self.points)
            halves[part] = sizes / 2
        return halves

    def _placed(self) -> Float32[Tensor, "n d"] | None:
        """All centered points on the GPU, if half of what is free there holds them."""
        if self.device.type != "cuda" or self.points.nbytes > torch.cuda.mem_get_info(self.device)[0] // 2:
            return None
        whole = torch.empty(self.points.shape, device=self.device)
        for part in cuts(len(self), GPU_POINTS // max(1, self.points.shape[1])):
            whole[part] = self._on(np.subtract(self.points[part], self._center))
        return whole
