from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from alrun.graph import diffusion as module
from alrun.graph.batch_query import Query, Situation, batch_query
from alrun.graph.diffusion import Diffusion, clamp_values, diffuse, reached
from alrun.graph.kernels import affinity, hub_free, transition
from alrun.graph.knn import Knn
from alrun.graph.uncertainty import confidence, margin, min_abs, negative_entropy, norm


class Case:
    """A random graph with some rows labeled, in clusters so that parts of it stay unreached for long."""

    def __init__(self, seed=0, n=200, classes=4, k=5, labeled=6, clusters=12, symmetrize="none"):
        rng = np.random.default_rng(seed)
        points = 6 * rng.normal(size=(clusters, 3))[rng.integers(clusters, size=n)] + rng.normal(size=(n, 3))
        self.n, self.classes, self.rng = n, classes, rng
        self.weights = affinity(Knn(k, "sqeuclidean", symmetrize).build(points.astype(np.float32)))
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
    monkeypatch.setattr(module, "PUSH_SHARE", share)  # all full, both, all incremental
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


def of_class(case):
    """A clamp that knows every row's class."""
    return lambda rows, _: clamp_values(case.labels[rows], case.classes)


def slowly(case, at, size, query, score, clamp):
    """Algorithm 1 as printed: every mini-query diffuses dense matrices from the start and sorts all rows."""
    M, W = transition(at.weights).toarray(), at.weights.toarray()
    start, clamped, steps = at.start.copy(), at.labeled.copy(), query.steps
    picks, scores, explored, first = [], [], [], None
    while len(picks) < size:
        chi, found = start.copy(), clamped.copy()
        for _ in range(steps):
            chi, found = M @ chi, found | ((M > 0) & found).any(axis=1)
            chi[clamped] = start[clamped]
        left = np.array([row for row in at.candidates if row not in picks])
        zero = np.array([row for row in left if not found[row]], dtype=int)
        p, values = min(query.mini_batch, size - len(picks)), score(chi)
        if len(zero) > p and not query.soft:
            influence = W.sum(axis=1 if query.influence == "row" else 0)
            rows = zero[np.argsort(-influence[zero].round(12), kind="stable")][:p]
            explored += rows.tolist()
        else:
            rows = left[np.argsort(values[left].round(12), kind="stable")][:p]
        first = (~found).sum() if first is None else first
        start[rows], clamped[rows] = clamp(rows, chi[rows]), True
        picks, scores = picks + rows.tolist(), scores + values[rows].tolist()
        if query.shrink_below is not None and (~found).sum() < query.shrink_below * case.n:
            steps = max(steps - 1, 1)
    lonely = sum(not W[:, row].any() for row in explored)
    return picks, scores, (first, steps, len(explored), lonely)


def agree(fast, slow):
    picks, scores, facts = slow
    assert fast.rows.tolist() == picks
    np.testing.assert_allclose(fast.scores, scores, atol=1e-12)
    assert (fast.unreached, fast.steps, fast.by_influence, fast.hub_free) == facts


def either(rows, values):
    """A clamp by the diffused values themselves, as clamp=chi does."""
    return clamp_values(values.argmax(axis=1), values.shape[1])


@pytest.mark.parametrize("mini_batch", [1, 3, 7])
@pytest.mark.parametrize("delta", [None, 0.05, 0.6, 1.0])
@pytest.mark.parametrize("influence", ["row", "col"])
@pytest.mark.parametrize("labeled", [0, 3, 25])
def test_a_batch_is_that_of_the_algorithm_done_slowly(mini_batch, delta, influence, labeled):
    for seed, clamp in enumerate([of_class(Case(0)), either]):
        case = Case(seed=seed, n=120, labeled=labeled)
        query = Query(4, mini_batch, delta, influence, False)
        args = case.situation(), 17, query, min_abs, clamp
        agree(batch_query(*args), slowly(case, *args))


@pytest.mark.parametrize("start", ["soft", "shares"])
@pytest.mark.parametrize("score", [min_abs, lambda chi: norm(chi, 2.0), confidence, margin])
def test_other_starts_and_scores_agree_with_the_slow_algorithm_too(start, score):
    case = Case(seed=5, n=120)
    at = case.situation(getattr(case, start))
    args = at, 15, Query(5, 2, 0.3, "row", start == "soft"), score, of_class(case)
    agree(batch_query(*args), slowly(case, *args))


@pytest.mark.parametrize("symmetrize", ["none", "max", "mean"])
def test_a_subset_of_candidates_is_picked_from_alone(symmetrize):
    case = Case(seed=3, n=150, labeled=4, symmetrize=symmetrize)
    subset = np.sort(case.rng.choice(np.flatnonzero(~case.labeled), 40, replace=False))
    args = case.situation(candidates=subset), 30, Query(3, 4, 0.5, "row", False), min_abs, of_class(case)
    fast = batch_query(*args)
    agree(fast, slowly(case, *args))
    assert np.isin(fast.rows, subset).all()
    assert len(np.unique(fast.rows)) == 30


