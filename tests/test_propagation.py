import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg, spsolve

from alrun.graph import propagation
from alrun.graph.kernels import similarity
from alrun.graph.knn import Graph, Knn
from alrun.graph.propagation import Solve, propagate

PAPER = Solve(0.99, 20, 1e-6)
LONG = Solve(0.99, 500, 1e-6)


def cosine_graph(n=200, k=6, seed=0):
    points = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return Knn(k, "cosine", "none", "auto", 0.99).build(points)


def some_labels(n=200, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    rows, labels = rng.choice(n, 12, replace=False), np.zeros((n, classes), np.float32)
    labels[rows, np.arange(12) % classes] = 1
    return labels


def direct(S, labels, alpha=0.99):
    return np.linalg.solve(np.eye(len(labels)) - alpha * S.toarray(), labels.astype(float))


def test_two_nodes_and_one_edge_give_the_golden_values():
    S = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    found = propagate(S, np.array([[1.0], [0.0]], np.float32), PAPER)
    np.testing.assert_allclose(found.values[:, 0], [50.251256, 49.748744], rtol=1e-5)
    assert found.converged


@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_in_float64_the_golden_values_hold_to_a_millionth(alpha):
    S = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    found = propagate(S, np.array([[1.0], [0.0]]), Solve(alpha, 20, 1e-12))
    np.testing.assert_allclose(found.values[:, 0], np.array([1, alpha]) / (1 - alpha**2), rtol=1e-6)
    if alpha == 0.99:
        np.testing.assert_allclose(found.values[:, 0], [50.251256, 49.748744], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "atol"), [(np.float32, 1e-5), (np.float64, 1e-9)])
def test_a_large_sparse_system_is_solved_as_directly(kind, atol):
    S = similarity(cosine_graph(1000, 15), 3.0)
    labels = some_labels(1000).astype(kind)
    found = propagate(S, labels, Solve(0.99, 1000, atol / 100))
    wanted = spsolve((eye_array(1000) - 0.99 * S).tocsc(), labels.astype(float))
    assert found.values.dtype == kind
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=atol * np.abs(wanted).max())


def small_graph(seed):
    """S of a random graph of 12 rows, some of them alone or in components of their own, and labels."""
    rng = np.random.default_rng(seed)
    W = np.triu(rng.random((12, 12)) * (rng.random((12, 12)) < 0.15), 1)
    W[:, 11] = 0
    d = (W + W.T).sum(axis=1)
    scale = np.divide(1, np.sqrt(d), out=np.zeros(12), where=d > 0)
    labels = np.zeros((12, 3))
    rows = rng.choice(12, 4, replace=False)
    labels[rows, rng.integers(0, 3, 4)] = 1
    return W + W.T, csr_array(scale[:, None] * (W + W.T) * scale), labels


@pytest.mark.parametrize("seed", range(6))
def test_labels_reach_their_components_and_nothing_else(seed):
    W, S, labels = small_graph(seed)
    found = propagate(S, labels, Solve(0.99, 50, 1e-13)).values
    _, parts = connected_components(csr_array(W), directed=False)
    together = parts[:, None] == parts
    assert ((np.abs(found) > 1e-9) == (together @ labels > 0)).all()
    assert (found > -1e-9).all()
    alone = W.sum(axis=1) == 0
    assert alone.any()
    np.testing.assert_allclose(found[alone], labels[alone], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_solution_is_the_least_of_the_quadratic_cost(seed):
    W, S, labels = small_graph(seed)
    d = np.maximum(W.sum(axis=1), 1e-300)[:, None]

    def cost(Z):
        # S3 (8); rows without neighbors have no term of smoothness but alpha |z|^2: D^-1/2 is 0 there
        scaled = np.where(W.sum(axis=1)[:, None] > 0, Z / np.sqrt(d), 0)
        gaps = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=2)
        alone = (Z[W.sum(axis=1) == 0] ** 2).sum()
        return 0.99 / 2 * (W * gaps).sum() + 0.99 * alone + 0.01 * ((labels - Z) ** 2).sum()

    least = 0.01 * propagate(S, labels, Solve(0.99, 50, 1e-13)).values
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1):
        for _ in range(20):
            assert cost(least) < cost(least + size * rng.normal(size=labels.shape))
    assert cost(least) < cost(labels)
    assert cost(least) < cost(0.99 * least)


def test_a_system_that_is_not_definite_stops_with_numbers():
    M = np.random.default_rng(0).normal(size=(60, 60))
    labels = np.eye(60, 3, dtype=np.float32)
    found = propagate(csr_array(M + M.T), labels, Solve(0.99, 500, 1e-6))
    assert np.isfinite(found.values).all()
    assert (found.iterations < 10).all()
    assert not found.converged
    wanted = labels - (found.values - 0.99 * ((M + M.T) @ found.values))
    np.testing.assert_allclose(found.residuals, np.linalg.norm(wanted, axis=0), rtol=1e-3)


def test_the_similarity_is_that_of_the_paper_and_scales_away():
    graph = cosine_graph()
    A = np.zeros((200, 200))
    for i, (near, gaps) in enumerate(zip(graph.neighbors, graph.distances, strict=True)):
        A[i, near] = np.maximum(1 - gaps.astype(float), 0) ** 3
    W = A + A.T
    d = 1 / np.sqrt(W.sum(axis=1))
    S = similarity(graph, 3.0)
    np.testing.assert_allclose(S.toarray(), d[:, None] * W * d, atol=1e-14)
    assert np.abs(np.linalg.eigvalsh(S.toarray())).max() <= 1 + 1e-12


