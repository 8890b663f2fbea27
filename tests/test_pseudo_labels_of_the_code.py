"""What the paper's code does otherwise than the paper (`variant=repo`)."""

import numpy as np
import pytest
from conftest import CPU
from pseudo import blobs, islands, no_network, settings
from scipy.sparse import csr_array
from scipy.sparse.linalg import cg
from scipy.stats import entropy

from alrun.graph.kernels import cosine_affinity, normalized, self_taken_first
from alrun.graph.knn import Graph, Knn
from alrun.graph.propagation import label_matrix


@pytest.mark.parametrize(("seed", "d", "k"), [(0, 3, 10), (2, 16, 150)])
def test_labels_and_weights_are_those_of_the_reference_code_step_by_step(seed, d, k):
    rng, n, c = np.random.default_rng(seed), 240, 4
    truth = rng.integers(0, c, n)
    points = (rng.normal(size=(n, d)) + 1.5 * np.eye(c, d)[truth]).astype(np.float32)
    labels = np.where(np.isin(np.arange(n), rng.permutation(n)[:30]), truth, -1)
    unit = points.astype(float) / np.linalg.norm(points.astype(float), axis=1, keepdims=True)
    near = np.argsort(-unit @ unit.T, axis=1, kind="stable")[:, 1 : k + 1]
    A = np.zeros((n, n))
    np.put_along_axis(A, near, np.take_along_axis(unit @ unit.T, near, 1) ** 3, axis=1)
    W = A + A.T
    roots = 1 / np.sqrt(W.sum(axis=1))
    system = np.eye(n) - 0.99 * (roots[:, None] * W * roots)
    Y = np.where(labels[:, None] == np.arange(c), 1.0, 0.0)
    Z = np.stack([cg(system, column / column.sum(), rtol=1e-6, maxiter=20)[0] for column in Y.T], axis=1)
    shares = np.maximum(Z, 0) / np.maximum(Z, 0).sum(axis=1, keepdims=True)
    omegas = 1 - entropy(shares.T) / np.log(c)
    wanted = np.where(labels >= 0, labels, shares.argmax(axis=1))
    made = settings(k=k, variant="repo").of(points, labels, c, no_network, CPU)
    np.testing.assert_array_equal(made.labels, wanted)
    np.testing.assert_allclose(made.weights, np.where(labels >= 0, 1, omegas / omegas.max()), atol=1e-5)
    np.testing.assert_allclose(made.class_weights, n / c / np.bincount(wanted), rtol=1e-6)
    assert (made.facts["unconverged"] > 0) == (k == 10)  # SciPy's solve was cut off, too
    assert (A < 0).any() == (k == 150)  # cosines keep their sign


def test_the_reference_code_gives_such_rows_class_zero_where_its_weights_are_nan():
    points, labels = islands()
    made = settings(variant="repo").of(points, labels, 3, no_network, CPU)
    assert made.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(made.weights, [1, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(made.class_weights, [4 / 3 / 2, 4 / 3 / 2, 0])


def test_labels_by_class_are_no_prior():
    points, truth, labels = blobs(d=3)
    points += 1  # all alike: what a row becomes hangs on how many labels there are
    labels[:30] = np.where(truth[:30] == 0, 0, labels[:30])
    assert label_matrix(np.array([1, -1, 1, 0]), 3, by_class=False).tolist() == [
        [0, 1, 0],
        [0, 0, 0],
        [0, 1, 0],
        [1, 0, 0],
    ]
    by_class = label_matrix(np.array([1, -1, 1, 0]), 3, by_class=True)
    assert by_class.tolist() == [[0, 0.5, 0], [0, 0, 0], [0, 0.5, 0], [1, 0, 0]]
    plain = settings(k=60).of(points, labels, 3, no_network, CPU)
    fair = settings(k=60, y_norm="class").of(points, labels, 3, no_network, CPU)
    assert (plain.labels == 0).mean() > 0.9
    assert (fair.labels == truth).mean() > 0.9
    code = settings(k=60, variant="repo").of(points, labels, 3, no_network, CPU)
    np.testing.assert_array_equal(code.labels, fair.labels)  # no cosine is negative, no row is twice there
    np.testing.assert_array_equal(code.weights, fair.weights)


def test_the_reference_code_keeps_the_sign_of_cosines():
    graph = Graph(
        np.array([[1, 2], [0, 2], [0, 1]]),
        np.array([[0.5, 1.5], [0.5, 1], [1.5, 1]], np.float32),
        "none",
        1.0,
    )
    plain = cosine_affinity(graph, 3.0, signed=False).toarray()
    signed = cosine_affinity(graph, 3.0, signed=True).toarray()
    assert plain.tolist() == [[0, 0.25, 0], [0.25, 0, 0], [0, 0, 0]]
    assert signed.tolist() == [[0, 0.25, -0.25], [0.25, 0, 0], [-0.25, 0, 0]]
    S = normalized(csr_array(signed)).toarray()
    assert np.isfinite(S).all()
    assert not S[0].any()  # its degree is 0
    assert not S[2].any()  # its degree is negative


def test_the_reference_code_loses_the_first_of_duplicates_before_a_row():
    points = np.array([[1, 0], [1, 0], [1, 1], [1, 0]], np.float32)
    graph = Knn(3, "cosine", "none", "auto", 0.99).build(points)
    W = cosine_affinity(self_taken_first(graph), 3.0, signed=True).toarray()
    full = cosine_affinity(graph, 3.0, signed=True).toarray()
    assert full[0, 1] == full[1, 3] == 2
    assert W[0, 1] == W[0, 3] == 1  # rows 1 and 3 have lost row 0, which still has them
    assert W[1, 3] == 2
    assert (W == W.T).all()
