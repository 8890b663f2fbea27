"""The strategies k-medoids and core set as baselines of S2: metrics, cold starts, labeled rows as medoids."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from conftest import Situation, settings, strategy
from scipy.spatial.distance import cdist

from alrun.assembly import assemble
from alrun.rounds import checked, needs_model

METRICS = ["euclidean", "cosine"]


def points(n: int, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def best(rows: np.ndarray, metric: Any, fixed: list[int], size: int) -> float:
    """The least mean distance to the nearest medoid, of all choices."""
    gaps = cdist(rows.astype(float), rows.astype(float), metric)
    free = [row for row in range(len(rows)) if row not in fixed]
    return min(gaps[:, [*fixed, *more]].min(1).mean() for more in combinations(free, size))


def batch_of(name: str, at: Situation, size: int, *words: str, cold: bool = False, seed: int = 0):
    who = strategy(name, *words)
    current = at.round(who, size, cold=cold, seed=seed)
    return checked(who.select(current, size), current, size, name)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("labeled", [{}, {4: 0, 9: 1}])
def test_the_medoids_of_a_small_pool_are_the_best_with_labeled_rows_as_medoids(metric, labeled):
    rows = points(14)
    at = Situation(rows, labeled, fixed=True)
    found = min(
        (batch_of("kmedoids", at, 3, f"metric={metric}", cold=not labeled, seed=seed) for seed in range(4)),
        key=lambda batch: batch.notes["objective"],
    )
    assert found.notes["objective"] == pytest.approx(best(rows, metric, list(labeled), 3), rel=1e-5)
    gaps = cdist(rows.astype(float), rows.astype(float), metric)
    own = gaps[:, [*labeled, *found.rows]].min(1).mean()
    assert found.notes["objective"] == pytest.approx(own, rel=1e-5)
    without = [gaps[:, [*labeled, *np.delete(found.rows, place)]].min(1).mean() - own for place in range(3)]
    np.testing.assert_allclose(found.scores, without, rtol=1e-4)
    assert (np.diff(found.scores) <= 0).all()


def test_sample_and_sweeps_bound_the_search_and_are_in_the_notes():
    at = Situation(points(200), {}, fixed=True)
    whole = batch_of("kmedoids", at, 10, "sweeps=50", cold=True).notes
    assert (whole["tried"], whole["converged"]) == (200, 1)
    few = batch_of("kmedoids", at, 10, "sample=40", "sweeps=1", cold=True).notes
    assert (few["tried"], few["sweeps"]) == (40, 1)
    assert whole["objective"] <= few["objective"]


@pytest.mark.parametrize("name", ["kmedoids", "coreset"])
def test_rows_of_one_direction_are_one_point_under_the_cosine_metric(name):
    """Three directions at all lengths: cosine takes one row of each, Euclid several of the longest."""
    directions = np.repeat(np.eye(3, dtype=np.float32), 10, 0)
    lengths = np.tile(np.geomspace(1, 1000, 10).astype(np.float32), 3)
    at = Situation(directions * lengths[:, None] + 1e-3, {}, fixed=True)
    batch = batch_of(name, at, 3, "metric=cosine", cold=True)
    assert sorted(batch.rows // 10) == [0, 1, 2]
    longest = batch_of(name, at, 3, "metric=euclidean", cold=True)
    assert batch.rows.tolist() != longest.rows.tolist()


def test_a_cold_core_set_starts_from_the_row_closest_to_the_mean_and_tells_distances():
    rows = points(40, seed=3)
    at = Situation(rows, {}, fixed=True)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    spaces: list[tuple[Any, np.ndarray]] = [("euclidean", rows), ("cosine", unit)]
    for metric, space in spaces:
        batch = batch_of("coreset", at, 5, f"metric={metric}", cold=True)
        nearest = np.linalg.norm(space - space.mean(axis=0), axis=1).argmin()
        assert (batch.rows[0], batch.scores[0]) == (nearest, np.inf)
        gaps = cdist(rows.astype(float), rows.astype(float), metric)
        for place in range(1, 5):
            own = gaps[:, batch.rows[:place]].min(1)
            assert batch.rows[place] == own.argmax()
            assert batch.scores[place] == pytest.approx(own.max(), rel=1e-5)


@pytest.mark.parametrize("name", ["kmedoids", "coreset"])
def test_a_row_of_zeros_has_no_direction_and_is_named(name):
    rows = points(20)
    rows[[7, 12]] = 0
    at = Situation(rows, {0: 0, 1: 1}, fixed=True)
    assert len(batch_of(name, at, 5, "metric=euclidean").rows) == 5
    with pytest.raises(ValueError, match=r"rows that are not zero, row 7 is; use strategy.metric=euclidean"):
        batch_of(name, at, 5, "metric=cosine")


@pytest.mark.parametrize("name", ["kmedoids", "coreset"])
def test_they_need_a_model_for_its_own_features_alone_and_take_their_metric_from_a_preset(name):
    own = assemble(settings(f"strategy={name}"))
    assert needs_model(own.strategy, own.featurizer)
    fixed = assemble(settings(f"strategy={name}", "featurizer=pca", "+preset.metric=cosine"))
    assert not needs_model(fixed.strategy, fixed.featurizer)
    metrics = [getattr(each.strategy, "metric", None) for each in (own, fixed)]
    assert metrics == ["euclidean", "cosine"]


def test_narrowed_candidates_serve_the_whole_pool():
    """Candidates of one cluster only; the medoid is the one on the side of the other, unlabeled cluster."""
    rows = np.array([[0, 0], [1, 0], [2, 0], *([[50, 0.1 * each] for each in range(9)])], np.float32)
    at = Situation(rows, {}, fixed=True)
    who = strategy("kmedoids")
    batch = who.select(at.round(who, 1, cold=True).narrow(np.arange(3)), 1)
    assert batch.rows.tolist() == [2]