def test_a_row_without_similar_neighbors_is_zero_and_keeps_its_label():
    opposite = Graph(np.array([[1], [0], [0]]), np.array([[2], [2], [1]], np.float32), "none", 1.0)
    S = similarity(opposite, 3.0)
    assert not S.toarray().any()
    labels = np.array([[1, 0], [0, 0], [0, 1]], np.float32)
    assert (propagate(S, labels, PAPER).values == labels).all()


@pytest.mark.parametrize("alpha", [0.5, 0.99])
@pytest.mark.parametrize("cached", [0, 1 << 30])
def test_the_solution_is_that_of_a_direct_solve(alpha, cached, monkeypatch):
    monkeypatch.setattr(propagation, "CACHED_BYTES", cached)
    S, labels = similarity(cosine_graph(), 3.0), some_labels()
    found = propagate(S, labels, Solve(alpha, 500, 1e-6))
    wanted = direct(S, labels, alpha)
    assert found.converged
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert (found.values.argmax(axis=1) == wanted.argmax(axis=1)).all()


def test_twenty_iterations_are_scipy_s_twenty_of_each_class():
    S, labels = similarity(cosine_graph(), 3.0), some_labels()
    system = csr_array(eye_array(200) - 0.99 * S)
    found = propagate(S, labels, Solve(0.99, 20, 0.0))
    for column in range(4):
        own = cg(system, labels[:, column].astype(float), rtol=0, maxiter=20)[0]
        np.testing.assert_allclose(found.values[:, column], own, atol=1e-4 * np.abs(own).max())
    assert (found.iterations == 20).all()
    assert not found.converged


def test_each_class_stops_by_itself_and_an_empty_one_stays_zero():
    S, labels = similarity(cosine_graph(), 3.0), some_labels()
    top = np.linalg.eigh(S.toarray())[1][:, -1]
    labels[:, 0], labels[:, 1] = top, 0  # an eigenvector takes one iteration, and some for its rounding
    found = propagate(S, labels, LONG)
    assert found.iterations[0] <= 6
    assert found.iterations[1] == 0
    assert not found.values[:, 1].any()
    assert found.iterations[2] > 10
    assert (found.residuals <= 1e-6).all()
    np.testing.assert_allclose(found.values[:, 0], top / (1 - 0.99), rtol=0, atol=1e-2)


def test_what_is_left_when_iterations_end_is_told():
    S, labels = similarity(cosine_graph(), 3.0), some_labels()
    found = propagate(S, labels, Solve(0.99, 5, 1e-6))
    wanted = labels - (found.values - 0.99 * (S @ found.values.astype(float)))
    told = found.residuals * np.linalg.norm(labels, axis=0)
    np.testing.assert_allclose(told, np.linalg.norm(wanted, axis=0), rtol=1e-3)
    assert not found.converged


def test_a_good_start_saves_iterations():
    S, labels = similarity(cosine_graph(), 3.0), some_labels()
    first = propagate(S, labels, LONG)
    again = propagate(S, labels, Solve(0.99, 500, 1e-4), first.values)
    assert (again.iterations == 0).all()
    assert (again.values == first.values).all()


def test_exchanged_classes_give_exchanged_columns():
    S, labels, order = similarity(cosine_graph(), 3.0), some_labels(), np.array([2, 0, 3, 1])
    plain = propagate(S, labels, LONG).values
    swapped = propagate(S, np.ascontiguousarray(labels[:, order]), LONG).values
    np.testing.assert_allclose(swapped, plain[:, order], rtol=0, atol=1e-5 * np.abs(plain).max())


def test_weights_times_a_constant_change_nothing():
    graph = cosine_graph()
    W = similarity(graph, 3.0)
    scaled = diags_array(np.full(200, 7.0)) @ W
    d = 1 / np.sqrt(np.maximum(scaled.sum(axis=1), 1e-30))
    again = csr_array(diags_array(d) @ scaled @ diags_array(d))
    d = 1 / np.sqrt(W.sum(axis=1))
    once = csr_array(diags_array(d) @ W @ diags_array(d))
    labels = some_labels()
    a, b = propagate(again, labels, LONG).values, propagate(once, labels, LONG).values
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, 1.5])
def test_an_alpha_without_a_solution_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
        Solve(alpha, 20, 1e-6)


def test_labels_that_are_no_numbers_or_too_few_are_refused():
    S, labels = similarity(cosine_graph(), 3.0), some_labels()
    with pytest.raises(ValueError, match="the graph's 200"):
        propagate(S, labels[:50], PAPER)
    labels[3, 1] = np.nan
    with pytest.raises(ValueError, match="with NaN or inf"):
        propagate(S, labels, PAPER)


def test_duplicates_and_labels_of_one_class_only_give_numbers():
    points = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 20, axis=0).astype(np.float32)
    S = similarity(Knn(4, "cosine", "none", "auto", 0.99).build(points), 3.0)
    labels = np.zeros((100, 3), np.float32)
    labels[0, 1] = 1
    found = propagate(S, labels, PAPER, device=torch.device("cpu"))
    assert np.isfinite(found.values).all()
    assert not found.values[:, [0, 2]].any()
