import numpy as np
import pytest
import torch
from conftest import CPU
from scipy.sparse import csr_array
from scipy.sparse.linalg import cg
from scipy.stats import entropy

from alrun.graph import replicator
from alrun.graph.certainty import certainties, class_weights
from alrun.graph.kernels import cosine_affinity, normalized, self_taken_first, without_zeros
from alrun.graph.knn import Graph, Knn
from alrun.graph.propagation import label_matrix
from alrun.graph.pseudo_labels import PseudoLabels
from alrun.graph.replicator import replicate


def settings(**others):
    """The paper's, but for `others`."""
    paper = {
        "kind": "diffusion",
        "k": 50,
        "gamma": 3.0,
        "alpha": 0.99,
        "iterations": 20,
        "tolerance": 1e-6,
        "certainty_weights": True,
        "class_weights": True,
        "variant": "paper",
        "y_norm": "none",
    }
    return PseudoLabels(**{**paper, **others})


def network(classes, likes=0):
    """A network that gives every row one class, with a probability of 0.6."""

    def predict(rows):
        found = np.full((len(rows), classes), 0.4 / max(1, classes - 1), np.float32)
        found[:, likes] = 0.6
        return found

    return predict


def no_network(rows):
    raise AssertionError(f"asked the network for rows {rows.tolist()}")


def blobs(n=90, classes=3, d=8, seed=0):
    """Rows around orthogonal directions, their classes, and one label a class."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    points = 3 * np.eye(classes, d)[truth] + 0.3 * np.abs(rng.normal(size=(n, d)))
    labels = np.full(n, -1)
    labels[:classes] = truth[:classes]
    return points.astype(np.float32), truth, labels


def islands():
    """Two pairs of equal rows, orthogonal to each other: a label in one never reaches the other."""
    points = np.repeat(np.eye(2, dtype=np.float32), 2, axis=0)
    return points, np.array([1, -1, -1, -1])


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
    k, n = 12, 90
    unit = points.astype(float) / np.linalg.norm(points.astype(float), axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    A = np.zeros((n, n))
    np.put_along_axis(A, near, np.maximum(np.take_along_axis(cosines, near, 1), 0) ** 3, axis=1)
    W = A + A.T
    S = W / np.sqrt(W.sum(0)) / np.sqrt(W.sum(1))[:, None]
    Y = np.where(labels[:, None] == np.arange(3), 1.0, 0.0)
    Z = np.linalg.solve(np.eye(n) - 0.99 * S, Y)
    shares = Z / Z.sum(axis=1, keepdims=True)
    omegas = 1 + (shares * np.log(shares)).sum(axis=1) / np.log(3)
    omegas /= omegas.max()
    wanted = np.where(labels >= 0, labels, Z.argmax(axis=1))
    zetas = 1 / np.bincount(wanted)

    made = settings(k=k, iterations=500).of(points, labels, 3, no_network, CPU)
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


def test_rows_between_two_classes_have_no_weight_and_do_not_make_rounding_large():
    values = np.full((5, 3), 1 / 3, np.float32)
    values[:, 0] *= np.float32(1 + 1e-7)
    omegas, zero = certainties(torch.from_numpy(values))
    assert not omegas.any()
    assert not zero.any()


def test_certainties_are_golden():
    values = torch.tensor([[2.0, 0.0], [1.0, 1.0], [3.0, 1.0], [-1.0, 0.0], [-1.0, 5.0]])
    omegas, zero = certainties(values)
    quarter = 1 - (0.25 * np.log(4) + 0.75 * np.log(4 / 3)) / np.log(2)
    np.testing.assert_allclose(omegas, [1, 0, quarter, 0, 1], atol=1e-12)
    assert zero.tolist() == [False, False, False, True, False]


def test_class_weights_are_golden():
    labels = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(class_weights(labels, 3, "classes"), [0.5, 0, 1.5], rtol=1e-6)
    np.testing.assert_allclose(class_weights(labels, 3, "examples"), [4 / 9, 0, 4 / 3], rtol=1e-6)
    full = class_weights(np.array([0, 0, 0, 1]), 2, "examples")
    assert full[[0, 0, 0, 1]].mean() == pytest.approx(1)


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


def test_rounding_makes_no_edges_between_orthogonal_rows():
    graph = Graph(np.array([[1], [0]]), np.array([[1 - 6e-8], [1 - 6e-8]], np.float32), "none", 1.0)
    assert cosine_affinity(graph, 3.0, signed=False).nnz == 0
    zeros = without_zeros(
        Knn(1, "cosine", "none", "auto", 0.99).build(np.zeros((2, 3), np.float32)),
        np.zeros((2, 3), np.float32),
    )
    assert cosine_affinity(zeros, 3.0, signed=False).nnz == 0


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


def test_embeddings_that_are_no_numbers_are_a_clear_error():
    points, _, labels = blobs()
    points[4, 1] = np.nan
    with pytest.raises(ValueError, match="row 4 holds nan"):
        settings().of(points, labels, 3, no_network, CPU)


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
