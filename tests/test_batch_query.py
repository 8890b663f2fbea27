"""S0 Algorithm 1 against a slow reading of it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array
from test_diffusion import Case

from alrun.graph import diffusion as diffusion_module
from alrun.graph import least as least_module
from alrun.graph import walk as walk_module
from alrun.graph.batch_query import Query, Situation, batch_query
from alrun.graph.diffusion import clamp_values, diffuse
from alrun.graph.kernels import affinity, hub_free, transition
from alrun.graph.knn import Knn
from alrun.graph.least import rounded
from alrun.graph.uncertainty import confidence, margin, min_abs, norm


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


def assert_agrees(fast, slow):
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
        assert_agrees(batch_query(*args), slowly(case, *args))


@pytest.mark.parametrize("start", ["soft", "shares"])
@pytest.mark.parametrize("score", [min_abs, lambda chi: norm(chi, 2.0), confidence, margin])
def test_other_starts_and_scores_agree_with_the_slow_algorithm_too(start, score):
    case = Case(seed=5, n=120)
    at = case.situation(getattr(case, start))
    args = at, 15, Query(5, 2, 0.3, "row", start == "soft"), score, of_class(case)
    assert_agrees(batch_query(*args), slowly(case, *args))


@pytest.mark.parametrize("symmetrize", ["none", "max", "mean"])
def test_a_subset_of_candidates_is_picked_from_alone(symmetrize):
    case = Case(seed=3, n=150, labeled=4, symmetrize=symmetrize)
    subset = np.sort(case.rng.choice(np.flatnonzero(~case.labeled), 40, replace=False))
    args = case.situation(candidates=subset), 30, Query(3, 4, 0.5, "row", False), min_abs, of_class(case)
    fast = batch_query(*args)
    assert_agrees(fast, slowly(case, *args))
    assert np.isin(fast.rows, subset).all()
    assert len(np.unique(fast.rows)) == 30


def test_mini_batches_are_whole_but_for_the_last_which_alone_is_not_clamped():
    case, calls = Case(labeled=30), []

    def clamp(rows, values):
        calls.append((rows, values))
        return clamp_values(case.labels[rows], case.classes)

    got = batch_query(case.situation(), 11, Query(4, 4, None, "row", False), min_abs, clamp)
    assert [len(rows) for rows, _ in calls] == [4, 4]
    assert np.concatenate([rows for rows, _ in calls]).tolist() == got.rows[:8].tolist()
    first = diffuse(case.walk, case.start, case.labeled, 4)[calls[0][0]]
    np.testing.assert_allclose(calls[0][1], first, atol=1e-14)
    np.testing.assert_allclose(
        np.concatenate([min_abs(values) for _, values in calls]), got.scores[:8], atol=1e-14
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
    weights = affinity(Knn(4, "sqeuclidean", "none", "auto", 0.99).build(np.ones((40, 3), np.float32)))
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


@pytest.mark.parametrize("path", ["plain", "moved", "full"])
@pytest.mark.parametrize("mini_batch", [1, 3, 70])
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_path_picks_the_same_rows_in_float32_also_among_duplicates(
    path, mini_batch, repeats, monkeypatch
):
    points = np.repeat(np.random.default_rng(7).normal(size=(300, 3)), repeats, axis=0)[:300]
    weights = affinity(Knn(6, "sqeuclidean", "none", "auto", 0.99).build(points.astype(np.float32)))
    labeled = np.zeros(300, bool)
    labeled[::30] = True
    start = np.zeros((300, 3), np.float32)
    start[::30] = clamp_values(np.arange(10) % 3, 3)
    at = Situation(weights, start, labeled, np.flatnonzero(~labeled))
    query = Query(4, mini_batch, 0.3, "row", False)
    usual = batch_query(at, 150, query, min_abs, either)
    if path == "moved":
        monkeypatch.setattr(diffusion_module, "CACHED_BYTES", 0)
    if path == "full":
        monkeypatch.setattr(diffusion_module, "EDGES_SHARE", -1.0)
    for module in (walk_module, diffusion_module, least_module):
        monkeypatch.setattr(module, "COMPILED", path != "plain" and module.COMPILED)
    other = batch_query(at, 150, query, min_abs, either)
    assert other.rows.tolist() == usual.rows.tolist()
    assert (other.scores == usual.scores).all()


def test_scores_that_differ_by_rounding_tie_and_tiny_ones_still_rank():
    scores = np.array([0.3, 0.3 + 1e-8, 3e-8, 2e-8, 0.0, -0.0, -0.3, np.inf])
    coarse = rounded(scores, 32)
    assert coarse[0] == coarse[1]
    assert coarse[2] > coarse[3] > coarse[4] == coarse[5] == 0
    np.testing.assert_allclose(coarse[:7], scores[:7], rtol=1e-6)
    assert coarse[7] == np.inf
    assert rounded(scores, 12)[0] < rounded(scores, 12)[1]
