"""Nearest neighbors by plain torch: the way of GPUs, and of the CPU without compiled kernels."""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.compiled import whole_float32
from alrun.graph.points import FLOOR, SPARE, Points, cuts, ranked_on, slack, squared_distances, uncertain
from alrun.pool import BLOCK_BYTES

TILE_ROWS, TILE_COLUMNS = 4096, 32768  # 512 MiB of float32, so that one selection keeps a GPU busy


def exact_on(
    points: Points, k: int, device: torch.device
) -> tuple[Int64[ndarray, "m k"], Float32[ndarray, "m k"]]:
    """As `alrun.graph.exact.exact`, with all points as one tensor on the device."""
    whole = torch.from_numpy(points.take()).to(device)
    found, edge = _candidates(points, whole, min(len(points) - 1, k + SPARE))
    neighbors, distances = (part.cpu().numpy() for part in ranked_on(whole, found, k))
    at = uncertain(points, found.cpu().numpy(), edge.cpu().numpy(), distances[:, -1])
    if len(at):
        neighbors[at], distances[at] = among_all_on(points, whole, at, distances[at, -1], k)
    return neighbors, distances


def _candidates(points: Points, whole: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each point the `width` others nearest by float32 products, and their largest distance (float64).

    `whole` holds all points on the device. Further memory there: a copy, a tile and its selection.
    """
    device = whole.device
    centered = whole - torch.from_numpy(points.center).to(device)
    halves = torch.from_numpy(points.sizes / 2).to(device)
    found = torch.empty((len(whole), width), dtype=torch.int32, device=device)
    edge = torch.empty(len(whole), dtype=torch.float64, device=device)
    for rows in cuts(len(whole), TILE_ROWS):
        keys = torch.empty((rows.stop - rows.start, 0), device=device)
        near = torch.empty((rows.stop - rows.start, 0), dtype=torch.int64, device=device)
        for columns in cuts(len(whole), TILE_COLUMNS):
            with whole_float32():
                tile = halves[columns].float() - centered[rows] @ centered[columns].T
            own = torch.arange(rows.start, rows.stop, device=device)
            own = own[(columns.start <= own) & (own < columns.stop)]
            tile[own - rows.start, own - columns.start] = torch.inf
            least, at = tile.topk(min(width, tile.shape[1]), largest=False)
            keys, near = torch.cat([keys, least], 1), torch.cat([near, at + columns.start], 1)
            keys, order = keys.topk(min(width, keys.shape[1]), largest=False)
            near = near.gather(1, order)
        found[rows] = near.int()
        edge[rows] = 2 * (keys.max(dim=1).values.double() + halves[rows])
    return found, edge


def among_all_on(
    points: Points,
    whole: torch.Tensor,
    at: Int64[ndarray, " r"],
    last: Float32[ndarray, " r"],
    k: int,
) -> tuple[Int64[ndarray, "r k"], Float32[ndarray, "r k"]]:
    """As `alrun.graph.exact.among_all`, for all points as one tensor, on its device."""
    center = torch.from_numpy(points.center).to(whole.device).double()
    neighbors, distances = np.empty((len(at), k), np.int64), np.empty((len(at), k), np.float32)
    each = min(len(whole), TILE_COLUMNS)
    for block in cuts(len(at), BLOCK_BYTES // (8 * each)):
        own = torch.from_numpy(at[block]).to(whole.device)
        bound = torch.from_numpy(last[block]).to(whole.device).double()
        best = [
            torch.empty(0, dtype=kind, device=whole.device)
            for kind in (torch.int64, torch.int64, torch.float32)
        ]
        for columns in cuts(len(whole), each):
            pairs = _within_reach(whole, center, own, columns, bound)
            gaps = gaps_between(whole, own[pairs[0]], pairs[1])
            row, column, length = (torch.cat(both) for both in zip(best, (*pairs, gaps), strict=True))
            best = first_pairs(row, column, length, k)
        neighbors[block] = best[1].view(-1, k).cpu().numpy()
        distances[block] = best[2].view(-1, k).cpu().numpy()
    return neighbors, distances


def _within_reach(
    whole: torch.Tensor, center: torch.Tensor, own: torch.Tensor, columns: slice, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (place in own, point among the columns) that may be as near as `last`."""
    mine, theirs = whole[own].double() - center, whole[columns].double() - center
    sizes = (mine * mine).sum(dim=1)
    gaps = sizes[:, None] + (theirs * theirs).sum(dim=1) - 2 * mine @ theirs.T
    # What rounds to the same float32 as the k-th distance ties with it.
    error = 4 * slack(whole.shape[1], np.float64) * (2 * sizes.sqrt() + last.sqrt()) ** 2 + 4 * FLOOR
    row, column = torch.nonzero(gaps <= (last * (1 + 2.0**-22) + error)[:, None], as_tuple=True)
    column = column + columns.start
    other = column != own[row]
    return row[other], column[other]


def gaps_between(whole: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared distances of pairs of points."""
    blocks = list(cuts(len(first), BLOCK_BYTES // (32 * whole.shape[1])))
    gaps = [squared_distances(whole[first[block]], whole[second[block]]) for block in blocks]
    return torch.cat(gaps) if gaps else torch.empty(0, device=whole.device)


def first_pairs(row: torch.Tensor, column: torch.Tensor, gaps: torch.Tensor, k: int) -> list[torch.Tensor]:
    """The first k pairs of each row by (distance, column)."""
    order = torch.argsort(column, stable=True)
    order = order[torch.argsort(gaps[order], stable=True)]
    order = order[torch.argsort(row[order], stable=True)]
    row, column, gaps = row[order], column[order], gaps[order]
    kept = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row) < k
    return [row[kept], column[kept], gaps[kept]]
