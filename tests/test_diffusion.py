import numpy as np
import pytest
from scipy.sparse import csr_array

from alrun.graph import diffusion as module
from alrun.graph import walk as walk_module
from alrun.graph.batch_query import Situation
from alrun.graph.diffusion import Diffusion, clamp_values, diffuse, reached
from alrun.graph.kernels import affinity, transition
from alrun.graph.knn import Knn
from alrun.graph.uncertainty import confidence, margin, negative_entropy


class Case:
    """A random graph with some rows labeled, in clusters so that parts of it stay unreached for long."""

    def __init__(self, seed=0, n=200, classes=4, k=5, labeled=6, clusters=12, symmetrize="none"):
        rng = np.random.default_rng(seed)
        points = 6 * rng.normal(size=(clusters, 3))[rng.integers(clusters, size=n)] + rng.normal(size=(n, 3))
        self.n, self.classes, self.rng = n, classes, rng
        self.weights = affinity(
            Knn(k, "sqeuclidean", symmetrize, "auto", 0.99).build(points.astype(np.float32))
        )
        self.walk = transition(self.weights)
        self.labels = rng.integers(classes, size=n)
        self.labeled = np.zeros(n, bool)
        self.labeled[rng.choice(n, labeled, replace=False)] = True
        self.start = self.clamped(np.zeros((n, classes)))
        self.soft = self.clamped(2 * rng.dirichlet(np.ones(classes), n) - 1)
        self.shares = np.full((n, classes), 1 / classes)
        self.shares[self.labeled] = np.eye(classes)[self.labels[self.labeled]]

    def clamped(self, start):
        start[self.labeled] = clamp_values(self.labels[self.labeled], self.classes)
        return start

    def absorbed(self, steps):
        """p (n, classes): the chance to be absorbed at each class, from powers of the absorbing chain."""
        chain = self.walk.toarray()
        chain[self.labeled] = np.eye(self.n)[self.labeled]
        power = np.linalg.matrix_power(chain, steps)
        return power @ (np.eye(self.classes)[self.labels] * self.labeled[:, None])

    def situation(self, start=None, candidates=None):
        rows = np.flatnonzero(~self.labeled) if candidates is None else candidates
        return Situation(self.weights, self.start if start is None else start, self.labeled, rows)


def chain(n=5):
    line = np.eye(n, k=1) + np.eye(n, k=-1)
    return transition(csr_array(line))


def ends(n=5):
    start, clamped = np.zeros((n, 2)), np.zeros(n, bool)
    clamped[[0, -1]] = True
    start[[0, -1]] = clamp_values(np.array([0, 1]), 2)
    return start, clamped


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_chain_of_five_is_half_zero_minus_half_from_the_first_step_on(steps):
    values = diffuse(chain(), *ends(), steps)
    assert values[:, 0].tolist() == [1, 0.5, 0, -0.5, -1]
    assert (values[:, 1] == -values[:, 0]).all()


def test_a_value_that_cancels_to_zero_is_not_unreached():
    assert (diffuse(chain(), *ends(), 2)[2] == 0).all()
    assert reached(chain(), ends()[1], 2)[2]
    assert not reached(chain(), ends()[1], 1)[2]
    assert Diffusion(chain(), *ends(), 4).hops.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
def test_values_are_twice_the_absorbed_mass_of_a_class_less_all_absorbed_mass(steps):
    case = Case()
    p = case.absorbed(steps)
    a = p.sum(axis=1, keepdims=True)
    values = diffuse(case.walk, case.start, case.labeled, steps)
    np.testing.assert_allclose(values, 2 * p - a, atol=1e-14)
    np.testing.assert_allclose(values.sum(axis=1), (2 - case.classes) * a[:, 0], atol=1e-14)
    assert (np.abs(values) <= a + 1e-14).all()
    assert a.max() <= 1 + 1e-14


def test_two_classes_are_each_other_s_negative():
    case = Case(classes=2)
    values = diffuse(case.walk, case.start, case.labeled, 5)
    assert (values[:, 0] == -values[:, 1]).all()
    assert values.any()


def test_a_class_without_labels_keeps_its_column():
    case = Case(classes=3)
    case.labels[:] = np.minimum(case.labels, 1)
    start = case.clamped(np.zeros((case.n, 3)))
    values, a = diffuse(case.walk, start, case.labeled, 4), case.absorbed(4).sum(axis=1)
    np.testing.assert_allclose(values[:, 2], -a, atol=1e-14)


def test_the_limit_is_harmonic_where_the_walk_is_absorbed():
    case = Case(labeled=40, clusters=1, k=8)
    free, tied = ~case.labeled, case.labeled
    assert reached(case.walk, case.labeled, case.n).all()
    M = case.walk.toarray()
    solved = np.linalg.solve(
        np.eye(free.sum()) - M[np.ix_(free, free)], M[np.ix_(free, tied)] @ case.start[tied]
    )
    np.testing.assert_allclose(diffuse(case.walk, case.start, tied, 2000)[free], solved, atol=1e-12)


def test_what_cannot_reach_a_label_stays_exactly_zero():
    case = Case(labeled=2)
    seen = reached(case.walk, case.labeled, case.n)
    values = diffuse(case.walk, case.start, case.labeled, 50)
    assert not seen.all()
    assert (values[~seen] == 0).all()
    assert (case.absorbed(50).sum(axis=1) > 0).tolist() == seen.tolist()


