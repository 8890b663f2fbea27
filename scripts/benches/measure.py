"""What a benchmark is, how it is measured, and the machine's own limits.

Our way and its peers take turns in one process, so that drift of the machine meets all of them alike; a ratio
is the median over turns of peer / ours within a turn. Seconds are CPU seconds of the process, all threads.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from alrun.environment import forget_peak_memory, peak_memory


@dataclass(frozen=True)
class Way:
    """One way to do the work. `share` is the part of the work `run` does: its time is divided by it."""

    name: str
    run: Callable[[], Any]
    share: float = 1.0


@dataclass(frozen=True)
class Contest:
    """One line of the table: ours against peers on the same data.

    Attributes:
        item: what is done, e.g. `kNN graph`.
        size: on what, e.g. `50k x 50, k=20`.
        ours: called once before the turns; that first call, with what it compiles, is shown apart.
        peers: those that are not installed are left out by the caller.
        limit: seconds the machine's limit allows, computed from a rate measured in this run; None if none.
        limit_is: of what, e.g. `n^2 d flops of one triangle at GEMM speed`.
        target: what the issue asks, in words.
        turns: how often ours and each peer are run; a slow peer (`slow`, seconds) runs once.
    """

    item: str
    size: str
    ours: Way
    peers: tuple[Way, ...]
    limit: float | None
    limit_is: str
    target: str
    turns: int = 5
    slow: float = 5.0


@dataclass(frozen=True)
class Scaling:
    """Seconds against n: `prepare(n)` makes the data and gives what is timed."""

    item: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Callable[[], Any]]


@dataclass(frozen=True)
class Line:
    """One way measured: CPU seconds (least of its turns), extra peak memory (MiB), and how ours compares.

    `ratio` is this way's time over ours (median over turns), `over_limit` its time over the limit.
    """

    item: str
    size: str
    way: str
    seconds: float
    first_call: float | None
    memory: float
    ratio: float
    limit: float | None
    over_limit: float | None
    limit_is: str
    target: str


def measured(contest: Contest) -> Iterator[Line]:
    """Ours first, then its peers."""
    first, _ = _timed(contest.ours)
    took: dict[str, list[float]] = {way.name: [] for way in (contest.ours, *contest.peers)}
    memory: dict[str, float] = {}
    ratios: dict[str, list[float]] = {name: [] for name in took}
    for turn in range(contest.turns):
        own, own_memory = _timed(contest.ours)
        took[contest.ours.name].append(own)
        ratios[contest.ours.name].append(1.0)
        memory.setdefault(contest.ours.name, own_memory)
        for way in contest.peers:
            if turn and took[way.name][0] * way.share > contest.slow:
                continue
            seconds, extra = _timed(way)
            took[way.name].append(seconds)
            ratios[way.name].append(seconds / own)
            memory.setdefault(way.name, extra)
    for way in (contest.ours, *contest.peers):
        seconds = min(took[way.name])
        yield Line(
            contest.item,
            contest.size,
            way.name if way.share == 1 else f"{way.name} (scaled from {way.share:.2%})",
            seconds,
            first if way is contest.ours else None,
            memory[way.name],
            median(ratios[way.name]),
            contest.limit,
            seconds / contest.limit if contest.limit else None,
            contest.limit_is,
            contest.target if way is contest.ours else "",
        )


def scaled(scaling: Scaling) -> tuple[list[float], float]:
    """CPU seconds at each size (least of two), and the slope of log seconds against log n."""
    seconds = []
    for n in scaling.sizes:
        work = Way(scaling.item, scaling.prepare(n))
        seconds.append(min(_timed(work)[0] for _ in range(2)))
    slope = float(np.polyfit(np.log(scaling.sizes), np.log(seconds), 1)[0])
    return seconds, slope


def mixture(n: int, d: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """Features float32 (n, d) like a trained network's, and classes (n,): ten clusters on a curved sheet.

    The sheet has 16 dimensions; noise of size 0.1 fills the rest.
    """
    classes = rng.choice(10, size=n, p=rng.dirichlet(np.full(10, 8.0)))
    centers, scales = 1.6 * rng.normal(size=(10, 16)), 0.35 + 0.9 * rng.random((10, 16))
    first, second = rng.normal(size=(16, 64)) / 4, rng.normal(size=(64, d)) / 8
    points = np.empty((n, d), np.float32)
    for start in range(0, n, 50_000):
        own = classes[start : start + 50_000]
        sheet = centers[own] + rng.normal(size=(len(own), 16)) * scales[own]
        noise = 0.1 * rng.normal(size=(len(own), d))
        points[start : start + 50_000] = np.maximum(sheet @ first, 0) @ second + noise
    return points, classes


@cache
def gemm_rate(rows: int, width: int) -> float:
    """Flops a second of a float32 product (rows, width) x (width, rows) with torch's threads, CPU time."""
    a, b = torch.randn(rows, width), torch.randn(width, rows)
    work = Way("gemm", lambda: a @ b)
    return 2.0 * rows * rows * width / min(_timed(work)[0] for _ in range(7))


@cache
def memory_rate() -> float:
    """Bytes a second that a copy of 256 MiB reads and writes."""
    a, b = torch.ones(1 << 25, dtype=torch.float64), torch.zeros(1 << 25, dtype=torch.float64)
    return 2.0 * a.nbytes / min(_timed(Way("copy", lambda: b.copy_(a)))[0] for _ in range(7))


def _timed(way: Way) -> tuple[float, float]:
    """CPU seconds and extra peak memory (MiB) of one run."""
    forget_peak_memory(torch.device("cpu"))
    before, start = peak_memory(), time.process_time()
    way.run()
    seconds = time.process_time() - start
    return seconds / way.share, peak_memory() - before
