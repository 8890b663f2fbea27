from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.spatial.distance import cdist

from alrun.graph import knn as module
from alrun.graph import points, uncertainty
from alrun.graph.kernels import affinity, components, hub_free, transition
from alrun.graph.knn import Graph, Knn

CONF = Path(__file__).parent.parent / "conf" / "graph"


def knn(k, metric="sqeuclidean", symmetrize="none", index="auto", min_recall=0.99):
    return Knn(k, metric, symmetrize, index, min_recall)


def by_definition(points, k):
    """Neighbors by a stable sort of all distances, which are rounded to float32 as the graph's are."""
    gaps = cdist(points.astype(float), points.astype(float), "sqeuclidean").astype(np.float32)
    np.fill_diagonal(gaps, np.inf)
    near = np.argsort(gaps, axis=1, kind="stable")[:, :k]
    return near, np.take_along_axis(gaps, near, 1)


def crowd(kind, n=600):
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(10, 64))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    inside = rng.normal(size=(2000, 64)) / 8
    points = {
        "plain": rng.normal(size=(n, 7)),
        "integers": rng.integers(0, 3, (n, 3)),
        "one feature": rng.integers(0, 50, (n, 1)),
        "some duplicates": rng.normal(size=(n // 3, 7))[rng.integers(n // 3, size=n)],
        "crowds and singles": np.vstack([np.ones((n // 2, 3)), rng.normal(size=(n // 2, 3))]),
        "signs of zero": np.where(rng.random((n, 2)) < 0.5, 0.0, -0.0),
        "an outlier": np.vstack([np.full((1, 5), 1e8), rng.normal(size=(n - 1, 5))]),
        "far from the origin": rng.normal(size=(n, 5)) + 1e4,
        # FAISS takes the distances of many rows from inner products, and rounding leaves little of them here.
        "tight clusters": 100 * centers[rng.integers(10, size=2000)] + 0.1 * inside,
    }[kind]
    return points.astype(np.float32)


KINDS = ["plain", "integers", "one feature", "some duplicates", "crowds and singles", "signs of zero"]
KINDS += ["an outlier", "far from the origin", "tight clusters"]


@pytest.mark.parametrize("kind", KINDS)
def test_neighbors_are_those_of_brute_force_with_ties_to_the_smaller_row(kind):
    points = crowd(kind)
    graph = knn(6).build(points)
    near, gaps = by_definition(points, 6)
    assert (graph.neighbors == near).all()
    np.testing.assert_allclose(graph.distances, gaps, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["plain", "integers", "tight clusters"])
def test_the_number_of_threads_changes_nothing(kind):
    before, graphs = (faiss.omp_get_max_threads(), torch.get_num_threads()), []
    try:
        for threads in (1, 2):
            faiss.omp_set_num_threads(threads)
            torch.set_num_threads(threads)
            graphs.append(knn(6).build(crowd(kind)))
    finally:
        faiss.omp_set_num_threads(before[0])
        torch.set_num_threads(before[1])
    assert (graphs[0].neighbors == graphs[1].neighbors).all()
    assert (graphs[0].distances == graphs[1].distances).all()


def test_rows_are_sorted_by_distance_then_row_without_self_loops():
    graph = knn(9).build(crowd("integers"))
    for row, (near, gaps) in enumerate(zip(graph.neighbors, graph.distances, strict=True)):
        pairs = list(zip(gaps, near, strict=True))
        assert row not in near
        assert all(first < second for first, second in pairwise(pairs))


def test_a_permuted_pool_gives_the_permuted_graph():
    points, order = crowd("plain"), np.random.default_rng(3).permutation(600)
    plain, moved = knn(5).build(points), knn(5).build(points[order])
    assert (order[moved.neighbors] == plain.neighbors[order]).all()
    assert (moved.distances == plain.distances[order]).all()


def test_constant_features_give_the_lowest_rows_also_in_large_pools():
    graph = knn(4).build(np.full((5000, 3), 0.7, np.float32))
    assert (graph.neighbors[10:] == [0, 1, 2, 3]).all()
    assert graph.neighbors[:5].tolist() == [
        [1, 2, 3, 4],
        [0, 2, 3, 4],
        [0, 1, 3, 4],
        [0, 1, 2, 4],
        [0, 1, 2, 3],
    ]
    assert (graph.distances == 0).all()


def test_features_too_small_for_float32_distances_count_as_duplicates():
    graph = knn(2).build((np.random.default_rng(0).normal(size=(60, 4)) * 1e-24).astype(np.float32))
    assert graph.neighbors[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert (graph.distances == 0).all()


@pytest.mark.parametrize(("n", "k", "got"), [(7, 6, 6), (7, 7, 6), (7, 100, 6), (2, 3, 1), (1, 3, 0)])
def test_k_is_at_most_all_other_rows(n, k, got):
    graph = knn(k).build(crowd("plain")[:n])
    assert (graph.neighbors.shape, graph.distances.shape, graph.k, len(graph)) == ((n, got), (n, got), got, n)
    assert all(len(np.unique(near)) == got for near in graph.neighbors)
    assert affinity(graph).nnz == n * got


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e18])
def test_a_feature_that_is_no_usable_number_names_the_first_bad_row(wrong):
    points = crowd("plain")
    points[[17, 40], 2] = wrong
    with pytest.raises(ValueError, match="row 17 holds"):
        knn(3).build(points)


def test_features_are_left_as_they_were():
    points = crowd("plain")
    before = points.copy()
    knn(3, "cosine").build(points)
    assert (points == before).all()


def test_cosine_distance_is_one_minus_the_cosine():
    points = crowd("plain")
    graph = knn(5, "cosine").build(points)
    exact = cdist(points.astype(float), points.astype(float), "cosine")
    np.fill_diagonal(exact, np.inf)
    np.testing.assert_allclose(graph.distances, np.sort(exact, axis=1)[:, :5], atol=1e-6)


def test_cosine_does_not_see_the_length_of_rows():
    points = crowd("plain")
    lengths = (2.0 ** np.random.default_rng(0).integers(-60, 40, (600, 1))).astype(np.float32)
    plain, stretched = knn(5, "cosine").build(points), knn(5, "cosine").build(points * lengths)
    assert (plain.neighbors == stretched.neighbors).all()


def test_a_zero_row_is_orthogonal_to_all_but_zero_rows():
    points = crowd("plain")[:30]
    points[[4, 9]] = 0
    graph = knn(29, "cosine").build(points)
    assert graph.neighbors[4, 0] == 9
    assert graph.distances[4, 0] == 0
    np.testing.assert_allclose(graph.distances[4, 1:], 1, atol=1e-6)


def test_the_settings_of_the_group_build_a_graph():
    assert instantiate(OmegaConf.load(CONF / "knn.yaml")) == knn(10)


@pytest.mark.parametrize("kind", ["plain", "integers", "crowds and singles", "tight clusters"])
def test_the_size_of_blocks_changes_nothing(kind, monkeypatch):
    whole = knn(6).build(crowd(kind))
    monkeypatch.setattr(points, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(module, "BLOCK_BYTES", 20_000)
    cut = knn(6).build(crowd(kind))
    assert (cut.neighbors == whole.neighbors).all()
    assert (cut.distances == whole.distances).all()


@pytest.mark.parametrize("kind", ["plain", "some duplicates", "crowds and singles"])
def test_weights_are_between_one_over_e_and_one_and_k_in_each_row(kind):
    weights = affinity(knn(6).build(crowd(kind)))
    assert (np.diff(weights.indptr) == 6).all()
    assert weights.data.min() >= np.exp(-1) - 1e-15
    assert weights.data.max() <= 1
    assert (weights.diagonal() == 0).all()
    assert weights.dtype == np.float64


def test_weights_follow_the_formula():
    graph = Graph(
        np.array([[1, 2], [0, 2], [1, 0]]), np.array([[1, 4], [1, 1], [1, 4]], np.float32), "none", 1.0
    )
    e = np.exp
    expected = [[0, e(-0.25), e(-1)], [e(-1), 0, e(-1)], [e(-1), e(-0.25), 0]]
    np.testing.assert_allclose(affinity(graph).toarray(), expected, rtol=1e-15)


def test_duplicates_weigh_one_and_stand_at_distance_zero():
    points = np.repeat(np.random.default_rng(0).normal(size=(40, 5)) * 1e3, 4, axis=0).astype(np.float32)
    graph = knn(3).build(points)
    assert (graph.distances == 0).all()
    assert (affinity(graph).data == 1).all()
    assert components(affinity(graph)) == 40


@pytest.mark.parametrize("symmetrize", ["max", "mean"])
def test_symmetrized_weights_are_the_larger_or_the_mean_of_both_directions(symmetrize):
    directed = affinity(knn(5).build(crowd("plain"))).toarray()
    both = np.maximum(directed, directed.T) if symmetrize == "max" else (directed + directed.T) / 2
    weights = affinity(knn(5, symmetrize=symmetrize).build(crowd("plain")))
    np.testing.assert_array_equal(weights.toarray(), both)
    assert weights.has_sorted_indices


@pytest.mark.parametrize("symmetrize", ["none", "max", "mean"])
def test_rows_of_the_walk_sum_to_one(symmetrize):
    walk = transition(affinity(knn(6, symmetrize=symmetrize).build(crowd("plain"))))
    np.testing.assert_allclose(walk.sum(axis=1), 1, atol=1e-14)
    assert walk.data.min() > 0


def test_a_row_without_neighbors_stays_zero():
    walk = transition(affinity(knn(3).build(np.ones((1, 2), np.float32))))
    assert walk.toarray().tolist() == [[0.0]]


@pytest.mark.parametrize("scale", [2.0**-20, 0.25, 2.0**20, 3.7])
def test_scaling_all_features_leaves_the_walk_unchanged(scale):
    points = crowd("plain")
    plain, scaled = (transition(affinity(knn(6).build(p))) for p in (points, points * np.float32(scale)))
    assert (plain.indices == scaled.indices).all()
    np.testing.assert_allclose(plain.data, scaled.data, rtol=1e-5 if scale == 3.7 else 0)


def test_components_are_weakly_connected_ones():
    apart = np.concatenate([np.arange(20), 1000 + np.arange(30), 5000 + np.arange(10)])
    weights = affinity(knn(3).build(apart[:, None].astype(np.float32)))
    assert components(weights) == 3


def test_hub_free_rows_are_in_no_list_of_neighbors():
    points = crowd("an outlier")
    graph = knn(4).build(points)
    free = hub_free(affinity(graph))
    assert free[0]
    assert (np.flatnonzero(~free) == np.unique(graph.neighbors)).all()


def test_min_abs_and_norms_are_their_formulas():
    chi = np.array([[0.5, -0.5, 0.0], [-1.0, 1.0, -1.0], [0.3, -0.4, 0.0]])
    assert uncertainty.min_abs(chi).tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(uncertainty.norm(chi, 1.0), [1, 3, 0.7])
    np.testing.assert_allclose(uncertainty.norm(chi, 2.0), [0.5**0.5, 3**0.5, 0.5])
    np.testing.assert_allclose(uncertainty.norm(chi, 3.0), [0.25 ** (1 / 3), 3 ** (1 / 3), 0.091 ** (1 / 3)])
    np.testing.assert_allclose(uncertainty.norm(chi, np.inf), [0.5, 1, 0.4])


def test_a_row_absorbed_evenly_by_ten_classes_counts_as_certain():
    even = np.full((1, 10), 2 * 0.1 - 1)
    np.testing.assert_allclose(uncertainty.min_abs(even), 0.8)


def test_simplex_criteria_are_their_formulas():
    shares = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.4, 0.4, 0.2]])
    assert uncertainty.confidence(shares).tolist() == [0.5, 1.0, 0.4]
    np.testing.assert_allclose(uncertainty.margin(shares), [0.2, 1.0, 0.0], atol=1e-15)
    entropies = [
        -0.5 * np.log(0.5) - 0.3 * np.log(0.3) - 0.2 * np.log(0.2),
        0,
        -0.8 * np.log(0.4) - 0.2 * np.log(0.2),
    ]
    np.testing.assert_allclose(uncertainty.negative_entropy(shares), -np.array(entropies), atol=1e-15)


@pytest.mark.parametrize(
    "criterion", [uncertainty.confidence, uncertainty.margin, uncertainty.negative_entropy]
)
def test_uniform_shares_are_the_most_uncertain(criterion):
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 200)
    assert (criterion(np.full((1, 5), 0.2)) < criterion(shares)).all()


def test_for_two_classes_the_simplex_criteria_rank_alike():
    shares = np.random.default_rng(0).dirichlet(np.ones(2), 50)
    criteria = [uncertainty.confidence, uncertainty.margin, uncertainty.negative_entropy]
    first, second, third = (np.argsort(criterion(shares)).tolist() for criterion in criteria)
    assert first == second == third


def test_a_share_that_rounding_left_below_zero_counts_as_zero():
    assert uncertainty.negative_entropy(np.array([[1.0, -1e-17]])).tolist() == [0.0]
