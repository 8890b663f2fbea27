"""Graph transduction as a game, against its definition."""

import numpy as np
import pytest
from conftest import CPU
from pseudo import blobs
from scipy.sparse import csr_array

from alrun.graph import replicator
from alrun.graph.kernels import cosine_affinity, normalized
from alrun.graph.knn import Knn
from alrun.graph.replicator import replicate


def played(weights, labels, classes, most, start=None):
    """The replicator's definition, in float64."""
    shares = np.full((len(labels), classes), 1 / classes) if start is None else start
    shares[labels >= 0] = np.eye(classes)[labels[labels >= 0]]
    for _ in range(most):
        grown = shares * (weights @ shares)
        sums = grown.sum(axis=1, keepdims=True)
        after = np.where(sums > 0, grown / np.where(sums > 0, sums, 1), shares)
        shares = np.where((labels >= 0)[:, None], shares, after)
    return shares


@pytest.mark.parametrize("most", [1, 2, 7, 30])
def test_the_game_is_played_as_defined(most):
    rng = np.random.default_rng(0)
    W = rng.random((12, 12)) * (rng.random((12, 12)) < 0.4)
    W = np.triu(W, 1) + np.triu(W, 1).T
    W[11] = W[:, 11] = 0
    labels = np.array([0, 1, 2] + 9 * [-1])
    found = replicate(csr_array(W), labels, 4, most=most, tolerance=0.0, device=CPU)
    np.testing.assert_allclose(found.shares.numpy(), played(W, labels, 4, most), atol=1e-5)
    assert found.steps == most
    np.testing.assert_allclose(found.shares[11], 0.25)


def test_the_game_ends_where_nothing_moves_and_says_so_where_it_does():
    points, _, labels = blobs()
    W = cosine_affinity(Knn(10, "cosine", "none", "auto", 0.99).build(points), 3.0, signed=False)
    done = replicate(W, labels, 3, most=1000, tolerance=1e-6, device=CPU)
    assert done.steps < 1000
    assert done.moving == 0
    np.testing.assert_allclose(played(W, labels, 3, 1000), done.shares, atol=1e-4)
    cut = replicate(W, labels, 3, most=2, tolerance=1e-6, device=CPU)
    assert (cut.steps, cut.moving) == (2, 3)


def test_playing_on_where_rows_move_ends_where_all_playing_ends(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(120, 3)).astype(np.float32)
    labels = np.where(rng.random(120) < 0.1, rng.integers(0, 4, 120), -1)
    W = cosine_affinity(Knn(6, "cosine", "none", "auto", 0.99).build(points), 3.0, signed=False)
    wanted, ways = played(W.toarray(), labels, 4, 4000), []
    for few in (0.0, 0.5, 1.0):
        monkeypatch.setattr(replicator, "FEW", few)
        found = replicate(W, labels, 4, most=20000, tolerance=1e-7, device=CPU)
        assert found.moving == 0
        np.testing.assert_allclose(found.shares, wanted, atol=1e-3)
        after = played(W.toarray(), labels, 4, 1, found.shares.numpy().astype(float))
        assert np.abs(after - found.shares.numpy()).max() < 1e-6
        ways.append(found.steps)
    assert len(set(ways)) > 1  # else nobody was ever left out


@pytest.mark.parametrize("classes", [10, 33])
def test_where_no_label_is_rounding_makes_no_class_grow(classes):
    points = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    W = cosine_affinity(Knn(6, "cosine", "none", "auto", 0.99).build(points), 3.0, signed=False)
    found = replicate(W, np.full(60, -1), classes, most=300, tolerance=0.0, device=CPU).shares
    assert (found == found[:, :1]).all()
    np.testing.assert_allclose(found.sum(dim=1), 1, rtol=1e-5)


def test_a_scaled_graph_changes_nothing():
    points, _, labels = blobs(seed=5)
    W = cosine_affinity(Knn(10, "cosine", "none", "auto", 0.99).build(points), 3.0, signed=False)
    np.testing.assert_allclose(normalized(W * 8.0).toarray(), normalized(W).toarray(), rtol=1e-14)
    one, other = (replicate(w, labels, 3, most=20, tolerance=0.0, device=CPU).shares for w in (W, W * 8.0))
    np.testing.assert_allclose(one, other, atol=1e-6)
