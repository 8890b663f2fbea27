"""Candidates from cells: each point is compared with all points of the cells near its own."""

from collections.abc import Callable
from typing import NamedTuple

import faiss
import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64
from numpy import ndarray

from alrun.compiled import COMPILED
from alrun.graph.points import Points, cuts
from alrun.graph.selection import Lists, Tile, workers

NEAREST = 64  # cells near a cell before the effort is doubled: a recall of 0.991 on MNIST, more on mixtures
TILE_ROWS, TILE_COLUMNS = 1024, 16384


class Cells(NamedTuple):
    """Points around their center with their squared norms, sorted by cell, and cells by nearness.

    Cell c holds the points starts[c]:starts[c + 1]; `ranks` (cells, cells) lists all cells, nearest first.
    """

    centered: Float32[ndarray, "m d"]
    sizes: Float64[ndarray, " m"]
    starts: Int64[ndarray, " c+1"]
    ranks: Int64[ndarray, "c c"]

    def near(self, most: int) -> list[ndarray]:
        """For each cell those that have it among their `most` nearest, or are among its own; itself too."""
        near = np.eye(len(self.ranks), dtype=bool)
        np.put_along_axis(near, self.ranks[:, :most], True, axis=1)
        return [np.flatnonzero(row) for row in near | near.T]

    def places(self, of: ndarray) -> Int32[ndarray, " b"]:
        """The points of these cells."""
        runs = zip(self.starts[of].tolist(), self.starts[of + 1].tolist(), strict=True)
        return np.concatenate([np.empty(0, np.int32), *(np.arange(*run, dtype=np.int32) for run in runs)])


def searcher(points: Points, width: int) -> Callable[[int], Int32[ndarray, "m w"]]:
    """A search for `width` candidates of each point; its argument says how often the effort is doubled.

    About 2 sqrt(m) cells by k-means on a seeded sample. Two cells are near if one is among the 64 nearest of
    the other by their means; the products of such a pair serve the points of both.
    Source: inverted lists, Jegou et al. 2011, section IV. Departs: cells are probed for all their points at
    once, so that distances come from products of matrices.
    """
    centered = points.centered(np.float32)
    count = int(2 * np.sqrt(len(points)))
    means = faiss.Kmeans(
        points.width, count, niter=6, seed=0, min_points_per_centroid=1, max_points_per_centroid=64
    )
    means.train(centered)
    nearest = faiss.IndexFlatL2(points.width)
    centers = np.asarray(means.centroids)
    nearest.add(centers)
    cell, ranks = nearest.search(centered, 1)[1].ravel(), nearest.search(centers, count)[1]
    order = np.argsort(cell, kind="stable").astype(np.int32)
    starts = np.searchsorted(cell[order], np.arange(count + 1))
    sorted_by_cell = Cells(centered[order], points.sizes[order], starts, ranks)

    def search(step: int) -> Int32[ndarray, "m w"]:
        near = sorted_by_cell.near(NEAREST << step)
        found = (_compiled if COMPILED else _plain)(sorted_by_cell, near, width)
        own = np.empty_like(found)
        own[order] = np.where(found < 0, -1, order[found])
        return own

    return search


def _compiled(cells: Cells, near: list[ndarray], width: int) -> Int32[ndarray, "m w"]:
    """Each pair of near cells once."""
    lists, memory = Lists.empty(cells.sizes, width), torch.empty(TILE_ROWS * TILE_COLUMNS)
    with workers() as share:
        for cell in range(len(near)):
            own = cells.places(np.array([cell]))
            later = cells.places(near[cell][near[cell] > cell])
            for block in cuts(len(own), TILE_ROWS):
                rows, others = own[block], np.concatenate([own[block.stop :], later])
                points = cells.centered[rows]
                lists.take(share, Tile(points, points, memory), rows, rows, same=True)
                for part in cuts(len(others), TILE_COLUMNS):
                    columns = others[part]
                    tile = Tile(points, cells.centered[columns], memory)
                    lists.take(share, tile, rows, columns, same=False)
    return lists.found


def _plain(cells: Cells, near: list[ndarray], width: int) -> Int32[ndarray, "m w"]:
    """Each cell with all near ones, by torch."""
    found, centered = np.full((len(cells.sizes), width), -1, np.int32), torch.from_numpy(cells.centered)
    halves = torch.from_numpy(cells.sizes / 2).float()
    for cell in range(len(near)):
        columns = torch.from_numpy(cells.places(near[cell])).long()
        for block in cuts(int(cells.starts[cell + 1] - cells.starts[cell]), TILE_ROWS):
            rows = torch.arange(len(cells.sizes))[cells.starts[cell] :][block]
            keys = halves[columns] - centered[rows] @ centered[columns].T
            keys[rows[:, None] == columns] = torch.inf
            least, at = keys.topk(min(width, len(columns)), largest=False)
            found[rows, : at.shape[1]] = torch.where(least.isinf(), -1, columns[at]).numpy()
    return found
