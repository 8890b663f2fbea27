"""A batch query whose data stay on the device: full re-diffusion, and no host round trip until its end."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from alrun.graph.batch_query import TIED, Picked, Query, Ranks, Situation
from alrun.graph.kernels import hub_free, transition
from alrun.graph.least import DROPPED
from alrun.graph.walk import Walk

DeviceScore = Callable[[Float[Tensor, "n c"]], Float[Tensor, " n"]]


def resident_query(
    at: Situation,
    size: int,
    query: Query,
    score: DeviceScore,
    clamps: Float32[ndarray, "n c"],
    device: torch.device,
    ranks: Ranks = None,
) -> Picked:
    """What `batch_query` picks where a row's clamp is known beforehand: row i is clamped to clamps_i.

    Every mini-batch diffuses from the start: on a GPU a step is a launch, and following changes costs more.
    No branch depends on a value on the device (B.1 and B.3 are chosen there), so launches run ahead.
    """
    size = min(size, len(at.candidates))
    state = _Resident(at, query, score, clamps, device, ranks)
    unreached = (~state.diffused()[1]).sum()
    rows, scores, explored = [], [], []
    for begun in range(0, size, query.mini_batch):
        found = state.picked(min(query.mini_batch, size - begun))
        for whole, part in zip((rows, scores, explored), found, strict=True):
            whole.append(part)
    picks, explored = _joined(rows, np.int64), _joined(explored, bool)
    lonely = hub_free(at.weights)[picks[explored]]
    kept = _joined(scores, np.float64)
    return Picked(picks, kept, int(unreached), int(state.steps), int(explored.sum()), int(lonely.sum()))


class _Resident:
    """The query's state: starts, what is clamped and open, and the steps of the next mini-batch."""

    def __init__(
        self,
        at: Situation,
        query: Query,
        score: DeviceScore,
        clamps: Float32[ndarray, "n c"],
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.query, self.score = query, score
        self.dropped = DROPPED[at.start.dtype]
        self.start = torch.from_numpy(at.start).to(device, copy=True)
        self.clamps = torch.from_numpy(clamps).to(device, self.start.dtype)
        self.clamped = torch.from_numpy(at.labeled).to(device, copy=True)
        self.open = torch.zeros_like(self.clamped)
        self.open[torch.from_numpy(at.candidates).to(device)] = True
        self.walk = Walk(transition(at.weights), self.start.dtype, device)
        if ranks is None:
            ranks = at.weights.sum(axis=1 if query.influence == "row" else 0).round(TIED)
        self.influence = torch.from_numpy(ranks).to(device)
        self.steps = torch.tensor(query.steps, device=device)
        self.backward = torch.arange(len(at.start), 0, -1, device=device)

    def diffused(self) -> tuple[Float[Tensor, "n c"], Bool[Tensor, " n"]]:
        """chi^(steps), and what is reached within as many steps; later steps are made and not used."""
        x = values = self.start
        found = reached = self.clamped
        for step in range(1, self.query.steps + 1):
            x = torch.where(self.clamped[:, None], self.start, self.walk.step(x))
            found = found | (self.walk.step(found[:, None].to(x.dtype))[:, 0] > 0)
            used = self.steps >= step
            values, reached = torch.where(used, x, values), torch.where(used, found, reached)
        return values, reached

    def picked(self, p: int) -> tuple[Int64[Tensor, " p"], Float64[Tensor, " p"], Bool[Tensor, " p"]]:
        """The next p rows with their scores, and whether B.1 chose them; they are clamped."""
        values, reached = self.diffused()
        scores, dark = self.score(values).double(), self.open & ~reached
        explore = (dark.sum() > p) & (not self.query.soft)
        bits = (scores.view(torch.int64) + (1 << (self.dropped - 1))) >> self.dropped << self.dropped
        rounded = torch.where(self.open, bits.view(torch.float64), torch.inf)
        keys = torch.where(explore, torch.where(dark, -self.influence, torch.inf), rounded)
        rows = self._smallest(keys, p)
        self.start[rows] = self.clamps[rows]
        self.clamped.index_fill_(0, rows, True)
        self.open.index_fill_(0, rows, False)
        if self.query.shrink_below is not None:
            few = (~reached).sum() < self.query.shrink_below * len(reached)
            self.steps = torch.where(few, (self.steps - 1).clamp_min(1), self.steps)
        return rows, scores[rows], explore.expand(p)

    def _smallest(self, keys: Float64[Tensor, " n"], p: int) -> Int64[Tensor, " p"]:
        """By (key, row): topk breaks ties as it likes, so rows at the last key are counted from the first."""
        last = keys.topk(p, largest=False).values[-1]
        below, level = keys < last, keys == last
        chosen = below | (level & (level.cumsum(0) <= p - below.sum()))
        rows = torch.where(chosen, self.backward, 0).topk(p).indices  # ascending
        return rows[keys[rows].sort(stable=True).indices]


def _joined(parts: list[Tensor], kind: type) -> ndarray:
    return torch.cat(parts).cpu().numpy() if parts else np.empty(0, kind)
