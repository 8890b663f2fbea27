"""Nearly all of the nearest free points, by an inverted file; its recall is measured."""

import logging

import faiss
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from alrun.graph.approximate import one_thread
from alrun.graph.points import SPARE, cuts
from alrun.pool import BLOCK_BYTES
from alrun.retrieval.scan import Scan
from alrun.retrieval.sweep import Nearest

PROBE = 200  # points whose nearest other one is looked for where no probe is given
PER_CELL = 64  # points a cell of which k-means learns
PROBED = 8  # cells a query looks into before their number is doubled

log = logging.getLogger(__name__)


class Inverted:
    """Cells of points around sqrt(n) means; a query looks into the nearest cells only.

    What is found is ranked by the distances of `Scan`, and a query whose cells hold too few free points is
    searched by it. The number of cells looked into is doubled until the recall is reached, once: so the
    answers depend on points, probe and settings alone.

    Memory: a copy of the points with 8 bytes a point, and 256 sqrt(n) points while means are learned.
    Source: Jegou et al. 2011, section IV; FAISS IndexIVFFlat.
    """

    def __init__(self, scan: Scan, min_recall: float, probe: Float32[ndarray, "p d"] | None = None) -> None:
        """Learns the means on points evenly spread over the rows, and reads all points block by block.

        Args:
            scan: the points.
            min_recall: share of the probe whose nearest point must be found, in (0, 1].
            probe: queries (p, d); none stands for 200 points that look for their nearest other one.

        Raises:
            ValueError: the recall stays below `min_recall` where a quarter of all cells is looked into.
        """
        self.points, self._scan = scan.points, scan
        self._index = _built(scan.points)
        self._probed = min(PROBED, self._index.nlist)
        self._recall = self._raised(min_recall, probe)

    @property
    def notes(self) -> dict[str, float]:
        """The share of the probe whose nearest point was found, and the cells a query looks into."""
        return {"recall": self._recall, "cells_probed": float(self._probed)}

    def nearest(self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"], count: int) -> Nearest:
        """The `count` nearest free points of each query by (squared distance, row), as far as found."""
        found = self._looked_up(queries, free, count)
        short = np.flatnonzero((found.rows < 0).any(axis=1))
        if len(short):
            settled = self._scan.nearest(queries[short], free, count)
            found.rows[short], found.gaps[short] = settled.rows, settled.gaps
        return found

    def _looked_up(self, queries: Float32[ndarray, "q d"], free: Bool[ndarray, " n"], count: int) -> Nearest:
        bits = np.packbits(free, bitorder="little")
        chosen = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        settings = faiss.SearchParametersIVF(
            sel=chosen,  # pyright: ignore[reportCallIssue]
            nprobe=self._probed,  # pyright: ignore[reportCallIssue]
        )
        _, near = self._index.search(queries, count + SPARE, params=settings)
        found = Nearest.none(len(queries), count)
        query, place = np.nonzero(near >= 0)
        rows = near[query, place]
        found.take(query, rows, self._scan.gaps(queries[query], rows))
        return found

    def _raised(self, min_recall: float, probe: Float32[ndarray, "p d"] | None) -> float:
        """Doubles the number of cells until the recall is reached; the recall."""
        count = 1
        if probe is None:
            own = np.linspace(0, len(self.points) - 1, min(PROBE, len(self.points))).astype(np.int64)
            probe, count = np.ascontiguousarray(self.points[own]), min(2, len(self.points))
        everything = np.ones(len(self.points), bool)
        true = self._scan.nearest(probe, everything, count).gaps[:, -1]
        while True:
            gaps = self._looked_up(probe, everything, count).gaps[:, -1]
            recall = float((gaps <= true).mean())
            log.info("%d of %d cells hold %.4f of the nearest", self._probed, self._index.nlist, recall)
            if recall >= min_recall:
                return recall
            if 4 * self._probed >= self._index.nlist:
                raise ValueError(
                    f"index=ivf must find a share min_recall={min_recall:g} of the nearest points, got "
                    f"{recall:.4f} in a quarter of all cells; use index=exact, which is faster then, or "
                    "lower min_recall"
                )
            self._probed *= 2


def _built(points: Float32[ndarray, "n d"]) -> faiss.IndexIVFFlat:
    """Cells with all points in them, the same whatever the number of threads."""
    cells = max(1, int(np.sqrt(len(points))))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(points.shape[1]), points.shape[1], cells)
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = PER_CELL, 1
    index.cp.niter, index.cp.seed = 10, 0
    learned = np.linspace(0, len(points) - 1, min(len(points), PER_CELL * cells)).astype(np.int64)
    with one_thread():
        index.train(np.ascontiguousarray(points[learned]))
        for part in cuts(len(points), BLOCK_BYTES // (4 * max(1, points.shape[1]))):
            index.add(np.ascontiguousarray(points[part]))
    return index
