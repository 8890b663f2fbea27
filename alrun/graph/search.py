"""The exact nearest neighbors of a few rows, without a graph of all."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from alrun.compiled import whole_float32
from alrun.graph.knn import check_features, points_of
from alrun.graph.points import cuts, gap_bounds, key_bounds
from alrun.graph.tiles import TILE_COLUMNS, first_pairs, gaps_between
from alrun.pool import BLOCK_BYTES

# places of rows, their neighbors, and the squared distances, by (place, distance, neighbor)
Pairs = list[Tensor]

GROUPS = 4  # groups a neighbor: the more, the tighter the bound and the longer it takes


class Search:
    """Rows to look for neighbors among; the answers are those of `Knn`'s exact graph.

    Distances are summed from differences, as there. Of most pairs float32 inner products tell that they are
    too far apart for that. Memory: O(n), and on a GPU or for cosine a copy of the features.
    """

    def __init__(
        self,
        features: Float32[ndarray, "n d"],
        metric: Literal["sqeuclidean", "cosine"],
        device: torch.device,
    ) -> None:
        """Reads all features once.

        Raises:
            ValueError: a feature that is no number below 1e17 in size.
        """
        check_features(features)
        self._cosine = metric == "cosine"
        points = points_of(features, self._cosine)
        self._whole = torch.from_numpy(points.take()).to(device)
        self._center = torch.from_numpy(points.center).to(device)
        self._sizes, self._halves = points.sizes, torch.from_numpy(points.sizes / 2).float().to(device)

    def nearest(
        self, rows: Int64[ndarray, " q"], k: int, among: Int64[ndarray, " m"]
    ) -> tuple[Int64[ndarray, "q k"], Float32[ndarray, "q k"]]:
        """The k nearest of the sorted rows `among` to each of `rows` by (distance, row), and their distances.

        A row is no neighbor of itself. k is at most the number of others there are for every row. Squared
        Euclidean distances, or 1 - cos.
        """
        k = min(k, len(among) - bool(np.isin(rows, among).any()))
        if k <= 0 or not len(rows):
            return np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), np.float32)
        width = min(TILE_COLUMNS, len(among))
        blocks = list(cuts(len(rows), BLOCK_BYTES // (16 * width)))
        found = [self._nothing() for _ in blocks]
        for cut in cuts(len(among), width):
            columns = torch.from_numpy(among[cut]).to(self._whole.device)
            centered = self._whole[columns] - self._center
            for at, block in enumerate(blocks):
                found[at] = self._with(columns, centered, rows[block], found[at], k)
        neighbors, distances = (torch.cat([each[part] for each in found]).view(-1, k) for part in (1, 2))
        return neighbors.cpu().numpy(), (distances / 2 if self._cosine else distances).cpu().numpy()

    def _nothing(self) -> Pairs:
        kinds = (torch.int64, torch.int64, torch.float32)
        return [torch.empty(0, dtype=kind, device=self._whole.device) for kind in kinds]

    def _with(
        self,
        columns: Int64[Tensor, " c"],
        centered: Float32[Tensor, "c d"],
        rows: Int64[ndarray, " b"],
        found: Pairs,
        k: int,
    ) -> Pairs:
        """The k nearest of each row so far, once the rows `columns` are among the others."""
        own = torch.from_numpy(rows).to(columns.device)
        with whole_float32():
            keys = torch.addmm(self._halves[columns], self._whole[own] - self._center, centered.T, alpha=-1)
        last = np.full(len(rows), np.inf)
        if len(found[2]) == k * len(rows):
            last = found[2].view(-1, k)[:, -1].double().cpu().numpy()
        limits = torch.from_numpy(self._limits(keys, self._sizes[rows], last, k)).to(keys.device)
        row, place = (keys <= limits[:, None]).nonzero(as_tuple=True)
        other = columns[place] != own[row]
        row, column = row[other], columns[place[other]]
        gaps = gaps_between(self._whole, own[row], column)
        places, neighbors, distances = (
            torch.cat(both) for both in zip(found, (row, column, gaps), strict=True)
        )
        return first_pairs(places, neighbors, distances, k)

    def _limits(
        self,
        keys: Float32[Tensor, "b c"],
        sizes: Float64[ndarray, " b"],
        last: Float64[ndarray, " b"],
        k: int,
    ) -> Float32[ndarray, " b"]:
        """For each row a key above none of its k nearest, which lie within the distance `last`.

        A key is half another's squared norm less the inner product. Cut in groups, the k + 1 groups with the
        smallest least key hold as many rows, one of which may be the row itself.
        """
        each, d = max(1, keys.shape[1] // (GROUPS * (k + 1))), self._whole.shape[1]
        groups = keys.shape[1] // each
        if groups > k:
            least = keys[:, : each * groups].unflatten(1, (each, groups)).amin(dim=1)
            key = least.kthvalue(k + 1).values.double().cpu().numpy()
            last = np.minimum(last, gap_bounds(key, sizes, d))
        return key_bounds(last, sizes, d)
