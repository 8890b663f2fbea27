"""Nearest-neighbor graphs: exact up to a size, from a measured approximate index beyond it."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.graph.approximate import approximate
from alrun.graph.duplicates import distinct, written_out
from alrun.graph.exact import exact
from alrun.graph.points import Points, cuts
from alrun.pool import BLOCK_BYTES

LARGEST = 1e17  # squared distances of larger features overflow float32
EXACT_UP_TO = {"cpu": 100_000, "cuda": 1_000_000}  # distinct rows for which graph.index=auto is exact
CPU = torch.device("cpu")

Index = Literal["auto", "exact", "hnsw", "ivf", "nndescent"]


@dataclass(frozen=True, eq=False)
class Graph:
    """Each row's k nearest other rows, by (distance, row), without self loops.

    `symmetrize` says what kernels make of the directed edges: nothing, or the larger or mean of both weights.
    `recall` is the share of the true neighbors that were found, measured on 500 rows; 1 where exact.
    """

    neighbors: Int64[ndarray, "n k"]
    distances: Float32[ndarray, "n k"]
    symmetrize: Literal["none", "max", "mean"]
    recall: float

    def __len__(self) -> int:
        return len(self.neighbors)

    @property
    def k(self) -> int:
        """Neighbors a row."""
        return self.neighbors.shape[1]


@dataclass(frozen=True)
class Knn:
    """How a neighbor graph is built: ties to the smaller row, whatever the number of threads.

    `index` names the search; `auto` is exact up to 100,000 rows (a million on a GPU) and `ivf` beyond.
    The others find candidates only: these are ranked by the same distances, and fewer than `min_recall` of
    the true neighbors are refused.

    Source: S0 section 4.3 (squared Euclidean distance between features). Departs: distances are taken from
    differences, so duplicates are at distance 0 exactly.
    """

    k: Annotated[int, Ge(1)]
    metric: Literal["sqeuclidean", "cosine"]
    symmetrize: Literal["none", "max", "mean"]
    index: Index
    min_recall: Annotated[float, Gt(0), Le(1)]

    def build(self, features: Float32[ndarray, "n d"], device: torch.device = CPU) -> Graph:
        """The graph of min(k, n - 1) neighbors a row.

        Cosine distance is 1 - cos, in [0, 2], taken as half the squared distance of unit rows. A zero row has
        no direction and counts as orthogonal: at 1 from every other row, at 0 from other zero rows.

        Args:
            features: left as they are; without duplicates no copy is made on the CPU.
            device: where exact tiles are computed; the approximate indexes work on the CPU.

        Raises:
            ValueError: a feature that is no number below 1e17 in size, or a recall below `min_recall`.
        """
        check_features(features)
        points = points_of(features, self.metric == "cosine")
        neighbors, distances, recall = _nearest(points, min(self.k, len(features) - 1), device, self)
        if self.metric == "cosine":
            distances *= np.float32(0.5)
        return Graph(neighbors, distances, self.symmetrize, recall)


def unit_rows(features: Float32[ndarray, "n d"]) -> Float32[ndarray, "n e"]:
    """Rows divided by their Euclidean norm; zero rows, if any, share one further axis (e = d + 1)."""
    return points_of(features, unit=True).take()


def nearest(
    points: Float32[ndarray, "n d"], k: int, device: torch.device = CPU
) -> tuple[Int64[ndarray, "n k"], Float32[ndarray, "n k"]]:
    """The k < n nearest other rows of each row by (squared Euclidean distance, row), and these distances.

    Distances are sums in float64 of squared differences, rounded to float32 before they are compared. The
    bits are the same on every device, with compiled kernels and without, whatever the number of threads.
    """
    neighbors, distances, _ = _nearest(points_of(points, unit=False), k, device, None)
    return neighbors, distances


def _nearest(
    points: Points, k: int, device: torch.device, knn: Knn | None
) -> tuple[Int64[ndarray, "n k"], Float32[ndarray, "n k"], float]:
    """As `nearest`, by the index this setting asks for (exact without one), and its recall."""
    few, group = distinct(points)
    of_few, recall = min(k, len(few) - 1), 1.0
    index = "exact" if knn is None else knn.index
    if index == "auto":
        index = "exact" if len(few) <= EXACT_UP_TO.get(device.type, 0) else "ivf"
    if of_few == 0:
        neighbors, distances = np.empty((len(few), 0), np.int64), np.empty((len(few), 0), np.float32)
    elif knn is None or index == "exact":
        neighbors, distances = exact(few, of_few, device)
    else:
        neighbors, distances, recall = approximate(few, of_few, index, knn.min_recall)
    return *written_out(group, neighbors, distances, k), recall


def points_of(features: Float32[ndarray, "n d"], unit: bool) -> Points:
    """All rows, each divided by its norm if `unit`."""
    norms = np.ones(len(features))
    if unit:
        norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    return Points(np.ascontiguousarray(features), norms, np.arange(len(features)))


def check_features(features: Float32[ndarray, "n d"]) -> None:
    """Refuses what has no distances.

    Raises:
        ValueError: a feature that is no number below 1e17 in size.
    """
    for block in cuts(len(features), BLOCK_BYTES // (8 * max(1, features.shape[1]))):
        if not (fine := np.abs(features[block]) < LARGEST).all():
            bad = np.flatnonzero(~fine.all(axis=1))[0]
            raise ValueError(
                f"features must be finite and below {LARGEST:g} in size, row {block.start + bad} holds "
                f"{features[block][bad][~fine[bad]][0]}; check the inputs and the training loss"
            )
