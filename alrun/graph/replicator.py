"""Graph transduction games: classes that win among a row's neighbors grow there, until nothing moves."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from alrun.graph.walk import Walk
from alrun.pool import NOT_BOUGHT

TURN = 10  # steps between two looks at what has moved: a look waits for the device
FEW = 0.1  # share of rows: below it, those that move are played on by themselves
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class Played:
    """P, and how the game ended.

    Attributes:
        steps: how many were made.
        moving: classes of which some row's share still moved by more than the tolerance in the last step.
    """

    shares: Float32[Tensor, "n c"]
    steps: int
    moving: int


def replicate(
    weights: csr_array,
    labels: Int64[ndarray, " n"],
    classes: int,
    *,
    most: int,
    tolerance: float,
    device: torch.device,
) -> Played:
    """P after P_ic <- P_ic (W P)_ic / sum_c' P_ic' (W P)_ic' until no share moves by more than `tolerance`.

    Labeled rows are one-hot and stay so; the others begin uniform. Rows with W P = 0 stay as they are, and
    where no label reaches all shares stay alike. Rows of P sum to one. Ends after `most` steps at the latest.

    Args:
        weights: symmetric W, without negative entries.
        labels: -1 where none was bought.
        classes: c.
        most: steps, at least 1.
        tolerance: 0 or more.
        device: where P lives.

    Source: Erdem and Pelillo 2012; Elezi et al. 2018 (S3's GTG). Departs: W is the graph of label
    propagation, theirs is dense; once few rows move, only they and their neighbors are played on until they
    rest, and then all again (of 50,000 rows 200 move after 20 steps, and some for a thousand).
    """
    free = np.flatnonzero(labels == NOT_BOUGHT)
    start = np.full((len(labels), classes), 1 / classes, np.float32)
    start[labels != NOT_BOUGHT] = np.eye(classes, dtype=np.float32)[labels[labels != NOT_BOUGHT]]
    shares = torch.from_numpy(start).to(device)
    everyone = _Table(weights, free, device)
    table, steps = everyone, 0
    while True:
        turn = min(TURN, most - steps)
        moved = table.play(shares, turn) > tolerance
        steps += turn
        if steps == most or (table is everyone and not moved.any()):
            return Played(shares, steps, int(moved.any(dim=0).sum()))
        near = _with_neighbors(weights, table.rows[moved.any(dim=1).cpu().numpy()])
        near = near[labels[near] == NOT_BOUGHT]
        # when all rest, everyone plays again: rows left out may move
        few = 0 < len(near) < FEW * len(labels)
        table = _Table(weights, near, device) if few else everyone


class _Table:
    """Rows that play, while all others keep their shares."""

    def __init__(self, weights: csr_array, rows: Int64[ndarray, " r"], device: torch.device) -> None:
        self.rows = rows
        self._at = torch.from_numpy(rows).to(device)
        self._walk = Walk(csr_array(weights[rows]), torch.float32, device)

    def play(self, shares: Float32[Tensor, "n c"], steps: int) -> Float32[Tensor, "r c"]:
        """Makes so many steps, at least one, in `shares`; how far these rows moved in the last."""
        before = after = shares.index_select(0, self._at)
        for _ in range(steps):
            before, grown = after, self._walk.step(shares).mul_(after)
            sums = grown.sum(dim=1, keepdim=True)
            after = torch.where(sums > 0, grown / sums.clamp_min(TINY), before)
            shares.index_copy_(0, self._at, after)
        return (after - before).abs_()


def _with_neighbors(weights: csr_array, rows: Int64[ndarray, " r"]) -> Int64[ndarray, " s"]:
    """These rows and all that have an edge to one of them, ascending."""
    return np.union1d(rows, weights[rows].indices).astype(np.int64)
