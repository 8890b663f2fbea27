"""Greedy k-center and BADGE sampling against torch, scikit-learn, scikit-activeml and small-text."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from numpy import ndarray
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import euclidean_distances

from alrun.coverage.gradients import gradient_sampling
from alrun.coverage.k_center import k_center
from benches.measure import Contest, Scaling, Way, gemm_rate, memory_rate, mixture

LABELED = 100
CLASSES = 10


def contests(quick: bool) -> Iterator[Contest]:
    """Both samplers, k-center also where labels are many and where nothing can be skipped."""
    n, size = (5_000, 100) if quick else (50_000, 1_000)
    points, classes = mixture(n, 512, np.random.default_rng(0))
    yield centers(points, size)
    yield many_labels(points, size)
    yield unstructured(n, size)
    yield badge(likely(points, classes), points, 40 if quick else 200)


def scalings(quick: bool) -> Iterator[Scaling]:
    """200 choices among n candidates of 64 features, 256 MB at a million."""

    def prepare_centers(n: int) -> Callable[[], object]:
        points, _ = mixture(n, 64, np.random.default_rng(0))
        labeled, others = split(n, LABELED)
        return lambda: k_center(points, labeled, others, 200)

    def prepare_badge(n: int) -> Callable[[], object]:
        points, classes = mixture(n, 64, np.random.default_rng(0))
        chances = likely(points, classes)
        return lambda: gradient_sampling(chances, points, 200, np.random.default_rng(0))

    sizes = (10_000, 30_000) if quick else (10_000, 30_000, 100_000, 300_000, 1_000_000)
    yield Scaling("greedy k-center, d=64, 200 choices", sizes, prepare_centers)
    yield Scaling("BADGE sampling, d=64, C=10, 200 choices", sizes, prepare_badge)


def centers(points: ndarray, size: int) -> Contest:
    """From 100 labeled rows."""
    labeled, others = split(len(points), LABELED)
    peers = [
        Way("torch product per choice", lambda: center_products(points, labeled, size)),
        Way("scikit-learn pairwise per choice", lambda: center_pairs(points, labeled, size)),
    ]
    if find_spec("skactiveml"):
        from skactiveml.pool import k_greedy_center  # pyright: ignore[reportMissingImports]

        answers = np.full(len(points), np.nan)
        answers[labeled] = 0
        peers.append(Way("scikit-activeml", lambda: k_greedy_center(points, answers, size, random_state=0)))
    if find_spec("small_text"):
        from small_text.query_strategies.coresets import greedy_coreset  # pyright: ignore[reportMissingImports]

        # It takes all distances to all centers anew for each choice: the first ones are its cheapest.
        peers.append(
            Way(
                "small-text, at its first choices",
                lambda: greedy_coreset(points, others, labeled, 2, distance_metric="euclidean"),
                2 / size,
            )
        )
    return Contest(
        "greedy k-center",
        f"{len(points) // 1000}k x {points.shape[1]}, {LABELED} labeled, {size} choices",
        Way("alrun", lambda: k_center(points, labeled, others, size)),
        tuple(peers),
        *every_distance(points, LABELED + size),
        "<= 1.5 CPU-s, >= 20 x scikit-activeml",
        turns=3,
    )


def many_labels(points: ndarray, size: int) -> Contest:
    """From a tenth of the rows."""
    labeled, others = split(len(points), len(points) // 10)
    return Contest(
        "greedy k-center, many labels",
        f"{len(points) // 1000}k x {points.shape[1]}, {len(labeled)} labeled, {size} choices",
        Way("alrun", lambda: k_center(points, labeled, others, size)),
        (Way("torch product per choice", lambda: center_products(points, labeled, size)),),
        *every_distance(points, len(labeled) + size),
        "",
        turns=3,
    )


def unstructured(n: int, size: int) -> Contest:
    """The worst case: normal noise, where all are about as far from each other and no bound helps."""
    points = np.random.default_rng(0).normal(size=(n, 512)).astype(np.float32)
    labeled, others = split(n, LABELED)
    return Contest(
        "greedy k-center, noise",
        f"{n // 1000}k x 512, {LABELED} labeled, {size} choices",
        Way("alrun", lambda: k_center(points, labeled, others, size)),
        (Way("torch product per choice", lambda: center_products(points, labeled, size)),),
        *every_distance(points, LABELED + size),
        "worst case",
        turns=2,
    )


def badge(chances: ndarray, points: ndarray, size: int) -> Contest:
    """k-means++ on gradients; peers that need the gradients whole are given them, and few choices."""
    few = 4
    gradients = (errors(chances)[:, :, None] * points[:, None, :]).reshape(len(points), -1)
    peers = [
        Way("torch factorized products", lambda: badge_products(chances, points, size)),
        Way("scikit-learn on whole gradients", lambda: badge_pairs(gradients, few), few / size),
    ]
    if find_spec("skactiveml"):
        from skactiveml.pool._badge import _d_2  # pyright: ignore[reportMissingImports]

        nearest = np.full(len(points), np.inf)
        peers.append(
            Way(
                "scikit-activeml's distances on whole gradients",
                lambda: [_d_2(gradients, [row], nearest) for row in range(few)],
                few / size,
            )
        )
    return Contest(
        "BADGE sampling",
        f"{len(points) // 1000}k x {points.shape[1]}, C={CLASSES}, {size} choices",
        Way("alrun", lambda: gradient_sampling(chances, points, size, np.random.default_rng(0))),
        tuple(peers),
        size * (points.nbytes + chances.nbytes) / memory_rate(),
        "all candidates read once a choice; skipping beats it",
        "<= 0.3 CPU-s",
    )


def every_distance(points: ndarray, count: int) -> tuple[float, str]:
    """Seconds that all distances to so many centers take at best, and what that is."""
    flops = 2.0 * points.size * count
    return flops / gemm_rate(4096, points.shape[1]), "all distances at GEMM speed; skipping beats it"


def split(n: int, labeled: int) -> tuple[ndarray, ndarray]:
    """Random labeled rows, and the others."""
    rows = np.random.default_rng(1).permutation(n)
    return np.sort(rows[:labeled]), np.sort(rows[labeled:])


def likely(points: ndarray, classes: ndarray) -> ndarray:
    """Probabilities float32 (n, 10) as of a classifier by class means, logits of standard deviation 3."""
    means = np.stack([points[classes == each].mean(axis=0) for each in range(CLASSES)])
    logits = 2 * points @ means.T - (means**2).sum(axis=1)
    logits *= 3 / logits.std()
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)


def errors(chances: ndarray) -> ndarray:
    """Probabilities less the one-hot likeliest class."""
    less = chances.copy()
    less[np.arange(len(less)), less.argmax(axis=1)] -= 1
    return less


def center_products(points: ndarray, labeled: ndarray, size: int) -> list[int]:
    """One matrix-vector product a choice, all in place: the best that is commonly written."""
    X, sizes = torch.from_numpy(points), torch.from_numpy((points**2).sum(axis=1))
    gaps = torch.full_like(sizes, torch.inf)
    for rows in torch.from_numpy(labeled).split(64):
        block = (X @ X[rows].T).mul_(-2).add_(sizes[:, None]).add_(sizes[rows])
        torch.minimum(gaps, block.amin(dim=1), out=gaps)
    gaps[torch.from_numpy(labeled)] = -torch.inf
    picks = []
    for _ in range(size):
        picks.append(best := int(gaps.argmax()))
        torch.minimum(gaps, torch.mv(X, X[best]).mul_(-2).add_(sizes).add_(sizes[best]), out=gaps)
        gaps[best] = -torch.inf
    return picks


def center_pairs(points: ndarray, labeled: ndarray, size: int) -> list[int]:
    """The usual published code."""
    gaps = pairwise_distances(points, points[labeled]).min(axis=1)
    picks = []
    for _ in range(size):
        picks.append(best := int(gaps.argmax()))
        gaps = np.minimum(gaps, pairwise_distances(points, points[[best]])[:, 0])
    return picks


def badge_products(chances: ndarray, points: ndarray, size: int) -> list[int]:
    """Factorized, two matrix-vector products a choice, all in place."""
    X, A, rng = torch.from_numpy(points), torch.from_numpy(errors(chances)), np.random.default_rng(0)
    squares = (X * X).sum(dim=1) * (A * A).sum(dim=1)
    gaps, picks = torch.full_like(squares, torch.inf), [int(squares.argmax())]
    while len(picks) < size:
        last = picks[-1]
        away = torch.mv(X, X[last]).mul_(torch.mv(A, A[last])).mul_(-2).add_(squares).add_(squares[last])
        torch.minimum(gaps, away, out=gaps).clamp_(min=0)
        gaps[last] = 0
        shares = gaps.double().cumsum(dim=0)
        picks.append(int(torch.searchsorted(shares, rng.random() * float(shares[-1]), right=True)))
    return picks


def badge_pairs(gradients: ndarray, size: int) -> list[int]:
    """The usual published code."""
    rng, picks, gaps = np.random.default_rng(0), [0], np.full(len(gradients), np.inf)
    for _ in range(size):
        gaps = np.minimum(gaps, euclidean_distances(gradients, gradients[picks[-1:]], squared=True)[:, 0])
        shares = np.maximum(gaps, 0).astype(np.float64)
        picks.append(int(rng.choice(len(gradients), p=shares / shares.sum())))
    return picks
