"""Approximate nearest neighbors: candidates from an index, ranked like exact ones, their recall measured."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import faiss
import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from numpy import ndarray

from alrun.graph.cells import searcher
from alrun.graph.exact import among_all, exact
from alrun.graph.points import SPARE, Points, ranked

CPU = torch.device("cpu")
FEW = 1000  # up to so many points every index is exact: there is nothing to save, and cells would be empty
PROBE = 500  # rows on which the recall is measured
STEPS = 4  # how often the effort of a search is doubled before its recall is refused
Search = Callable[[int], Int32[ndarray, "m w"]]

log = logging.getLogger(__name__)


def approximate(
    points: Points, k: int, index: Literal["hnsw", "ivf", "nndescent"], min_recall: float
) -> tuple[Int64[ndarray, "m k"], Float32[ndarray, "m k"], float]:
    """Up to m - 1 neighbors by (distance, place) as far as the index found them, distances, and the recall.

    Recall is the share of neighbors of 500 points, evenly spread over the rows, that are no farther than the
    true k-th one: a neighbor as near as that counts, whichever it is. Searches are seeded, built by one
    thread, and give the same graph whatever the number of threads.

    Raises:
        ValueError: the recall is below `min_recall` also after three doublings of the effort.
    Source: hnsw: Malkov and Yashunin 2018; ivf: `alrun.graph.cells`; nndescent: Dong et al. 2011.
    """
    if len(points) <= max(FEW, 4 * k):
        return *exact(points, k, CPU), 1.0
    search = {"hnsw": _hnsw, "ivf": _ivf, "nndescent": _nndescent}[index](points, k)
    neighbors, distances, recall = _measured(points, search(0), k)
    for step in range(1, STEPS):
        if recall >= min_recall:
            break
        log.info("graph.index=%s finds %.4f of the neighbors: searching longer", index, recall)
        neighbors, distances, recall = _measured(points, search(step), k)
    if recall < min_recall:
        raise ValueError(
            f"the index {index} must find a share min_recall={min_recall:g} of the neighbors, got "
            f"{recall:.4f}; lower graph.min_recall (trainer.min_recall where a trainer makes the graph), or "
            "choose graph.index=exact or another"
        )
    log.info("graph.index=%s finds %.4f of the neighbors of %d points", index, recall, PROBE)
    return neighbors, distances, recall


def _measured(
    points: Points, found: Int32[ndarray, "m w"], k: int
) -> tuple[Int64[ndarray, "m k"], Float32[ndarray, "m k"], float]:
    """The candidates ranked, and their recall; points with fewer than k of them are searched exactly."""
    neighbors, distances = ranked(points, found, k)
    probe = np.linspace(0, len(points) - 1, PROBE).astype(np.int64)
    _, true = among_all(points, probe, distances[probe, -1], k)
    recall = float((distances[probe] <= true[:, -1:]).mean())
    short = np.flatnonzero(np.isinf(distances[:, -1]))
    if len(short):
        neighbors[short], distances[short] = among_all(points, short, distances[short, -1], k)
    return neighbors, distances, recall


def _hnsw(points: Points, k: int) -> Search:
    """Effort: candidates kept in a search."""
    index = faiss.IndexHNSWFlat(points.width, 16)
    index.hnsw.efConstruction = 80
    centered = points.centered(np.float32)
    with one_thread():
        index.add(centered)

    def search(step: int) -> Int32[ndarray, "m w"]:
        index.hnsw.efSearch = max(64, 2 * k) << step
        return index.search(centered, k + 1)[1].astype(np.int32)

    return search


def _ivf(points: Points, k: int) -> Search:
    """Effort: near cells."""
    with one_thread():
        return searcher(points, k + SPARE)


def _nndescent(points: Points, k: int) -> Search:
    """Effort: neighbors in the graph that is descended, from k + 10 by half at each step."""
    centered = points.centered(np.float32)

    def search(step: int) -> Int32[ndarray, "m w"]:
        width = min(len(points) - 1, int((k + 10) * 1.5**step))
        index = faiss.IndexNNDescentFlat(points.width, width)
        index.nndescent.iter = 8
        with one_thread():
            index.add(centered)
        return faiss.vector_to_array(index.nndescent.final_graph).reshape(len(points), -1).astype(np.int32)

    return search


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS in one thread: what several build together depends on which of them comes first."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
