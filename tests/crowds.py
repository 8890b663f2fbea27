"""Points of every sort, and the k-medoids of each."""

from dataclasses import fields
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from alrun.coverage.k_medoids import k_medoids

NONE = np.empty(0, np.int64)


def medoids(
    points, size, *, fixed=(), candidates=None, metric: Any = "euclidean", seed=0, sample=None, sweeps=100
):
    fixed = np.array(fixed, np.int64)
    rest = np.setdiff1d(np.arange(len(points)), fixed) if candidates is None else np.array(candidates)
    rng = np.random.default_rng(seed)
    return k_medoids(points, fixed, rest, size, metric=metric, rng=rng, sample=sample, sweeps=sweeps)


def gaps(points, metric="euclidean"):
    """All distances by definition; zero rows are orthogonal to all but zero rows."""
    wide = points.astype(float)
    if metric == "euclidean":
        return cdist(wide, wide)
    zero = ~wide.any(axis=1)
    wide[zero] = 1
    return np.where(zero[:, None] | zero, (zero[:, None] ^ zero).astype(float), cdist(wide, wide, "cosine"))


def objective(distances, rows):
    return distances[:, list(rows)].min(axis=1).mean()


def crowd(kind, n=120, seed=0):
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(n, 6))
    outlier = plain.copy()
    outlier[n // 2] = 1e8
    zeros = plain.copy()
    zeros[::7] = 0
    points = {
        "plain": plain,
        "one feature": rng.normal(size=(n, 1)),
        "wide": rng.normal(size=(n, 90)),
        "integers": rng.integers(0, 3, (n, 3)),
        "duplicates": plain[rng.integers(8, size=n)],
        "constant": np.full((n, 3), 0.7),
        "zero rows": zeros,
        "an outlier": outlier,
        "far from the origin": plain + 1e4,
        "tight clusters": 100 * plain[rng.integers(5, size=n)] + 1e-3 * plain,
        "tiny": plain * 1e-24,
        "huge": plain * 1e14,
    }[kind]
    return points.astype(np.float32)


KINDS = ["plain", "one feature", "integers", "duplicates", "constant", "zero rows", "an outlier"]
KINDS += ["far from the origin", "tight clusters", "tiny", "huge"]
METRICS = ["euclidean", "cosine"]
CASES = [(kind, metric) for kind in KINDS for metric in METRICS]


def assert_equal(one, other):
    for each in fields(one):
        np.testing.assert_array_equal(getattr(one, each.name), getattr(other, each.name))
