"""The neighbor graph against FAISS, scikit-learn and pynndescent."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
from numpy import ndarray
from sklearn.neighbors import NearestNeighbors

from alrun.graph.knn import Graph, Knn
from benches.measure import Contest, Scaling, Way, gemm_rate, mixture

K = 20
BRUTE_SHARE = 0.04  # of the queries, on which scikit-learn's time is linear


def contests(quick: bool) -> Iterator[Contest]:
    """Exact search on mixtures and on MNIST where it is at hand, then the approximate one."""
    rng = np.random.default_rng(0)
    for d in (50, 100):
        yield exact(mixture(5_000 if quick else 50_000, d, rng)[0], "mixture")
    if (images := mnist(Path("data"))) is not None:
        yield exact(images[:5_000] if quick else images, "MNIST, PCA")
        yield approximate(images[:5_000] if quick else images, "MNIST, PCA")
    yield approximate(mixture(10_000 if quick else 200_000, 100, rng)[0], "mixture")


def scalings(quick: bool) -> Iterator[Scaling]:
    """As `graph.index=auto` builds it: exact up to 100,000 rows, cells beyond."""

    def prepare(n: int) -> Callable[[], object]:
        points, _ = mixture(n, 50, np.random.default_rng(0))
        return lambda: graph(points, "auto")

    sizes = (10_000, 30_000) if quick else (10_000, 30_000, 100_000, 300_000, 1_000_000)
    yield Scaling("kNN graph, d=50, k=20 (approximate beyond 100k)", sizes, prepare)


def exact(points: ndarray, name: str) -> Contest:
    """All distances; approximate peers with the recall they reach."""
    few = points[: int(BRUTE_SHARE * len(points))]
    brute = NearestNeighbors(n_neighbors=K + 1, algorithm="brute").fit(points)
    peers = [
        Way("FAISS Flat", lambda: flat(points)),
        Way("scikit-learn brute", lambda: brute.kneighbors(few), len(few) / len(points)),
        with_recall("FAISS HNSW", points, lambda: hnsw(points)),
        *descended(points),
    ]
    return Contest(
        "kNN graph, exact",
        size_of(points, name),
        Way("alrun exact", lambda: graph(points, "exact")),
        tuple(peers),
        *triangle(points),
        "<= 0.65 x FAISS Flat, <= 100 MB",
        turns=3,
    )


def approximate(points: ndarray, name: str) -> Contest:
    """Cells against other indexes."""
    peers = [
        with_recall("FAISS IVF-Flat", points, lambda: inverted(points)),
        with_recall("FAISS HNSW", points, lambda: hnsw(points)),
        *descended(points),
    ]
    built = graph(points, "ivf")
    return Contest(
        "kNN graph, approximate",
        size_of(points, name),
        Way(f"alrun ivf, recall {built.recall:.4f}", lambda: graph(points, "ivf")),
        tuple(peers),
        *triangle(points),
        "recall >= 0.99",
        turns=2,
    )


def graph(points: ndarray, index: Literal["auto", "exact", "ivf"]) -> Graph:
    """Ours."""
    return Knn(K, "sqeuclidean", "none", index, 0.99).build(points)


def flat(points: ndarray) -> ndarray:
    """All neighbors by FAISS."""
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return index.search(points, K + 1)[1]


def hnsw(points: ndarray) -> ndarray:
    """Neighbors in a hierarchy of small worlds."""
    index = faiss.IndexHNSWFlat(points.shape[1], 16)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 64
    index.add(points)
    return index.search(points, K + 1)[1]


def inverted(points: ndarray) -> ndarray:
    """Neighbors in 32 of 2 sqrt(n) lists."""
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatL2(points.shape[1]), points.shape[1], int(2 * np.sqrt(len(points)))
    )
    index.cp.niter, index.cp.max_points_per_centroid, index.nprobe = 6, 64, 32
    index.train(points)
    index.add(points)
    return index.search(points, K + 1)[1]


def descended(points: ndarray) -> list[Way]:
    """NN-descent, where installed; its first call compiles for half a minute and is not counted."""
    if not find_spec("pynndescent"):
        return []
    from pynndescent import NNDescent  # pyright: ignore[reportMissingImports]

    def run() -> ndarray:
        index = NNDescent(points, n_neighbors=K + 1, random_state=0, n_jobs=1)
        return index.neighbor_graph[0]  # pyright: ignore[reportOptionalSubscript]

    return [with_recall("pynndescent", points, run)]


def with_recall(name: str, points: ndarray, run: Callable[[], ndarray]) -> Way:
    """A way named with the recall its first run reached, on 500 rows; the row itself counts on both sides.

    Taken without our kernels, so that our first call still compiles them.
    """
    rows = np.linspace(0, len(points) - 1, 500).astype(np.int64)
    _, true = faiss.knn(points[rows], points, K + 1)
    gaps = [
        ((points[near].astype(np.float64) - points[rows][:, None]) ** 2).sum(axis=2)
        for near in (run()[rows], true)
    ]
    recall = (gaps[0] <= gaps[1].max(axis=1, keepdims=True)).mean()
    return Way(f"{name}, recall {recall:.4f}", run)


def triangle(points: ndarray) -> tuple[float, str]:
    """The time of the products of one triangle, and its name."""
    n, d = points.shape
    return n * n * d / gemm_rate(1024, d), "n^2 d flops of one triangle at GEMM speed"


def size_of(points: ndarray, name: str) -> str:
    """The contest's data in words."""
    return f"{name}, {len(points) // 1000}k x {points.shape[1]}, k={K}"


def mnist(folder: Path) -> ndarray | None:
    """The 60,000 training images on their first 50 principal components, if they are in the folder."""
    from torchvision.datasets import MNIST

    try:
        images = MNIST(folder, train=True).data.numpy()
    except RuntimeError:  # not there
        return None
    points = images.reshape(len(images), -1).astype(np.float32) / 255
    points -= points.mean(axis=0)
    axes = np.linalg.eigh(points.T @ points)[1][:, ::-1][:, :50]
    return np.ascontiguousarray(points @ axes)
