"""k-medoids against the package kmedoids (FasterPAM in Rust); the objectives reached are printed.

scikit-learn-extra is no peer: its last release (0.3.0) is built for NumPy 1 and fails beside NumPy 2.
"""

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy import ndarray
from sklearn.metrics import pairwise_distances

from alrun.coverage.k_medoids import k_medoids
from benches.measure import Contest, Scaling, Way, gemm_rate, mixture

NONE = np.empty(0, np.int64)


def contests(quick: bool) -> Iterator[Contest]:
    """Whole descents where a peer has the memory for its matrix; one sweep, and a sample, beyond."""
    for n in (2_000,) if quick else (5_000, 10_000):
        for size in (20, 100):
            yield from against_peers(n, 64, size)
    for d, size in ((64, 20), (64, 100)) if quick else ((64, 20), (64, 100), (512, 100)):
        yield from alone(10_000 if quick else 50_000, d, size)


def scalings(quick: bool) -> Iterator[Scaling]:
    """One sweep through all candidates, and through 1000."""

    def prepare(sample: int | None) -> Callable[[int], Callable[[], object]]:
        def prepared(n: int) -> Callable[[], object]:
            points = points_of(n, 64)
            return lambda: ours(points, 50, sample, 1)

        return prepared

    sizes = (2_000, 5_000, 10_000) if quick else (5_000, 10_000, 20_000, 40_000)
    yield Scaling("k-medoids, 1 sweep", sizes, prepare(None))
    sizes = (10_000, 20_000) if quick else (10_000, 100_000, 1_000_000)
    yield Scaling("k-medoids, 1 sweep of 1000 candidates", sizes, prepare(1_000))


def against_peers(n: int, d: int, size: int) -> Iterator[Contest]:
    """Each goes on until no swap improves; the peer with the matrix given, and making it first."""
    points, reached = points_of(n, d), {}
    own = told("alrun", lambda: ours(points, size, None, 100), reached)
    peers = ()
    if find_spec("kmedoids"):
        distances = pairwise_distances(points)
        peers = (
            told("kmedoids, matrix given", lambda: fasterpam(distances, size), reached),
            told("kmedoids and matrix", lambda: fasterpam(pairwise_distances(points), size), reached),
        )
    yield contest(own, peers, n, d, size)
    show(reached)


def alone(n: int, d: int, size: int) -> Iterator[Contest]:
    """One sweep through all candidates against a whole descent among a fifth of them."""
    points, reached = points_of(n, d), {}
    own = told("alrun, 1 sweep", lambda: ours(points, size, None, 1), reached)
    few = told("alrun, a fifth as sample", lambda: ours(points, size, n // 5, 100), reached)
    yield contest(own, (few,), n, d, size)
    show(reached)


def contest(own: Way, peers: tuple[Way, ...], n: int, d: int, size: int) -> Contest:
    """The limit is that of one sweep."""
    return Contest(
        "k-medoids",
        f"{n // 1000}k x {d}, {size} medoids",
        own,
        peers,
        2.0 * n * n * d / gemm_rate(2_000, d),
        "n^2 d products of one sweep at GEMM speed",
        "compare; objective within 1 %",
        turns=3,
    )


def told(name: str, work: Callable[[], float], reached: dict[str, float]) -> Way:
    """Work that notes the objective it reaches."""
    return Way(name, lambda: reached.__setitem__(name, work()))


def show(reached: dict[str, float]) -> None:
    """The objectives on one line."""
    print("  mean distance to the nearest medoid: " + ", ".join(f"{k} {v:.4f}" for k, v in reached.items()))


def ours(points: ndarray, size: int, sample: int | None, sweeps: int) -> float:
    """The objective of ours, all rows being candidates."""
    rows, rng = np.arange(len(points)), np.random.default_rng(0)
    return k_medoids(
        points, NONE, rows, size, metric="euclidean", rng=rng, sample=sample, sweeps=sweeps
    ).objective


def fasterpam(distances: ndarray, size: int) -> float:
    """The objective of the peer, in one thread, from its default start."""
    import kmedoids  # pyright: ignore[reportMissingImports]

    return kmedoids.fasterpam(distances, size, random_state=0, n_cpu=1).loss / len(distances)


@cache
def points_of(n: int, d: int) -> ndarray:
    """The data."""
    return mixture(n, d, np.random.default_rng(0))[0]
