import numpy as np
import pytest
from conftest import Situation, strategy
from scipy.spatial.distance import cdist

from alrun.coverage.clusters import k_means
from alrun.coverage.typicality import most_typical, typicality

NONE = np.empty(0, np.int64)


def blobs(sizes, seed=0, apart=100.0):
    """Separate clusters of these sizes in the plane, and which one each point is of."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    centers = apart * np.stack([np.arange(len(sizes)), np.arange(len(sizes)) % 2], axis=1)
    return (centers[groups] + rng.normal(size=(len(groups), 2))).astype(np.float32), groups


def naive(points, neighbors):
    """Inverse mean distance to the nearest others."""
    gaps = cdist(points.astype(float), points.astype(float))
    np.fill_diagonal(gaps, np.inf)
    count = min(neighbors, len(points) - 1)
    return 1 / np.sort(gaps, axis=1)[:, :count].mean(axis=1)


def by_definition(points, clusters, labeled, candidates, size, neighbors, smallest):
    """Choice by choice, everything taken anew."""
    labels, rest, picks = set(labeled.tolist()), set(candidates.tolist()), []
    while len(picks) < size:
        keys = []
        for cluster in {int(clusters[row]) for row in rest}:
            own = np.flatnonzero(clusters == cluster)
            keys.append((len(own) < smallest, len(labels & set(own.tolist())), -len(own), own[0], cluster))
        own = np.flatnonzero(clusters == min(keys)[-1])
        scores = typicality(points[own], neighbors)
        _, best = min((-score, row) for score, row in zip(scores, own.tolist(), strict=True) if row in rest)
        picks.append(best)
        rest.remove(best)
        labels.add(best)
    return picks


@pytest.mark.parametrize(("n", "neighbors"), [(2, 5), (7, 20), (60, 1), (60, 5), (60, 59), (60, 500)])
def test_typicality_is_the_inverse_mean_distance_to_the_nearest_others(n, neighbors):
    points = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    np.testing.assert_allclose(typicality(points, neighbors), naive(points, neighbors), rtol=1e-6)


def test_a_single_point_is_not_typical_and_duplicates_are_without_bound():
    points = np.array([[1, 2]] * 3 + [[5, 5]], np.float32)
    assert typicality(points[3:], 20).tolist() == [0]
    assert typicality(points, 2).tolist()[:3] == [np.inf] * 3
    assert np.isfinite(typicality(points, 3)).all()


@pytest.mark.parametrize("seed", range(3))
def test_each_choice_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(70, 3)).astype(np.float32)
    clusters = rng.choice(9, 70, p=np.arange(1, 10) / 45)
    order = rng.permutation(70)
    labeled, candidates = order[:8], order[8:60]
    given = points, clusters, labeled, candidates
    for size in (9, 52):
        rows, scores = most_typical(*given, size, neighbors=4, smallest=5)
        assert rows.tolist() == by_definition(*given, size, 4, 5)
        for row, score in zip(rows, scores, strict=True):
            own = np.flatnonzero(clusters == clusters[row])
            assert score == typicality(points[own], 4)[own == row][0]


def test_large_clusters_without_labels_come_first_and_small_ones_last():
    points, clusters = blobs([12, 30, 4, 20])
    labeled = np.array([13])  # of the largest
    rows, _ = most_typical(
        points, clusters, labeled, np.setdiff1d(np.arange(66), labeled), 65, neighbors=20, smallest=5
    )
    assert clusters[rows[:4]].tolist() == [3, 0, 1, 3]
    assert clusters[rows[-4:]].tolist() == [2] * 4
    assert len(np.unique(rows)) == 65


def test_who_may_be_chosen_does_not_change_how_typical_a_row_is():
    points, clusters = blobs([40])
    every = most_typical(points, clusters, NONE, np.arange(40), 40, neighbors=10, smallest=1)
    few = most_typical(points, clusters, np.array([2]), np.arange(20, 40), 99, neighbors=10, smallest=1)
    kept = np.isin(every[0], few[0])
    assert few[0].tolist() == every[0][kept].tolist()
    assert few[1].tolist() == every[1][kept].tolist()


def test_ties_fall_to_the_smaller_row():
    points = np.tile(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), (2, 1))
    points[4:] += 50
    clusters = np.array([7] * 4 + [2] * 4)
    rows, _ = most_typical(points, clusters, NONE, np.arange(8), 8, neighbors=3, smallest=1)
    assert rows.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_features_that_are_no_numbers_are_refused():
    points, clusters = blobs([10, 10])
    points[3] = np.inf
    with pytest.raises(ValueError, match="row 3 holds inf"):
        most_typical(points, clusters, NONE, np.arange(20), 2, neighbors=5, smallest=1)
    with pytest.raises(ValueError, match="row 3 holds inf"):
        k_means(points, 2, np.random.default_rng(0))


@pytest.mark.parametrize("sizes", [[30] * 4, [12] * 60])
def test_k_means_finds_separate_clusters(sizes):
    points, groups = blobs(sizes, apart=1e4)
    clusters = k_means(points, len(sizes), np.random.default_rng(0))
    pairs = np.unique(np.stack([clusters, groups]), axis=1).shape[1]
    # One start does not find all of sixty.
    assert pairs == len(sizes) if len(sizes) < 10 else pairs < 1.3 * len(sizes)
    assert clusters.tolist() == k_means(points, len(sizes), np.random.default_rng(0)).tolist()


def test_k_means_takes_fewer_distinct_rows_than_clusters_without_a_word(recwarn):
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    for count in (5, 30, 100):
        clusters = k_means(points, count, np.random.default_rng(0))
        assert len(np.unique(clusters)) == 3
    assert len(recwarn) == 0


def test_a_cold_choice_meets_each_of_as_many_clusters():
    points, groups = blobs([20, 30, 25, 15])
    who, at = strategy("typiclust"), Situation(points, {}, fixed=True)
    batch = who.select(at.round(who, 4, cold=True), 4)
    assert groups[batch.rows].tolist() == [1, 2, 0, 3]
    assert batch.notes == {"clusters": 4, "small_clusters": 0}
    for row, score in zip(batch.rows, batch.scores, strict=True):
        own = np.flatnonzero(groups == groups[row])
        scores = naive(points[own], 20)
        assert score == pytest.approx(scores.max())
        assert row == own[scores.argmax()]


def test_clusters_with_labels_wait(situation):
    points, groups = blobs([20, 30, 25])
    who, at = strategy("typiclust"), Situation(points, {25: 0}, fixed=True)
    assert groups[who.select(at.round(who, 2), 2).rows].tolist() == [2, 0]


def test_unit_rows_are_compared_by_direction():
    rng = np.random.default_rng(0)
    angles = np.repeat([0.0, 2.0, 4.0], 20) + 0.01 * rng.normal(size=60)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.lognormal(3, 2, size=(60, 1))
    at = Situation(points.astype(np.float32), {}, fixed=True)
    who = strategy("typiclust", "unit=true")
    assert sorted(who.select(at.round(who, 3, cold=True), 3).rows // 20) == [0, 1, 2]


def test_there_are_no_more_clusters_than_allowed():
    points, _ = blobs([20, 30, 25])
    who, at = strategy("typiclust", "max_clusters=2"), Situation(points, {0: 0}, fixed=True)
    assert who.select(at.round(who, 9), 9).notes["clusters"] == 2
