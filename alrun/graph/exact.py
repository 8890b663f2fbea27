"""Exact nearest neighbors: candidates from inner products, ranked by differences, each row certified."""

from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel
from alrun.graph.points import FLOOR, SPARE, Points, cuts, insert, ranked, room, slack, uncertain, write_gaps
from alrun.graph.selection import STRIPE, Lists, Share, Tile, workers
from alrun.graph.tiles import among_all_on, exact_on

TILE = 1024  # products of 1024 rows with 1024 rows stay in the cache; with 2048 a search takes 10 % longer

Found = tuple[Int32[ndarray, "m w"], Float64[ndarray, " m"]]
Neighbors = tuple[Int64[ndarray, "m k"], Float32[ndarray, "m k"]]


def exact(points: Points, k: int, device: torch.device) -> Neighbors:
    """The k nearest other points of each point by (distance, place), 1 <= k < m, and the distances.

    Candidates are the nearest k + 4 by float32 inner products; rows where these may not hold all neighbors
    are searched again.
    """
    if device.type != "cpu":
        return exact_on(points, k, device)
    width = min(len(points) - 1, k + SPARE)
    found, edge = _swept(points, width) if COMPILED else _flat(points, width)
    neighbors, distances = ranked(points, found, k)
    at = uncertain(points, found, edge, distances[:, -1])
    if len(at):
        neighbors[at], distances[at] = among_all(points, at, distances[at, -1], k)
    return neighbors, distances


def among_all(points: Points, at: Int64[ndarray, " r"], last: Float32[ndarray, " r"], k: int) -> Neighbors:
    """The k nearest other points of the points `at`, which have k others within the squared distance `last`.

    Whatever float64 inner products leave in doubt is compared by its distance.
    """
    if not COMPILED:
        return among_all_on(points, torch.from_numpy(points.take()), at, last, k)
    neighbors, distances = np.full((len(at), k), len(points), np.int64), np.repeat(last[:, None], k, 1)
    memory, error = torch.empty(TILE * TILE, dtype=torch.float64), 4 * slack(points.width, np.float64)
    with workers() as share:
        for rows in cuts(len(at), TILE):
            own = points.centered(np.float64, at[rows])
            sizes, best = np.einsum("be,be->b", own, own), (neighbors[rows], distances[rows])
            for columns in cuts(len(points), TILE):
                others = points.centered(np.float64, columns)
                halves = np.einsum("be,be->b", others, others) / 2
                tile, rest = Tile(own, others, memory), (sizes, halves, columns.start, error, best)
                _settle_rows(share, tile, points.data, at[rows], *rest)
    return neighbors, distances


def _swept(points: Points, width: int) -> Found:
    """Candidates from one triangle of square tiles, each of which serves its rows and its columns.

    Tiles come by diagonals: where rows that follow each other are alike, the nearest are met first, and few
    keys after them pass.
    """
    lists, memory = Lists.empty(points.sizes, width), torch.empty(TILE * TILE)
    places, blocks = np.arange(len(points), dtype=np.int32), list(cuts(len(points), TILE))
    with workers() as share:
        for step in range(len(blocks)):
            for rows, columns in zip(blocks, blocks[step:], strict=False):
                own, others = points.centered(np.float32, rows), points.centered(np.float32, columns)
                lists.take(share, Tile(own, others, memory), places[rows], places[columns], step == 0)
    return lists.found, lists.edge


def _flat(points: Points, width: int) -> Found:
    """Candidates from FAISS, which finds the points themselves too."""
    centered = points.centered(np.float32)
    index = faiss.IndexFlatL2(points.width)
    index.add(centered)
    gaps, found = index.search(centered, width + 1)
    return found.astype(np.int32), gaps[:, -1].astype(np.float64)


def _settle_rows(share: Share, tile: Tile, *rest: Any) -> None:
    """A tile's pairs that may be neighbors put in the lists of its rows."""
    share(lambda start, stop: _settle(tile.products(start, stop), *rest, start, stop), len(tile.own))


@kernel
def _settle(tile, data, points, sizes, halves, column, error, best, start, stop):
    near, gaps, memory = np.empty(STRIPE, np.int32), np.empty(STRIPE, np.float32), room(data, STRIPE)
    for i in range(start, stop):
        neighbors, distances = best[0][i], best[1][i]
        limit = _limit(sizes[i], distances[-1], error)
        for at in range(0, tile.shape[1], STRIPE):
            products, half = tile[i, at : at + STRIPE], halves[at : at + STRIPE]
            hits = products.shape[0] < STRIPE
            if not hits:
                for j in range(STRIPE):
                    hits |= half[j] - products[j] <= limit
            if hits:
                count = 0
                for j in range(products.shape[0]):
                    if half[j] - products[j] <= limit:
                        near[count] = column + at + j
                        count += 1
                write_gaps(data, points[i], near[:count], gaps, memory)
                insert(neighbors, distances, near[:count], gaps, neighbors.shape[0])
                limit = _limit(sizes[i], distances[-1], error)


@kernel
def _limit(size, last, error):
    """What a key is at most where a distance can be `last` or round to it in float32."""
    last = np.float64(last)
    reach = last * (1 + 2.0**-22) + error * (2 * np.sqrt(size) + np.sqrt(last)) ** 2 + 4 * FLOOR
    return (reach - size) / 2
