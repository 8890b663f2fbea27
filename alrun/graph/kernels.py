"""What turns a neighbor graph into weights and into a random walk."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from alrun.graph.knn import Graph

ROUNDING = 1e-6  # what rounding to float32 can make of a cosine of 0, and more


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


def without_zeros(graph: Graph, features: Float32[ndarray, "n d"]) -> Graph:
    """A cosine graph whose rows of zeros, which have no direction, are near to no row, nor to each other."""
    zero = (features == 0).all(axis=1)
    if not zero.any():
        return graph
    return replace(graph, distances=np.where(zero[:, None], np.float32(1), graph.distances))


def self_taken_first(graph: Graph) -> Graph:
    """A cosine graph in which rows that have a duplicate before them have lost the first of these.

    Source: the reference code of S3 takes the first of k + 1 nearest rows for the row itself (ALGORITHMS 4.3,
    item 3). Departs: there the order among duplicates is FAISS's, here it is that of rows.
    """
    lost = (graph.distances == 0) & (graph.neighbors < np.arange(len(graph))[:, None])
    lost[:, 1:] = False
    return replace(graph, distances=np.where(lost, np.float32(1), graph.distances))


def cosine_affinity(graph: Graph, gamma: float, *, signed: bool) -> csr_array:
    """W = A + A^T float64 (n, n) with a_ij = max(cos(i, j), 0)^gamma for j among i's neighbors, else 0.

    Mutual neighbors count twice; the diagonal is zero. The graph's metric must be cosine: its distances are
    1 - cos. Cosines within 1e-6 of 0 count as 0, so that no row hangs on rounding.

    Args:
        graph: with cosine distances.
        gamma: the exponent, above 0.
        signed: whether negative cosines give the negative weights -|cos|^gamma (the reference code at gamma
            3), not 0.

    Source: S3 eq. (9), gamma 3.
    """
    n, k = graph.neighbors.shape
    cosines = 1.0 - graph.distances.astype(np.float64)
    sizes = np.abs(cosines) if signed else cosines
    sizes = np.where(sizes > ROUNDING, sizes, 0.0) ** gamma
    weights = np.copysign(sizes, cosines) if signed else sizes
    directed = csr_array((weights.ravel(), graph.neighbors.ravel(), k * np.arange(n + 1)), shape=(n, n))
    both = csr_array(directed + directed.T)
    both.eliminate_zeros()
    return both


def normalized(weights: csr_array) -> csr_array:
    """S = D^-1/2 W D^-1/2 for symmetric W, with D_ii = sum_j W_ij.

    A row whose weights do not sum to more than 0 has no such root and is zero, in its column too.

    Source: S3 section 3. Departs: the reference code puts 1 for a degree of 0, which is the same where no
    weight is negative; a negative degree gives NaN there.
    """
    degrees = weights.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(np.maximum(degrees, 0)), out=np.zeros(len(degrees)), where=degrees > 0)
    data = weights.data * np.repeat(scale, np.diff(weights.indptr)) * scale[weights.indices]
    return csr_array((data, weights.indices, weights.indptr), shape=weights.shape)


def similarity(graph: Graph, gamma: float) -> csr_array:
    """S of label propagation, float64 (n, n): `normalized` of `cosine_affinity`, without negative weights.

    A row whose neighbors all have cos <= 0 is zero.

    Source: S3 section 4 (ALGORITHMS 4.1).
    """
    return normalized(cosine_affinity(graph, gamma, signed=False))


def components(weights: csr_array) -> int:
    """Number of weakly connected components."""
    return int(connected_components(weights, directed=True, connection="weak", return_labels=False))


def hub_free(weights: csr_array) -> Bool[ndarray, " n"]:
    """Rows that are nobody's neighbor: the walk never comes to them, so their label spreads to no one."""
    return np.bincount(weights.indices, minlength=len(weights.indptr) - 1) == 0
