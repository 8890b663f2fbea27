"""Pseudo-labels and weights: the paper's formulas, edges, invariances, errors."""

import numpy as np
import pytest
from conftest import CPU
from pseudo import (
    blobs,
    certainty_by_definition,
    islands,
    network,
    no_network,
    settings,
    spread_by_definition,
)

from alrun.graph import approximate, cells, knn
from alrun.graph.kernels import cosine_affinity, without_zeros
from alrun.graph.knn import Graph, Knn


@pytest.mark.parametrize("variant", ["paper", "repo"])
@pytest.mark.parametrize("kind", ["diffusion", "gtg"])
def test_clusters_take_the_class_of_their_label(kind, variant):
    points, truth, labels = blobs()
    made = settings(kind=kind, k=10, variant=variant).of(points, labels, 3, no_network, CPU)
    assert (made.labels == truth).all()
    assert not made.zero.any()
    assert (made.weights[:3] == 1).all()
    assert ((made.weights > 0) & (made.weights <= 1)).all()
    np.testing.assert_allclose(made.class_weights, 1, rtol=1e-6)


def test_labels_and_weights_are_the_paper_s_by_a_direct_solve():
    points, _, labels = blobs(seed=3)
    points[:, :3] += np.random.default_rng(1).random((90, 3)).astype(np.float32) * 3
    labels[10:14] = [0, 0, 1, 2]
    Z = spread_by_definition(points, labels, 12)
    omegas = certainty_by_definition(Z)
    wanted = np.where(labels >= 0, labels, Z.argmax(axis=1))
    zetas = 1 / np.bincount(wanted)

    made = settings(k=12, iterations=500).of(points, labels, 3, no_network, CPU)
    assert (made.labels == wanted).all()
    np.testing.assert_allclose(made.weights, np.where(labels >= 0, 1, omegas), atol=1e-4)
    np.testing.assert_allclose(made.class_weights, zetas / zetas.mean(), rtol=1e-6)
    assert made.facts["unconverged"] == 0
    assert made.facts["residual"] <= 1e-6
    assert len(set(np.bincount(wanted).tolist())) > 1  # else zeta would be 1 whatever it did


def test_rows_no_label_reaches_have_the_network_s_class_and_no_weight():
    points, labels = islands()
    asked = []

    def predict(rows):
        asked.extend(rows.tolist())
        return network(3, likes=2)(rows)

    for kind in ("diffusion", "gtg"):
        asked.clear()
        made = settings(kind=kind).of(points, labels, 3, predict, CPU)
        assert made.labels.tolist() == [1, 1, 2, 2]
        np.testing.assert_allclose(made.weights, [1, 1, 0, 0], atol=1e-4)
        assert made.zero.tolist() == [False, False, True, True]
        assert asked == [2, 3]
        assert made.facts["zero_share"] == 0.5
        assert made.facts["empty_classes"] == 1
        np.testing.assert_allclose(made.class_weights, [0, 1, 1])  # the empty class is no part of the mean


def test_without_certainty_weights_only_rows_no_label_reaches_weigh_nothing():
    points, labels = islands()
    made = settings(certainty_weights=False).of(points, labels, 3, network(3), CPU)
    assert made.weights.tolist() == [1, 1, 0, 0]
    points, _, labels = blobs()
    assert (settings(k=10, certainty_weights=False).of(points, labels, 3, no_network, CPU).weights == 1).all()


def test_without_class_weights_all_classes_weigh_one():
    points, _, labels = blobs(80)
    assert (settings(k=10).of(points, labels, 3, no_network, CPU).class_weights != 1).any()
    made = settings(k=10, class_weights=False).of(points, labels, 3, no_network, CPU)
    assert made.class_weights.tolist() == [1, 1, 1]


def test_the_network_s_predictions_are_weighted_by_their_entropy():
    shares = np.array(
        [[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]], np.float32
    )
    labels = np.array([-1, -1, 0, -1])
    made = settings(kind="network").of(
        np.full((4, 2), np.nan, np.float32), labels, 3, lambda r: shares[r], CPU
    )
    assert made.labels.tolist() == [0, 0, 0, 0]
    least = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    largest = 1 - least / np.log(3)  # of rows 1 and 2: a bought row counts in the largest
    half = 1 - 1.5 * np.log(2) / np.log(3)
    np.testing.assert_allclose(made.weights, [half / largest, 1, 1, 0], atol=1e-6)
    assert not made.zero.any()


@pytest.mark.parametrize("kind", ["diffusion", "network", "gtg"])
@pytest.mark.parametrize("variant", ["paper", "repo"])
def test_exchanged_classes_and_rows_give_the_same_exchanged(kind, variant):
    points, truth, labels = blobs(60, d=4, seed=2)
    labels[20:24] = truth[20:24]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 60).astype(np.float32)
    how = settings(kind=kind, k=7, variant=variant)
    plain = how.of(points, labels, 3, lambda rows: probabilities[rows], CPU)
    renamed, order = np.array([2, 0, 1]), np.random.default_rng(1).permutation(60)
    named = np.where(labels >= 0, renamed[labels], -1)[order]
    moved = probabilities[:, np.argsort(renamed)][order]
    other = how.of(points[order], named, 3, lambda rows: moved[rows], CPU)
    assert (other.labels == renamed[plain.labels][order]).all()
    np.testing.assert_allclose(other.weights, plain.weights[order], atol=1e-3)
    np.testing.assert_allclose(other.class_weights[renamed], plain.class_weights, rtol=1e-6)


