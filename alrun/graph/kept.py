"""A neighbor graph as files."""

from pathlib import Path

import numpy as np

from alrun.graph.knn import Graph, Knn


def keep_graph(folder: Path, graph: Graph) -> None:
    """Writes `neighbors.npy`, `distances.npy` and `recall.npy`."""
    narrow = np.int32 if len(graph) < 2**31 else np.int64
    np.save(folder / "neighbors.npy", graph.neighbors.astype(narrow), allow_pickle=False)
    np.save(folder / "distances.npy", graph.distances, allow_pickle=False)
    np.save(folder / "recall.npy", np.float64(graph.recall), allow_pickle=False)


def read_graph(folder: Path, knn: Knn) -> Graph:
    """What `keep_graph` wrote of a graph with these settings.

    Raises:
        OSError: a file is not there.
    """
    neighbors = np.load(folder / "neighbors.npy", allow_pickle=False).astype(np.int64)
    distances = np.load(folder / "distances.npy", allow_pickle=False)
    recall = float(np.load(folder / "recall.npy", allow_pickle=False))
    return Graph(neighbors, distances, knn.symmetrize, recall)
