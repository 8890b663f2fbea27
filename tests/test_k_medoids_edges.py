"""k-medoids at its edges: fixed rows, few candidates, equal points, what is refused."""

import numpy as np
import pytest
from crowds import KINDS, METRICS, NONE, assert_equal, crowd, gaps, medoids, objective


def test_fixed_medoids_stay_and_are_never_chosen():
    points = np.vstack([np.zeros((30, 2)), np.full((30, 2), 5), np.full((5, 2), 9)]).astype(np.float32)
    points += np.random.default_rng(0).normal(size=points.shape).astype(np.float32) / 10
    found = medoids(points, 1, fixed=[0, 1])
    # The first group has its medoids; the larger of the others needs one.
    assert 30 <= found.rows[0] < 60
    assert medoids(points, 63, fixed=[0, 1]).rows.tolist() != list(range(2, 65))
    assert set(medoids(points, 63, fixed=[0, 1]).rows) == set(range(2, 65))


def test_only_candidates_are_chosen():
    points, candidates = crowd("plain"), np.arange(40, 60)[::-1].copy()
    for fixed in ([], [3]):
        found = medoids(points, 5, fixed=fixed, candidates=candidates)
        assert set(found.rows) <= set(candidates)
        assert len(set(found.rows)) == 5
        assert found.tried == 20
        assert_equal(found, medoids(points, 5, fixed=fixed, candidates=np.sort(candidates)))


def test_a_fixed_medoid_named_twice_counts_once():
    points = crowd("plain")
    assert_equal(medoids(points, 4, fixed=[3, 3, 8]), medoids(points, 4, fixed=[3, 8]))


def test_more_medoids_than_distinct_points_are_distinct_rows():
    found = medoids(crowd("duplicates"), 20)
    assert found.objective == 0
    assert len(set(found.rows)) == 20
    assert (found.converged, found.losses[8:].sum()) == (True, 0)


def test_constant_points_cost_nothing():
    found = medoids(crowd("constant"), 3)
    assert (found.objective, found.swaps, len(set(found.rows))) == (0, 0, 3)


@pytest.mark.usefixtures("way")
def test_no_medoid_is_a_choice_too():
    points = crowd("plain")
    assert medoids(points, 0).objective == np.inf
    found = medoids(points, 0, fixed=[2, 7])
    assert found.objective == pytest.approx(objective(gaps(points), [2, 7]), rel=1e-9)
    assert (len(found.rows), len(found.losses), found.converged) == (0, 0, True)
    assert medoids(points, 0, candidates=NONE).objective == np.inf


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_medoid_is_the_row_nearest_to_all(kind, metric):
    points = crowd(kind, n=40)
    found = medoids(points, 1, metric=metric)
    means = gaps(points, metric).mean(axis=0)
    assert found.objective == pytest.approx(means.min(), rel=1e-6, abs=1e-7 if metric == "cosine" else 0)
    assert found.losses.tolist() == [np.inf]


def test_all_candidates_can_be_chosen():
    points = crowd("plain", n=30)
    found = medoids(points, 30)
    assert (found.objective, sorted(found.rows)) == (0, list(range(30)))
    some = medoids(points, 4, candidates=[5, 9, 2, 22])
    assert sorted(some.rows) == [2, 5, 9, 22]
    assert some.objective == pytest.approx(objective(gaps(points), [2, 5, 9, 22]), rel=1e-9)


@pytest.mark.parametrize("fixed", [[], [0]])
def test_one_candidate_is_chosen(fixed):
    points = crowd("plain", n=30)
    found = medoids(points, 1, fixed=fixed, candidates=[12])
    assert found.rows.tolist() == [12]
    assert (found.converged, found.swaps) == (True, 0)


def test_a_single_point_is_its_own_medoid():
    found = medoids(np.ones((1, 2), np.float32), 1)
    assert (found.rows.tolist(), found.objective) == ([0], 0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e16])
def test_a_feature_that_is_no_usable_number_names_the_first_bad_row(wrong):
    points = crowd("plain")
    points[[17, 40], 2] = wrong
    with pytest.raises(ValueError, match="row 17 holds"):
        medoids(points, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 121}, "size must be in 0..120, the number of candidates, got 121"),
        ({"size": -1}, "size must be in 0..120"),
        ({"candidates": [4, 9, 4]}, "got row 4 twice"),
        ({"candidates": [4, 9], "fixed": [9]}, "got row 9 twice"),
        ({"candidates": [4, 120]}, "rows in 0..119, got 120"),
        ({"candidates": [4], "fixed": [-1]}, "rows in 0..119, got -1"),
        ({"sweeps": 0}, "at least 1, got 0"),
        ({"sample": 0}, "at least 1, got 0"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        medoids(crowd("plain"), **({"size": 1} | options))