def test_exchanged_classes_give_exchanged_columns():
    case, order = Case(), np.array([2, 0, 3, 1])
    values = diffuse(case.walk, case.start, case.labeled, 5)
    assert (diffuse(case.walk, case.start[:, order], case.labeled, 5) == values[:, order]).all()


@pytest.mark.parametrize("steps", [1, 4])
def test_soft_starts_keep_their_row_sums_at_every_step(steps):
    case = Case()
    values = diffuse(case.walk, case.soft, case.labeled, steps)
    np.testing.assert_allclose(values.sum(axis=1), 2 - case.classes, atol=1e-13)


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
def test_shares_are_the_absorbed_mass_and_an_even_part_of_the_rest(steps):
    case = Case()
    p = case.absorbed(steps)
    a = p.sum(axis=1, keepdims=True)
    shares = diffuse(case.walk, case.shares, case.labeled, steps)
    np.testing.assert_allclose(shares, p + (1 - a) / case.classes, atol=1e-14)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-14)
    dark = ~reached(case.walk, case.labeled, steps)
    for criterion in (confidence, margin, negative_entropy):
        found = criterion(shares)
        np.testing.assert_allclose(found[dark], found.min(), atol=1e-12)


def test_without_labels_everything_is_zero_and_unreached():
    case, nobody = Case(), np.zeros(200, bool)
    assert not diffuse(case.walk, np.zeros((200, 4)), nobody, 4).any()
    assert not reached(case.walk, nobody, 4).any()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_refused(label):
    with pytest.raises(ValueError, match=r"must be in 0\.\.2"):
        clamp_values(np.array([0, label]), 3)


@pytest.mark.parametrize("share", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("symmetrize", ["none", "max"])
@pytest.mark.parametrize("start", ["start", "soft", "shares"])
def test_incremental_equals_full_in_all_slices(share, symmetrize, start, monkeypatch):
    monkeypatch.setattr(module, "EDGES_SHARE", share)  # all full, both, all incremental
    monkeypatch.setattr(module, "ROWS_SHARE", 3 * share)
    case = Case(seed=2, symmetrize=symmetrize)
    begin, clamped = getattr(case, start).copy(), case.labeled.copy()
    state = Diffusion(case.walk, begin, clamped, 5)
    for _ in range(20):
        rows = case.rng.choice(np.flatnonzero(~clamped), case.rng.integers(1, 4), replace=False)
        begin[rows] = case.rng.uniform(-1, 1, (len(rows), case.classes))
        clamped[rows] = True
        state.clamp(rows, begin[rows])
        for steps in range(6):
            np.testing.assert_allclose(
                state.values(steps), diffuse(case.walk, begin, clamped, steps), rtol=0, atol=1e-12
            )
            assert (state.reached(steps) == reached(case.walk, clamped, steps)).all()
            assert (state.unreached(steps) == np.flatnonzero(~state.reached(steps))).all()


@pytest.mark.parametrize("share", [0.05, 2.0])
@pytest.mark.parametrize("symmetrize", ["none", "max"])
@pytest.mark.parametrize("path", ["compiled", "plain", "moved"])
def test_incremental_has_the_bits_of_full_in_float32(share, symmetrize, path, monkeypatch):
    monkeypatch.setattr(module, "EDGES_SHARE", share)
    monkeypatch.setattr(module, "ROWS_SHARE", 3 * share)
    if path == "moved":
        monkeypatch.setattr(module, "CACHED_BYTES", 0)
    for each in (module, walk_module):
        monkeypatch.setattr(each, "COMPILED", path != "plain" and each.COMPILED)
    case = Case(seed=4, symmetrize=symmetrize)
    begin, clamped = case.start.astype(np.float32), case.labeled.copy()
    state = Diffusion(case.walk, begin, clamped, 5)
    for _ in range(10):
        before = [state.values(steps).copy() for steps in range(6)]
        rows = case.rng.choice(np.flatnonzero(~clamped), 3, replace=False)
        begin[rows], clamped[rows] = case.rng.uniform(-1, 1, (3, case.classes)), True
        state.clamp(rows, begin[rows])
        full = Diffusion(case.walk, begin, clamped, 5)
        assert (state.hops == full.hops).all()
        for steps in range(6):
            assert (state.values(steps) == full.values(steps)).all()
            differ = np.flatnonzero((state.values(steps) != before[steps]).any(axis=1))
            told = state.changed(steps)
            assert told is None or sorted(told) == differ.tolist()
            assert (state.at(rows, steps) == begin[rows]).all()
    np.testing.assert_allclose(
        state.values(5), diffuse(case.walk, begin.astype(float), clamped, 5), atol=1e-6
    )


def test_rows_may_be_clamped_anew_to_other_values():
    case = Case()
    state, again = Diffusion(case.walk, case.start, case.labeled, 4), case.start.copy()
    rows = np.flatnonzero(case.labeled)[:2]
    again[rows] = -again[rows]
    state.clamp(rows, again[rows])
    np.testing.assert_allclose(state.values(4), diffuse(case.walk, again, case.labeled, 4), atol=1e-13)


def test_what_a_diffusion_is_given_is_left_as_it_was():
    case = Case()
    start, labeled = case.start.copy(), case.labeled.copy()
    Diffusion(case.walk, start, labeled, 3).clamp(
        np.array([int(np.flatnonzero(~labeled)[0])]), np.ones((1, 4))
    )
    assert (start == case.start).all()
    assert (labeled == case.labeled).all()
