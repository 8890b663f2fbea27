"""SEALS: the neighbors of labeled rows, refreshed or found once, and the search they come from."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CPU, settings, strategy
from test_dgal import Rounds, blobs

from alrun.features.simple import Penultimate
from alrun.graph import search as search_module
from alrun.graph.knn import Knn
from alrun.graph.search import Search
from alrun.strategies.two_stage import Restriction

N, K = 150, 6


def near(features, row, k, among, metric="sqeuclidean"):
    """The k nearest of `among` to a row, itself left out, by sorting all distances."""
    points = features.astype(np.float64)
    if metric == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    others = np.array([other for other in among if other != row])
    return others[np.argsort(((points[others] - points[row]) ** 2).sum(axis=1), kind="stable")][:k]


def union(features, rows, k, among, metric="sqeuclidean"):
    return np.unique(np.concatenate([near(features, row, k, among, metric) for row in rows]))


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 40 columns, blocks of few rows."""
    monkeypatch.setattr(search_module, "TILE_COLUMNS", 40)
    monkeypatch.setattr(search_module, "BLOCK_BYTES", 16 * 40 * 7)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", ["plain", "repeated", "constant", "far", "zero", "sorted"])
def test_neighbors_of_some_rows_are_those_of_the_exact_graph(kind, metric, small_tiles):
    points = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    if kind == "repeated":
        points = np.repeat(points[: N // 3], 3, axis=0)
    if kind == "constant":
        points = np.ones_like(points)
    if kind == "far":
        points += 1000
    if kind == "zero":
        points[::4] = 0
    if kind == "sorted":
        points = points[np.argsort(points[:, 0])]
    rows = np.array([3, 149, 77, 0, 40, 80, 20, 21, 22, 23])
    graph = Knn(K, metric, "none", "exact", 0.99).build(points)
    neighbors, distances = Search(points, metric, CPU).nearest(rows, K, np.arange(N))
    assert (neighbors == graph.neighbors[rows]).all()
    assert (distances == graph.distances[rows]).all()


@pytest.mark.parametrize("k", [1, 7, 60, 500])
def test_neighbors_among_some_rows_are_found_by_sorting_all(k, small_tiles):
    points = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    among, rows = np.sort(np.random.default_rng(2).choice(N, 90, replace=False)), np.arange(0, N, 7)
    neighbors, _ = Search(points, "sqeuclidean", CPU).nearest(rows, k, among)
    assert neighbors.shape == (len(rows), min(k, 89))
    for row, found in zip(rows, neighbors, strict=True):
        assert found.tolist() == near(points, row, min(k, 89), among).tolist()


def test_nothing_to_search_for_or_among_gives_nothing():
    search = Search(np.eye(4, dtype=np.float32), "sqeuclidean", CPU)
    assert search.nearest(np.empty(0, np.int64), 3, np.arange(4))[0].shape == (0, 0)
    assert search.nearest(np.array([1]), 3, np.array([1]))[0].shape == (1, 0)


def refreshed(points):
    run = Rounds(points)
    run.life.featurizer = Penultimate()
    return run


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_refreshed_seals_leaves_the_nearest_unlabeled_rows_of_all_labeled_ones(metric):
    run, who = refreshed(blobs(N)), strategy("seals", f"first.k={K}", f"first.metric={metric}")
    run.buy(np.array([3, 50]))
    for _ in range(4):
        current = run.round(4)
        batch, left = who.select(current, 4), who.first.restrict(run.round(4), 4)
        features = run.at.model.embed(np.arange(N))
        assert (
            np.sort(left.rows).tolist()
            == union(features, run.pool.labeled, K, run.pool.unlabeled, metric).tolist()
        )
        assert batch.notes["candidates"] == len(left.rows)
        assert np.isin(batch.rows, left.rows).all()
        assert current.work.predicted == N
        assert current.work.clock.seconds["graph"] > 0
        run.buy(batch.rows)


def test_neighbors_in_fixed_features_follow_algorithm_3_and_grow_by_at_most_b_k():
    run, who = Rounds(blobs(N)), strategy("vae_seals", f"first.k={K}")
    features = run.at.inputs.pixels(np.arange(N))
    run.buy(np.array([3, 50, 51]))
    set_of, sizes = set(union(features, [3, 50, 51], K, np.arange(N)).tolist()) - {3, 50, 51}, []
    for _ in range(6):
        current = run.round(2)
        batch, left = who.select(current, 2), who.first.restrict(run.round(2), 2)
        assert set(left.rows.tolist()) == set_of
        assert current.work.predicted == len(set_of) == batch.notes["candidates"]
        assert "graph" not in current.work.clock.seconds
        assert run.life.clock.seconds["neighbors"] > 0
        life = run.fresh_life()
        life.purchases = list(run.life.purchases)
        again = who.first.restrict(run.round(2, life), 2)
        assert again.rows.tolist() == left.rows.tolist()
        assert (again.scores == left.scores).all()
        sizes.append(len(set_of))
        run.buy(batch.rows)
        bought = set(run.pool.labeled.tolist())
        set_of = (set_of | set(union(features, batch.rows, K, np.arange(N)).tolist())) - bought
    assert (np.diff(sizes) <= 2 * K).all()
    assert (np.diff(sizes) > 0).any()


def test_fixed_neighbors_are_searched_once_a_bought_row(monkeypatch):
    asked = []
    original = Search.nearest
    monkeypatch.setattr(Search, "nearest", lambda *given: asked.append(given[1].tolist()) or original(*given))
    run, who = Rounds(blobs(N)), strategy("vae_seals", f"first.k={K}")
    for rows in ([3, 50], [7]):
        run.buy(np.array(rows))
        who.select(run.round(2), 2)
        who.select(run.round(2), 2)
    assert asked == [[3, 50], [7]]


@pytest.mark.parametrize("run", [Rounds(blobs(N)), refreshed(blobs(N))], ids=["fixed", "refreshed"])
def test_narrowed_candidates_and_missing_neighbors_are_kept_to_and_filled_up(run):
    if not len(run.pool.labeled):
        run.buy(np.array([3]))
    who = strategy("neighbors", f"k={K}")
    few = run.pool.unlabeled[:30]
    left = who.restrict(run.round(20).narrow(few), 20)
    assert len(left.rows) == len(np.unique(left.rows)) == 20
    assert np.isin(left.rows, few).all()
    count = int(left.notes["neighbors"])
    assert count <= K
    assert left.notes["drawn"] == 20 - count
    assert np.isfinite(left.scores[:count]).all()
    assert np.isinf(left.scores[count:]).all()


def test_before_the_first_label_rows_are_drawn():
    run, who = Rounds(blobs(N), model=False), strategy("neighbors", f"k={K}")
    run.buy(np.empty(0, np.int64))
    batch = who.select(run.round(9), 9)
    assert len(np.unique(batch.rows)) == 9
    assert batch.notes == {"neighbors": 0, "drawn": 9}


def test_by_itself_it_picks_the_rows_nearest_to_labeled_ones():
    run, who = Rounds(blobs(N)), strategy("neighbors", "k=10")
    run.buy(np.array([3, 50, 51]))
    features = run.at.inputs.pixels(np.arange(N)).astype(np.float64)
    gaps = ((features[:, None] - features[run.pool.labeled]) ** 2).sum(axis=2).min(axis=1)
    free = run.pool.unlabeled
    assert (
        who.select(run.round(7), 7).rows.tolist() == free[np.argsort(gaps[free], kind="stable")][:7].tolist()
    )


def test_a_first_stage_that_knows_its_size_takes_none():
    assert isinstance(strategy("neighbors"), Restriction)
    with pytest.raises(Exception, match="first_size: neighbors says itself how many rows it leaves, got 30"):
        strategy("seals", "first_size=30")


def test_its_settings_are_those_of_seals_and_of_algorithm_3():
    one, two = settings("strategy=seals"), settings("strategy=vae_seals")
    assert one["featurizer"]["_target_"].endswith("Penultimate")
    assert two["featurizer"]["_target_"].endswith("Vae")
    assert not one["graph"]
    assert not two["graph"]
    assert one["strategy"]["first"]["k"] == two["strategy"]["first"]["k"] == 100
    lc = settings("strategy=vae_seals", "strategy@strategy.second=least_confidence")
    assert lc["featurizer"]["_target_"].endswith("Vae")
    assert lc["strategy"]["second"]["_target_"].endswith("LeastConfidence")


class ExactIndex:
    """hnswlib's index as small-text calls it, by sorting all distances."""

    def __init__(self, space, dim):
        assert space == "l2"
        self.gone = set()

    def init_index(self, **sizes): ...

    def set_ef(self, ef): ...

    def add_items(self, points, rows):
        self.points, self.rows = points.astype(np.float64), np.asarray(rows)

    def mark_deleted(self, row):
        self.gone.add(int(row))

    def knn_query(self, queries, k):
        held = ~np.isin(self.rows, list(self.gone))
        gaps = ((queries[:, None].astype(np.float64) - self.points[held]) ** 2).sum(axis=2)
        order = np.argsort(gaps, axis=1, kind="stable")[:, :k]
        return self.rows[held][order], np.take_along_axis(gaps, order, 1)


def test_refreshed_restrictions_are_those_of_small_text(monkeypatch):
    """On fixed embeddings, since small-text keeps those of its first query; its index is exact here."""
    monkeypatch.setitem(sys.modules, "hnswlib", SimpleNamespace(Index=ExactIndex))
    subsampling = pytest.importorskip("small_text.query_strategies.strategies", exc_type=ImportError)
    monkeypatch.setattr(subsampling, "check_optional_dependency", lambda name: None, raising=False)
    theirs = subsampling.SEALS(None, k=K)
    run, who = refreshed(blobs(N)), strategy("seals", f"first.k={K}")
    embedded = run.at.model.embed(np.arange(N))
    classifier = SimpleNamespace(embed=lambda dataset, pbar: embedded)
    run.buy(np.array([3, 50]))
    for _ in range(4):
        restricted = theirs.get_subset_indices(classifier, None, run.pool.unlabeled, run.pool.labeled)
        ours = who.first.restrict(run.round(3), 3).rows
        assert np.sort(ours).tolist() == restricted.tolist()
        run.buy(who.select(run.round(3), 3).rows)
