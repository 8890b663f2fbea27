"""k-medoids as a selection to begin with."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alrun.coverage.k_medoids import k_medoids
from alrun.wasserstein.ascent import Task


def medoids(
    task: Task, rng: np.random.Generator, sweeps: int, in_time: Callable[[], bool] = lambda: True
) -> Int64[ndarray, " b"]:
    """The task's fixed rows and medoids beside them, as `k_medoids` finds them."""
    found = k_medoids(
        task.ground.points,  # unit rows lie in Euclidean space as their cosine distances do
        task.fixed,
        task.candidates,
        task.free,
        metric=task.ground.metric,
        rng=rng,
        sample=None,
        sweeps=sweeps,
        in_time=in_time,
    )
    return np.concatenate([task.fixed, found.rows])
