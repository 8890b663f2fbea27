import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from alrun.transport import c_transform as module
from alrun.transport import distances
from alrun.transport.c_transform import c_transform, metric_transform
from alrun.transport.distances import costs, points_of
from alrun.transport.semi_discrete import transport

METRICS = ["euclidean", "cosine"]


def crowd(kind, n=300):
    rng = np.random.default_rng(1)
    features = {
        "plain": rng.normal(size=(n, 9)),
        "one feature": rng.integers(0, 50, (n, 1)),
        "duplicates": rng.normal(size=(n // 4, 7))[rng.integers(n // 4, size=n)],
        "constant": np.full((n, 3), 0.7),
        "zero rows": rng.normal(size=(n, 3)) * (rng.random((n, 1)) < 0.8),
        "an outlier": np.vstack([np.full((1, 5), 1e8), rng.normal(size=(n - 1, 5))]),
        "far from the origin": rng.normal(size=(n, 5)) + 1e4,
        "tiny": rng.normal(size=(n, 5)) * 1e-30,
        "huge": rng.normal(size=(n, 5)) * 1e37,
    }[kind]
    return features.astype(np.float32)


KINDS = ["plain", "one feature", "duplicates", "constant", "zero rows", "an outlier", "far from the origin"]
KINDS += ["tiny", "huge"]


def duals_of(kind, features, metric):
    """Row duals: of an optimal transport, random, equal, or integers."""
    rng = np.random.default_rng(2)
    if kind == "optimal":
        return transport(costs(features, rng.choice(len(features), 11, replace=False), metric)).row_duals
    size = costs(features, np.array([0]), metric).max()
    return {
        "random": rng.normal(size=len(features)) * size,
        "shifted": rng.normal(size=len(features)) * size + 1e6 * size,
        "equal": np.full(len(features), 0.1),
        "steps": rng.integers(0, 3, len(features)) * float(size),
    }[kind]


def by_definition(features, duals, metric):
    return (costs(features, np.arange(len(features)), metric) - duals[:, None]).min(axis=0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_duals_of_columns_are_the_minima_to_the_last_bit(kind, metric, monkeypatch):
    features = crowd(kind)
    points = torch.from_numpy(points_of(features, metric))
    for of in ("optimal", "random", "shifted", "equal", "steps"):
        duals = duals_of(of, features, metric)
        expected = by_definition(features, duals, metric)
        for compiled in (True, False):
            monkeypatch.setattr(module, "COMPILED", compiled)
            assert (c_transform(points, duals, metric) == expected).all(), (of, compiled)
            some = np.random.default_rng(4).permutation(len(features))[: len(features) // 3]
            assert (c_transform(points, duals, metric, columns=some) == expected[some]).all(), (of, compiled)


@pytest.mark.parametrize("metric", METRICS)
def test_neither_tiles_nor_threads_change_a_bit(metric, monkeypatch):
    features = crowd("plain", 500)
    points, duals = torch.from_numpy(points_of(features, metric)), duals_of("random", features, metric) / 9
    expected, before = by_definition(features, duals, metric), torch.get_num_threads()
    try:
        for tile, threads, compiled in ((64, 1, True), (101, 3, True), (2048, 2, True), (100, 2, False)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(module, "TILE", tile)
            monkeypatch.setattr(module, "COMPILED", compiled)
            assert (c_transform(points, duals, metric) == expected).all()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("metric", METRICS)
def test_column_duals_are_feasible_tight_and_not_below_those_of_the_plan(metric):
    features = crowd("plain")
    columns = np.arange(0, 300, 30)
    found = transport(costs(features, columns, metric))
    lifted = c_transform(torch.from_numpy(points_of(features, metric)), found.row_duals, metric)
    assert (lifted[columns] >= found.column_duals - 1e-12).all()
    assert found.row_duals.mean() + lifted[columns].mean() == pytest.approx(found.value, rel=1e-12)
    slack = costs(features, np.arange(300), metric) - found.row_duals[:, None] - lifted
    assert slack.min() >= -1e-15
    assert (np.abs(slack).min(axis=0) <= 1e-15).all()


@pytest.mark.parametrize("kind", KINDS)
def test_for_the_euclidean_metric_the_duals_are_those_of_rows_negated(kind):
    features = crowd(kind)
    block = costs(features, np.arange(0, 300, 30), "euclidean")
    found = transport(block)
    exact = c_transform(torch.from_numpy(features), found.row_duals, "euclidean")
    fast = metric_transform(found.row_duals, found.column_duals, float(block.max()), features.shape[1])
    assert (fast <= exact).all()
    assert (exact - fast <= 1e-12 * block.max()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_distances_agree_with_scipy_and_both_paths_to_the_last_bit(kind, monkeypatch):
    features = crowd(kind)
    columns = np.array([5, 5, 0, 299])
    for metric in METRICS:
        found = costs(features, columns, metric)
        monkeypatch.setattr(distances, "COMPILED", False)
        monkeypatch.setattr(distances, "BLOCK_BYTES", 1000)
        assert (costs(features, columns, metric) == found).all()
        monkeypatch.undo()
        assert found[5, 0] == found[0, 2] == 0
        everything = costs(features, np.arange(300), metric)
        assert (everything == everything.T).all()
        assert (np.diag(everything) == 0).all()
        wide = features.astype(float)
        if metric == "euclidean":
            np.testing.assert_allclose(found, cdist(wide, wide[columns]), rtol=1e-13)
        else:
            known = np.flatnonzero((wide != 0).any(axis=1))
            ours = everything[np.ix_(known, known)]
            np.testing.assert_allclose(ours, cdist(wide[known], wide[known], "cosine"), atol=2e-7)


def test_a_zero_row_is_orthogonal_to_all_but_zero_rows():
    features = np.array([[0, 0], [3, 4], [0, 0], [-6, -8]], np.float32)
    found = costs(features, np.arange(4), "cosine")
    np.testing.assert_allclose(found, [[0, 1, 0, 1], [1, 0, 1, 2], [0, 1, 0, 1], [1, 2, 1, 0]], atol=1e-7)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_no_numbers_name_the_row(wrong):
    features = crowd("plain")
    features[7, 2] = wrong
    with pytest.raises(ValueError, match="row 7 holds"):
        costs(features, np.array([0]), "cosine")


def test_columns_and_duals_that_do_not_fit_are_refused():
    features = crowd("plain")
    with pytest.raises(ValueError, match="columns must be rows 0..299, got 300"):
        costs(features, np.array([3, 300]), "euclidean")
    for duals in (np.zeros(3), np.full(300, np.nan)):
        with pytest.raises(ValueError, match="row duals must be 300 finite numbers"):
            c_transform(torch.from_numpy(features), duals, "euclidean")


def test_products_are_taken_in_whole_float32_and_the_setting_is_put_back():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        features = crowd("plain")
        duals = duals_of("random", features, "euclidean")
        found = c_transform(torch.from_numpy(features), duals, "euclidean")
        assert (found == by_definition(features, duals, "euclidean")).all()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
