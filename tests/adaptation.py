"""A pool that differs from its labeled source, and f-DAL at the size of a test."""

import numpy as np
from conftest import part, unlabeled

from alrun.cache import scratch
from alrun.features.fdal import Fdal
from alrun.pool import Inputs, Pool, Source


def refuse(rows: np.ndarray) -> np.ndarray:
    raise AssertionError("asked for embeddings")


def fdal(*words: str) -> Fdal:
    small = ("backbone.hidden=[]", "bottleneck=8", "epochs=2", "steps=5", "batch_size=16")
    return part("featurizer", "featurizer=fdal", *(f"featurizer.{word}" for word in (*small, *words)))


def turned(count: int = 60, seed: int = 0) -> tuple[Pool, np.ndarray]:
    """Three classes on a circle, which in the pool is turned by 34 degrees and shifted in two more numbers.

    Its true labels beside it.
    """
    rng = np.random.default_rng(seed)

    def items(labels: np.ndarray, turn: float, shift: float) -> np.ndarray:
        angle = labels * 2 * np.pi / 3 + turn
        circle = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.5 * rng.normal(size=(count, 2))
        return np.concatenate([circle, rng.normal(size=(count, 2)) + shift], 1).astype(np.float32)

    truth, known = rng.integers(0, 3, (2, count))
    pool = unlabeled(items(truth, 0.6, 1.5), 3)
    return Pool(pool.inputs, pool.labels, 3, Source(Inputs(items(known, 0.0, 0.0)), known)), truth


def made(featurizer: Fdal, pool: Pool, folder, seed: int = 0) -> np.ndarray:
    return featurizer.make(pool, refuse, np.random.default_rng(seed), scratch(folder))