@pytest.mark.parametrize("kind", ["diffusion", "gtg"])
@pytest.mark.parametrize("variant", ["paper", "repo"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_rows_are_no_number_is_missing(kind, variant, seed):
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 40)), int(rng.integers(1, 6))
    points = rng.normal(size=(n, 3)).astype(np.float32)
    points[rng.random(n) < 0.2] = 0
    points[rng.random(n) < 0.3] = points[0]
    points[rng.random(n) < 0.2] *= 1e-20
    labels = np.where(rng.random(n) < 0.2, rng.integers(0, classes, n), -1)
    made = settings(kind=kind, variant=variant).of(points, labels, classes, network(classes), CPU)
    assert ((made.labels >= 0) & (made.labels < classes)).all()
    assert ((made.weights >= 0) & (made.weights <= 1)).all()
    assert (made.weights[made.zero] == 0).all()
    assert np.isfinite(made.class_weights).all()
    assert (made.labels[labels >= 0] == labels[labels >= 0]).all()
    assert (made.weights[labels >= 0] == 1).all()
    assert all(np.isfinite(value) for value in made.facts.values())


def test_rows_of_zeros_stand_alone():
    points = np.array([[1, 0], [1, 0.1], [0, 0], [0, 0]], np.float32)
    made = settings().of(points, np.array([0, -1, 1, -1]), 2, network(2, likes=1), CPU)
    assert made.zero.tolist() == [False, False, False, True]
    assert made.labels.tolist() == [0, 0, 1, 1]
    assert made.facts["isolated"] == 2


def test_one_class_of_labels_or_one_class_at_all_is_certain():
    points, _, labels = blobs()
    labels[labels >= 0] = 1
    for kind in ("diffusion", "gtg"):
        made = settings(kind=kind, k=10).of(points, labels, 3, no_network, CPU)
        assert (made.labels == 1).all()
        np.testing.assert_allclose(made.weights, 1, atol=1e-4)
        assert made.class_weights.tolist() == [0, 1, 0]
    made = settings(k=10).of(points, np.minimum(labels, 0), 1, no_network, CPU)
    assert (made.labels == 0).all()
    assert (made.weights == 1).all()


def test_before_any_label_all_rows_are_the_network_s_and_weigh_nothing():
    points, _, _ = blobs()
    for kind in ("diffusion", "gtg"):
        made = settings(kind=kind, k=10).of(points, np.full(90, -1), 3, network(3, likes=1), CPU)
        assert (made.labels == 1).all()
        assert made.zero.all()
        assert not made.weights.any()


def test_rounding_makes_no_edges_between_orthogonal_rows():
    graph = Graph(np.array([[1], [0]]), np.array([[1 - 6e-8], [1 - 6e-8]], np.float32), "none", 1.0)
    assert cosine_affinity(graph, 3.0, signed=False).nnz == 0
    zeros = without_zeros(
        Knn(1, "cosine", "none", "auto", 0.99).build(np.zeros((2, 3), np.float32)),
        np.zeros((2, 3), np.float32),
    )
    assert cosine_affinity(zeros, 3.0, signed=False).nnz == 0


def test_embeddings_that_are_no_numbers_are_a_clear_error():
    points, _, labels = blobs()
    points[4, 1] = np.nan
    with pytest.raises(ValueError, match="row 4 holds nan"):
        settings().of(points, labels, 3, no_network, CPU)


def test_a_large_graph_that_finds_too_few_neighbors_names_the_trainers_setting(monkeypatch):
    points = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    monkeypatch.setattr(knn, "EXACT_UP_TO", {"cpu": 1000})
    monkeypatch.setattr(cells, "NEAREST", 1)
    monkeypatch.setattr(approximate, "STEPS", 1)
    labels = np.where(np.arange(1500) < 30, np.arange(1500) % 3, -1)
    with pytest.raises(ValueError, match=r"share min_recall=0.99 .* lower .*trainer.min_recall"):
        settings(k=6).of(points, labels, 3, network(3), CPU)
    made = settings(k=6, min_recall=0.01).of(points, labels, 3, network(3), CPU)
    assert 0.01 <= made.facts["recall"] < 0.99


@pytest.mark.parametrize("bad", [np.nan, -0.5, np.inf])
def test_probabilities_that_are_none_are_a_clear_error(bad):
    points, _, labels = blobs()
    with pytest.raises(ValueError, match="probabilities of 90 rows"):
        settings(kind="network").of(points, labels, 3, lambda r: np.full((len(r), 3), bad, np.float32), CPU)


def test_labels_that_do_not_fit_are_a_clear_error():
    points, _, labels = blobs()
    with pytest.raises(ValueError, match="for each of 90 embeddings"):
        settings().of(points, labels[:5], 3, no_network, CPU)
    with pytest.raises(ValueError, match=r"in 0..1 .* got 2"):
        settings().of(points, labels, 2, no_network, CPU)
    with pytest.raises(ValueError, match=r"2 numbers .* got shape \(90, 3\)"):
        settings(kind="network").of(points, np.minimum(labels, 1), 2, network(3), CPU)


def test_the_same_bits_come_twice_and_inputs_are_left_alone():
    points, _, labels = blobs()
    before = points.copy(), labels.copy()
    first, second = (settings(k=10).of(points, labels, 3, no_network, CPU) for _ in range(2))
    assert (first.weights == second.weights).all()
    assert (first.labels == second.labels).all()
    assert (points == before[0]).all()
    assert (labels == before[1]).all()