def test_mini_batches_are_whole_but_for_the_last_and_clamped_once_each():
    case, calls = Case(labeled=30), []

    def clamp(rows, values):
        calls.append((rows, values))
        return clamp_values(case.labels[rows], case.classes)

    got = batch_query(case.situation(), 11, Query(4, 4, None, "row", False), min_abs, clamp)
    assert [len(rows) for rows, _ in calls] == [4, 4, 3]
    assert np.concatenate([rows for rows, _ in calls]).tolist() == got.rows.tolist()
    first = diffuse(case.walk, case.start, case.labeled, 4)[calls[0][0]]
    np.testing.assert_allclose(calls[0][1], first, atol=1e-14)
    np.testing.assert_allclose(
        np.concatenate([min_abs(values) for _, values in calls]), got.scores, atol=1e-14
    )


def test_clamps_make_no_difference_when_the_mini_batch_is_the_batch():
    case = Case(labeled=30)
    clamps = [of_class(case), either, lambda rows, values: values, lambda rows, values: np.zeros_like(values)]
    query = Query(4, 12, 0.9, "row", False)
    first, *others = (batch_query(case.situation(), 12, query, min_abs, clamp) for clamp in clamps)
    larger = batch_query(case.situation(), 12, replace(query, mini_batch=500), min_abs, either)
    for other in [*others, larger]:
        assert other.rows.tolist() == first.rows.tolist()
        assert (other.scores == first.scores).all()
        assert other.steps == first.steps


def test_time_shrinks_after_a_mini_batch_and_never_below_one_step():
    case = Case(labeled=30)
    for size, steps in [(1, 2), (2, 1), (6, 1)]:
        query = Query(3, 1, 1.0, "row", False)
        assert batch_query(case.situation(), size, query, min_abs, of_class(case)).steps == steps


def test_soft_starts_do_not_shrink_time_while_much_is_unreached():
    case = Case(labeled=2)
    at = case.situation(case.soft)
    got = batch_query(at, 3, Query(2, 1, 0.1, "row", True), min_abs, of_class(case))
    assert (got.steps, got.by_influence) == (2, 0)
    assert got.unreached > 20


def test_without_labels_the_first_pick_has_the_largest_influence():
    case = Case(labeled=0)
    for axis, influence in [(1, "row"), (0, "col")]:
        got = batch_query(case.situation(), 1, Query(3, 1, None, influence, False), min_abs, of_class(case))
        assert got.rows[0] == case.weights.sum(axis=axis).round(12).argmax()
        assert (got.unreached, got.by_influence, got.scores[0]) == (case.n, 1, 0.0)


def test_rows_that_are_nobody_s_neighbor_are_counted():
    case = Case(labeled=0, k=2)
    lonely = np.flatnonzero(hub_free(case.weights))[:5]
    got = batch_query(
        case.situation(candidates=lonely), 4, Query(3, 1, None, "row", False), min_abs, of_class(case)
    )
    assert (got.by_influence, got.hub_free) == (4, 4)


def test_identical_features_give_the_lowest_rows():
    weights = affinity(Knn(4, "sqeuclidean", "none").build(np.ones((40, 3), np.float32)))
    labeled = np.zeros(40, bool)
    at = Situation(weights, np.zeros((40, 3)), labeled, np.arange(40))
    got = batch_query(at, 5, Query(2, 5, None, "row", False), min_abs, lambda rows, values: values)
    assert got.rows.tolist() == [0, 1, 2, 3, 4]


def test_permuted_rows_give_the_permuted_batch():
    case, order = Case(labeled=25), np.random.default_rng(1).permutation(200)
    weights = csr_array(case.weights[order][:, order])
    weights.sort_indices()
    moved = Situation(weights, case.start[order], case.labeled[order], np.flatnonzero(~case.labeled[order]))
    query = Query(4, 2, 0.2, "row", False)
    plain = batch_query(case.situation(), 10, query, min_abs, either)
    assert order[batch_query(moved, 10, query, min_abs, either).rows].tolist() == plain.rows.tolist()


@pytest.mark.parametrize(("wanted", "got"), [(0, 0), (1, 1), (8, 8), (50, 8)])
def test_a_batch_holds_what_is_asked_for_or_all_there_is(wanted, got):
    case = Case()
    few = np.flatnonzero(~case.labeled)[:8]
    batch = batch_query(
        case.situation(candidates=few), wanted, Query(3, 3, None, "row", False), min_abs, of_class(case)
    )
    assert len(np.unique(batch.rows)) == len(batch.scores) == got


def test_candidates_that_are_labeled_or_repeated_are_refused():
    case = Case()
    with pytest.raises(ValueError, match="must be unlabeled"):
        case.situation(candidates=np.flatnonzero(case.labeled))
    with pytest.raises(ValueError, match="sorted and distinct"):
        case.situation(candidates=np.flatnonzero(~case.labeled)[[3, 3, 4]])


def test_scores_that_are_no_numbers_are_refused():
    case = Case()
    at = case.situation(np.where(case.labeled[:, None], case.start, np.nan))
    with pytest.raises(ValueError, match="got NaN"):
        batch_query(at, 3, Query(2, 1, None, "row", True), min_abs, of_class(case))
