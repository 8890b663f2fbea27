"""Label diffusion and label propagation against SciPy and torch."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from numpy import ndarray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import cg

from alrun.graph.batch_query import Query, Situation, batch_query
from alrun.graph.diffusion import clamp_values
from alrun.graph.kernels import affinity, similarity, transition
from alrun.graph.knn import Graph, Knn
from alrun.graph.propagation import Solve, propagate
from alrun.graph.uncertainty import min_abs
from alrun.graph.walk import Walk
from benches.measure import Contest, Scaling, Way, memory_rate, mixture

CPU = torch.device("cpu")


def contests(quick: bool) -> Iterator[Contest]:
    """Steps, queries and solves."""
    n = 10_000 if quick else 50_000
    case = Case(n, 20)
    for classes in (10, 100):
        yield step(case, classes)
    if not quick:
        yield shuffled(1_000_000)
    for steps, mini_batch in ((4, 1), (4, 5), (8, 5)):
        yield query(case, steps, mini_batch)
    yield solve(n)


def scalings(quick: bool) -> Iterator[Scaling]:
    """Ten mini-batches of five and their diffusion, on graphs whose neighbors are near in row."""

    def prepare(n: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        graph = near_graph(n, 20, rng)
        case = Case.of(graph, rng.integers(10, size=n))
        return lambda: case.picked(4, 5, 10)

    sizes = (10_000, 30_000) if quick else (10_000, 30_000, 100_000, 300_000, 1_000_000)
    yield Scaling("diffusion query, 10 mini-batches of 5", sizes, prepare)


class Case:
    """A graph of n rows and k neighbors with 200 labels of ten classes."""

    def __init__(self, n: int, k: int) -> None:
        points, labels = mixture(n, 50, np.random.default_rng(0))
        self._fill(Knn(k, "sqeuclidean", "none", "exact", 0.99).build(points), labels)

    @classmethod
    def of(cls, graph: Graph, labels: ndarray) -> "Case":
        """On a graph that is there."""
        case = cls.__new__(cls)
        case._fill(graph, labels)
        return case

    def _fill(self, graph: Graph, labels: ndarray) -> None:
        self.n, self.labels = len(graph), labels
        self.weights = affinity(graph)
        self.walk = transition(self.weights)
        self.labeled = np.zeros(self.n, bool)
        self.labeled[np.random.default_rng(1).choice(self.n, 200, replace=False)] = True
        self.start = np.zeros((self.n, 10), np.float32)
        self.start[self.labeled] = clamp_values(labels[self.labeled], 10)

    def picked(self, steps: int, mini_batch: int, rounds: int) -> ndarray:
        """Our query."""
        at = Situation(self.weights, self.start, self.labeled, np.flatnonzero(~self.labeled))
        settings = Query(steps, mini_batch, None, "row", False)
        truth = self.labels
        return batch_query(
            at, rounds * mini_batch, settings, min_abs, lambda rows, _: clamp_values(truth[rows], 10)
        ).rows

    def by_scipy(self, steps: int, mini_batch: int, rounds: int) -> None:
        """As one writes it: float64, every round from the start, all rows sorted."""
        start, labeled = self.start.astype(float), self.labeled.copy()
        for _ in range(rounds):
            values = start.copy()
            for _ in range(steps):
                values = self.walk @ values
                values[labeled] = start[labeled]
            scores = np.abs(values).min(axis=1)
            scores[labeled] = np.inf
            self._buy(np.argsort(scores, kind="stable")[:mini_batch], start, labeled)

    def by_torch(self, steps: int, mini_batch: int, rounds: int) -> None:
        """Every round from the start by embedding_bag, float32, partial selection."""
        walk = Walk(self.walk, torch.float32, CPU)
        start, labeled = self.start.copy(), self.labeled.copy()
        for _ in range(rounds):
            values = torch.from_numpy(start)
            tied = torch.from_numpy(np.flatnonzero(labeled))
            for _ in range(steps):
                values = walk.step(values).index_copy_(0, tied, torch.from_numpy(start)[tied])
            scores = values.abs().amin(dim=1)
            scores[tied] = torch.inf
            self._buy(scores.topk(mini_batch, largest=False).indices.numpy(), start, labeled)

    def _buy(self, rows: ndarray, start: ndarray, labeled: ndarray) -> None:
        start[rows], labeled[rows] = clamp_values(self.labels[rows], 10), True


def step(case: Case, classes: int) -> Contest:
    """One full step."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(case.n, classes)).astype(np.float32))
    own, wide = Walk(case.walk, torch.float32, CPU), values.double().numpy()
    matrix, times = case.walk, 20
    k = matrix.nnz // case.n
    neighbors = torch.from_numpy(matrix.indices.reshape(-1, k).astype(np.int32))
    weights = torch.from_numpy(matrix.data.reshape(-1, k).astype(np.float32))
    bag = torch.nn.functional.embedding_bag

    def often(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                work()

        return run

    read = matrix.nnz * 8 + 3 * values.nbytes
    return Contest(
        "diffusion step",
        f"{case.n // 1000}k, K={k}, C={classes}, x{times}",
        Way("alrun", often(lambda: own.step(values))),
        (
            Way(
                "torch embedding_bag",
                often(lambda: bag(neighbors, values, per_sample_weights=weights, mode="sum")),
            ),
            Way("SciPy float64", often(lambda: matrix @ wide)),
        ),
        times * read / memory_rate(),
        "graph and values read once, result written once",
        "<= 1.15 x embedding_bag",
    )


def shuffled(n: int) -> Contest:
    """One step where values leave the cache and rows come in no order."""
    rng = np.random.default_rng(0)
    matrix = transition(affinity(near_graph(n, 20, rng, shuffle=True)))
    values = torch.from_numpy(rng.normal(size=(n, 10)).astype(np.float32))
    own = Walk(matrix, torch.float32, CPU, ordered=True)
    neighbors = torch.from_numpy(matrix.indices.reshape(n, -1).astype(np.int32))
    weights = torch.from_numpy(matrix.data.reshape(n, -1).astype(np.float32))
    bag = torch.nn.functional.embedding_bag
    wide = values.double().numpy()
    return Contest(
        "diffusion step, shuffled rows",
        f"{n // 1_000_000}M, K=20, C=10",
        Way("alrun", lambda: own.step(values)),
        (
            Way(
                "torch embedding_bag", lambda: bag(neighbors, values, per_sample_weights=weights, mode="sum")
            ),
            Way("SciPy float64", lambda: matrix @ wide),
            Way("alrun, finding the order too", lambda: Walk(matrix, torch.float32, CPU, ordered=True)),
        ),
        (matrix.nnz * 8 + 3 * values.nbytes) / memory_rate(),
        "graph and values read once, result written once",
        "locality order at a million rows",
    )


def query(case: Case, steps: int, mini_batch: int) -> Contest:
    """200 mini-batches."""
    rounds, few = 200, 5
    full = steps * (case.walk.nnz * 8 + 3 * case.start.nbytes) / memory_rate()
    return Contest(
        "diffusion query",
        f"{case.n // 1000}k, C=10, K=20, T={steps}, P={mini_batch}, R={rounds}",
        Way("alrun", lambda: case.picked(steps, mini_batch, rounds)),
        (
            Way("SciPy float64", lambda: case.by_scipy(steps, mini_batch, few), few / rounds),
            Way("torch embedding_bag", lambda: case.by_torch(steps, mini_batch, rounds)),
        ),
        rounds * full,
        "full re-diffusion at memory speed",
        "<= 0.5 CPU-s, >= 15 x SciPy" if (steps, mini_batch) == (4, 5) else "never slower than full",
        turns=3,
    )


def solve(n: int) -> Contest:
    """Twenty iterations for ten classes."""
    points, labels = mixture(n, 50, np.random.default_rng(0))
    S = similarity(Knn(50, "cosine", "none", "exact", 0.99).build(points), 3.0)
    start = np.zeros((n, 10), np.float32)
    rows = np.random.default_rng(0).choice(n, 500, replace=False)
    start[rows, labels[rows]] = 1
    system, wide = csr_array(eye_array(n) - 0.99 * S), start.astype(float)
    peers = [
        Way(
            "SciPy cg per class",
            lambda: [cg(system, wide[:, c], rtol=0, maxiter=20)[0] for c in range(10)],
        )
    ]
    if find_spec("graphlearning"):
        from graphlearning.utils import conjgrad  # pyright: ignore[reportMissingImports]

        peers.append(Way("graphlearning conjgrad", lambda: conjgrad(system, wide, max_iter=20, tol=0.0)))
    read = 20 * (S.nnz * 8 + 14 * start.nbytes)
    return Contest(
        "label propagation solve",
        f"{n // 1000}k, k=50, C=10, 20 iterations",
        Way("alrun", lambda: propagate(S, start, Solve(0.99, 20, 0.0))),
        tuple(peers),
        read / memory_rate(),
        "S and 14 blocks of values an iteration at memory speed",
        "<= 0.15 s, >= 7 x SciPy per class",
    )


def near_graph(n: int, k: int, rng: np.random.Generator, shuffle: bool = False) -> Graph:
    """Neighbors within 400 rows, at random distances; with the rows shuffled, or in order."""
    names = rng.permutation(n) if shuffle else np.arange(n)
    steps = rng.integers(1, 401, size=(n, k)) * rng.choice([-1, 1], size=(n, k))
    neighbors = np.empty((n, k), np.int64)
    neighbors[names] = names[(np.arange(n)[:, None] + steps) % n]
    return Graph(neighbors, np.sort(rng.random((n, k)), axis=1).astype(np.float32), "none", 1.0)
