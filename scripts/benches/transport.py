"""Exact transport against POT and SciPy, and the c-transform against plain NumPy."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import ot
import torch
from numpy import ndarray
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import eye_array, kron, vstack

from alrun.transport.c_transform import c_transform, metric_transform
from alrun.transport.distances import Metric, costs, points_of
from alrun.transport.semi_discrete import Transport, relaxed, transport
from benches.measure import Contest, Scaling, Way, gemm_rate, memory_rate, mixture

WIDTH = 64  # features


def contests(quick: bool) -> Iterator[Contest]:
    """Transport cold, given exact duals and after a swap; duals of all columns."""
    yield programs()
    sizes = (
        ((5_000, 20),) if quick else ((5_000, 20), (5_000, 180), (20_000, 100), (50_000, 20), (50_000, 180))
    )
    for n, width in sizes:
        case = Case(n, width)
        yield case.solved()
        yield case.swapped()
    for n, width in ((5_000, WIDTH),) if quick else ((20_000, WIDTH), (50_000, WIDTH), (20_000, 512)):
        yield lifted(n, width, "cosine")
        yield lifted(n, width, "euclidean")


def scalings(quick: bool) -> Iterator[Scaling]:
    """Transport to 20 columns."""

    def prepare(n: int) -> Callable[[], object]:
        return partial(transport, Case(n, 20).costs)

    sizes = (10_000, 30_000) if quick else (10_000, 30_000, 100_000, 300_000, 1_000_000)
    yield Scaling("transport to 20 columns", sizes, prepare)


class Case:
    """Euclidean costs from n rows to columns drawn among them."""

    def __init__(self, n: int, width: int) -> None:
        rng = np.random.default_rng(0)
        self.features, _ = mixture(n, WIDTH, rng)
        self.columns = rng.choice(n, width, replace=False)
        self.costs = costs(self.features, self.columns, "euclidean")
        self.size = f"{n:,} x {width}"

    def solved(self) -> Contest:
        """From nothing."""
        solution = transport(self.costs)
        duals = solution.row_duals, solution.column_duals
        peers = [
            Way("ot.emd", lambda: simplex(self.costs)),
            Way("ot.emd, given exact duals", lambda: simplex(self.costs, duals)),
            Way("alrun, given exact duals", lambda: transport(self.costs, solution.column_duals)),
        ]
        if self.costs.size <= 100_000:
            peers.append(Way("ot.emd2_lazy", self._lazily))
        agree(solution, simplex(self.costs))
        return Contest(
            "exact transport",
            self.size,
            Way("alrun", lambda: transport(self.costs)),
            tuple(peers),
            self.costs.nbytes / memory_rate(),
            "one pass over the costs at the speed of memory",
            "25 times ot.emd at 50k; 0.05 s at 50k x 20, 0.5 s at 50k x 180",
        )

    def swapped(self) -> Contest:
        """After one column has been replaced."""
        before = transport(self.costs)
        other = self.costs.copy()
        new = (self.columns[:1] + 7) % len(self.features)
        other[:, :1] = costs(self.features, new, "euclidean")
        first = np.array([0])
        agree(transport(other, relaxed(other, first, before)), transport(other).value)
        return Contest(
            "transport, a column swapped",
            self.size,
            Way("alrun, from relaxed duals", lambda: transport(other, relaxed(other, first, before))),
            (Way("alrun, from nothing", lambda: transport(other)),),
            other.nbytes / memory_rate(),
            "one pass over the costs at the speed of memory",
            "less than from nothing; about 2 ms at 5k",
        )

    def _lazily(self) -> object:
        wide = self.features.astype(np.float64)
        return ot.emd2_lazy(wide, wide[self.columns], metric="euclidean", numItermax=10**8)


def programs() -> Contest:
    """A size at which general solvers finish."""
    case = Case(2_000, 20)
    n, width = case.costs.shape
    sums = vstack([kron(eye_array(n), np.ones((1, width))), kron(np.ones((1, n)), eye_array(width))]).tocsr()
    masses = np.concatenate([np.full(n, 1 / n), np.full(width, 1 / width)])
    repeated = np.repeat(case.costs, n // width, axis=1)
    return Contest(
        "exact transport",
        case.size,
        Way("alrun", lambda: transport(case.costs)),
        (
            Way("ot.emd", lambda: simplex(case.costs)),
            Way(
                "HiGHS simplex",
                lambda: linprog(case.costs.ravel(), A_eq=sums, b_eq=masses, method="highs-ds"),
            ),
            Way(
                "HiGHS interior",
                lambda: linprog(case.costs.ravel(), A_eq=sums, b_eq=masses, method="highs-ipm"),
            ),
            Way("linear_sum_assignment, columns repeated", lambda: linear_sum_assignment(repeated)),
        ),
        case.costs.nbytes / memory_rate(),
        "one pass over the costs at the speed of memory",
        "",
        slow=0.5,
    )


def lifted(n: int, width: int, metric: Metric) -> Contest:
    """Duals of all n columns from duals of the rows."""
    rng = np.random.default_rng(0)
    features, _ = mixture(n, width, rng)
    columns = rng.choice(n, 20, replace=False)
    block = costs(features, columns, metric)
    found = transport(block)
    points, largest = points_of(features, metric), float(block.max())
    share = min(1.0, 2_000 / n)
    peers = [Way("NumPy blocks, float64", lambda: plainly(points, found.row_duals, metric, share), share)]
    if metric == "euclidean":
        fast = partial(metric_transform, found.row_duals, found.column_duals, largest, width)
        peers.append(Way("alrun, by the triangle inequality", fast))
    return Contest(
        "c-transform",
        f"{n:,} x {width}, {metric}",
        Way("alrun", lambda: c_transform(torch.from_numpy(points), found.row_duals, metric)),
        tuple(peers),
        n * n * width / gemm_rate(2048, width),
        "products of half of all pairs at the speed of float32 GEMM",
        "exact, in bounded memory",
        turns=2,
    )


def plainly(points: ndarray, duals: ndarray, metric: Metric, share: float) -> ndarray:
    """Least distance - dual for a share of the columns, 256 at a time, from float64 inner products."""
    wide = points.astype(np.float64)
    sizes = np.einsum("nd,nd->n", wide, wide)
    found = []
    for start in range(0, int(share * len(points)), 256):
        own = slice(start, start + 256)
        squared = np.maximum(sizes[own, None] + sizes - 2 * wide[own] @ wide.T, 0)
        found.append(((np.sqrt(squared) if metric == "euclidean" else squared / 2) - duals).min(axis=1))
    return np.concatenate(found)


def simplex(block: ndarray, duals: tuple[ndarray, ndarray] | None = None) -> float:
    """POT's value."""
    n, width = block.shape
    masses = np.full(n, 1 / n), np.full(width, 1 / width)
    _, notes = ot.emd(*masses, block, numItermax=10**8, log=True, potentials_init=duals)
    if notes["warning"] is not None:
        raise ValueError(f"POT must solve what it is compared on, got {notes['warning']}")
    return float(notes["cost"])


def agree(solution: Transport, value: float) -> None:
    """Raises unless values agree and the duals prove it."""
    far = max(abs(solution.value - value), abs(solution.gap)) / abs(value)
    if far > 1e-9:
        raise ValueError(f"transport must cost {value}, got {solution.value} with a gap of {solution.gap}")
