"""Seeded k-means: pseudo-labels that need no label."""

import warnings

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray
from threadpoolctl import threadpool_limits

from alrun.coverage.distances import check_moderate

WHOLE = 50  # clusters up to which each step reads all rows
MINI_BATCH = 5000  # rows a step reads beyond


def k_means(points: Float32[ndarray, "n d"], count: int, rng: np.random.Generator) -> Int64[ndarray, " n"]:
    """Each row's cluster, in 0..min(count, n)-1; some stay empty where fewer rows are distinct.

    From one k-means++ start; each step reads all rows up to 50 clusters, and 5,000 drawn ones beyond. One
    thread adds up, so that the clusters do not depend on how many there are.

    Raises:
        ValueError: a feature that is no number below 1e15 in size.
    Source: Hacohen et al. 2022 and the authors' code, for which of the two is taken when.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans  # its import takes seconds
    from sklearn.exceptions import ConvergenceWarning

    check_moderate(points)
    count, seed = min(count, len(points)), int(rng.integers(2**31))
    if count <= WHOLE:
        means = KMeans(count, random_state=seed)
    else:
        means = MiniBatchKMeans(count, batch_size=MINI_BATCH, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # says that fewer rows are distinct
        return means.fit_predict(points).astype(np.int64)
