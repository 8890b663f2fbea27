"""What turns a neighbor graph into weights and into a random walk."""

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from alrun.graph.knn import Graph


def affinity(graph: Graph) -> csr_array:
    """W float64 (n, n): W_ij = exp(-rho(i, j) / sigma_i) for j among i's neighbors, else 0.

    sigma_i is the largest distance to a neighbor of i, so every weight is in [1/e, 1], each row holds exactly
    k of them, and W is directed. Where all neighbors are duplicates (sigma_i = 0) the weights are 1.

    Source: S0 section 4.3. Departs: symmetrize `max` takes the larger of W_ij and W_ji, `mean` their mean (an
    edge in one direction alone counts half); rows then hold k weights or more.
    """
    n, k = graph.neighbors.shape
    rho = graph.distances.astype(np.float64)
    sigma = rho.max(axis=1, keepdims=True, initial=0.0)
    weights = np.exp(-rho / np.where(sigma == 0, 1, sigma))
    # A copy of the neighbors: sorted in place, they would no longer stand beside their distances.
    directed = csr_array((weights.ravel(), graph.neighbors.flatten(), k * np.arange(n + 1)), shape=(n, n))
    directed.sort_indices()
    if graph.symmetrize == "max":
        return csr_array(directed.maximum(directed.T))
    if graph.symmetrize == "mean":
        return csr_array((directed + directed.T) / 2)
    return directed


def transition(weights: csr_array) -> csr_array:
    """M = D^-1 W with D_ii = sum_j W_ij: rows sum to one, a row without neighbors stays zero.

    Source: S0 section 4.3.
    """
    degree = np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
    return csr_array((weights.data / degree, weights.indices, weights.indptr), shape=weights.shape)


def similarity(graph: Graph, gamma: float) -> csr_array:
    """S = D^-1/2 (A + A^T) D^-1/2 float64 with a_ij = max(cos(i, j), 0)^gamma for j among i's neighbors.

    Mutual neighbors count twice. A row whose neighbors all have cos <= 0 is zero. The graph's metric must be
    cosine: its distances are 1 - cos.

    Source: S3 section 3.2 (ALGORITHMS 4.1), gamma 3.
    """
    n, k = graph.neighbors.shape
    cosines = np.maximum(1.0 - graph.distances.astype(np.float64), 0.0)
    directed = csr_array(
        ((cosines**gamma).ravel(), graph.neighbors.ravel(), k * np.arange(n + 1)), shape=(n, n)
    )
    both = csr_array(directed + directed.T)
    degrees = both.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(degrees), out=np.zeros(n), where=degrees > 0)
    data = both.data * np.repeat(scale, np.diff(both.indptr)) * scale[both.indices]
    return csr_array((data, both.indices, both.indptr), shape=(n, n))


def components(weights: csr_array) -> int:
    """Number of weakly connected components."""
    return int(connected_components(weights, directed=True, connection="weak", return_labels=False))


def hub_free(weights: csr_array) -> Bool[ndarray, " n"]:
    """Rows that are nobody's neighbor: the walk never comes to them, so their label spreads to no one."""
    return np.bincount(weights.indices, minlength=len(weights.indptr) - 1) == 0
