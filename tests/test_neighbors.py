"""The searches behind the graph: each way gives the same bits, and brute force's."""

import logging
import tracemalloc

import numpy as np
import pytest
import torch

from alrun.compiled import COMPILED
from alrun.graph import approximate, cells, duplicates, exact, points, tiles
from alrun.graph import knn as module
from alrun.graph.knn import Knn, nearest, unit_rows
from alrun.graph.points import Points

CPU = torch.device("cpu")
INDEXES = ["hnsw", "ivf", "nndescent"]


def by_definition(features, k):
    """Neighbors by (distance, row), distances summed by halves in float64."""
    terms = (features[:, None].astype(np.float64) - features.astype(np.float64)) ** 2
    width = 1 << (features.shape[1] - 1).bit_length()
    terms = np.pad(terms, ((0, 0), (0, 0), (0, width - features.shape[1])))
    while terms.shape[2] > 1:
        terms = terms[..., : terms.shape[2] // 2] + terms[..., terms.shape[2] // 2 :]
    gaps = terms[..., 0].astype(np.float32)
    np.fill_diagonal(gaps, np.inf)
    near = np.argsort(gaps, axis=1, kind="stable")[:, :k]
    return near, np.take_along_axis(gaps, near, 1)


def drawn(seed):
    """A small set of one of many kinds, and a k."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 150)), int(rng.integers(1, 20))
    kinds = [
        rng.normal(size=(n, d)),
        rng.integers(0, 3, (n, d)),
        rng.normal(size=(n, d))[rng.integers(0, 1 + n // 3, n)],
        np.where(rng.random((n, d)) < 0.5, 0.0, -0.0) + (rng.random((n, 1)) < 0.1),
        rng.normal(size=(4, d))[rng.integers(4, size=n)] + 2e-8 * rng.normal(size=(n, d)),
        rng.normal(size=(n, d)) * 1e-23,
        1e6 * rng.normal(size=(3, d))[rng.integers(3, size=n)] + rng.normal(size=(n, d)),
    ]
    features = kinds[seed % len(kinds)].astype(np.float32)
    return features, int(rng.integers(1, n))


def all_points(features, unit=False):
    norms = np.linalg.norm(features.astype(float), axis=1) if unit else np.ones(len(features))
    return Points(features, norms, np.arange(len(features)))


def cloud(n=1500, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def uncompiled(monkeypatch):
    for room in (points, exact, cells):
        monkeypatch.setattr(room, "COMPILED", False)


def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_ROWS", 16)
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 40)


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", range(42))
def test_the_compiled_the_plain_and_the_device_way_give_the_bits_of_brute_force(seed, monkeypatch):
    features, k = drawn(seed)
    true = by_definition(features, k)
    assert same(nearest(features, k), true)
    uncompiled(monkeypatch)
    assert same(nearest(features, k), true)
    small_tiles(monkeypatch)
    monkeypatch.setattr(module, "exact", lambda few, of_few, device: tiles.exact_on(few, of_few, device))
    assert same(nearest(features, k), true)


@pytest.mark.parametrize("unit", [False, True])
def test_searching_again_gives_the_same_bits_on_each_way(unit, monkeypatch):
    features = np.vstack([cloud(300, 5), 0.001 * cloud(100, 5) + 30, np.zeros((2, 5), np.float32)])
    few, _ = duplicates.distinct(all_points(features, unit))
    at, last = np.arange(0, len(few), 3), np.full(len(range(0, len(few), 3)), 1e6, np.float32)
    compiled = exact.among_all(few, at, last, 7)
    uncompiled(monkeypatch)
    small_tiles(monkeypatch)
    assert same(exact.among_all(few, at, last, 7), compiled)
    neighbors, distances = exact.exact(few, 7, CPU)
    assert same((neighbors[at], distances[at]), compiled)


def test_cosine_gives_the_same_bits_on_each_way_also_with_zero_rows(monkeypatch):
    features = cloud(200, 5)
    features[[3, 77, 150]] = 0
    setting = Knn(6, "cosine", "none", "exact", 1.0)
    compiled = setting.build(features)
    true = by_definition(unit_rows(features), 6)
    assert same((compiled.neighbors, compiled.distances), (true[0], true[1] * np.float32(0.5)))
    uncompiled(monkeypatch)
    plain = setting.build(features)
    assert same((plain.neighbors, plain.distances), (compiled.neighbors, compiled.distances))
    monkeypatch.setattr(module, "exact", lambda few, of_few, device: tiles.exact_on(few, of_few, device))
    device = setting.build(features)
    assert same((device.neighbors, device.distances), (compiled.neighbors, compiled.distances))


@pytest.mark.parametrize("tile", [64, 100, 1000])
def test_the_size_of_tiles_changes_nothing(tile, monkeypatch):
    features = np.vstack([cloud(400, 6), 1e-3 * cloud(100, 6) + 50])
    whole = nearest(features, 9)
    monkeypatch.setattr(exact, "TILE", tile)
    assert same(nearest(features, 9), whole)


def test_two_points_with_one_mark_are_still_two(monkeypatch):
    features = cloud(60, 3)[np.random.default_rng(0).integers(60, size=90)]
    before = nearest(features, 5)
    monkeypatch.setattr(duplicates, "_marks", lambda points: np.zeros(len(points), np.uint64))
    assert same(nearest(features, 5), before)


@pytest.mark.skipif(not COMPILED, reason="the plain way holds copies")
def test_no_copy_of_the_features_is_made(monkeypatch):
    features = cloud(10_000, 256)
    for room in (points, module):
        monkeypatch.setattr(room, "BLOCK_BYTES", 2**22)
    for metric in ("sqeuclidean", "cosine"):
        tracemalloc.start()
        Knn(4, metric, "none", "exact", 1.0).build(features)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.8 * features.nbytes


def test_the_least_distances_are_certified_not_assumed(monkeypatch):
    """Candidates that miss the nearest rows are found out by the bound and searched again."""
    features = cloud(300, 4)
    true = by_definition(features, 5)

    def blind(points, width):
        return np.tile(np.arange(width, dtype=np.int32), (len(points), 1)), np.zeros(len(points))

    monkeypatch.setattr(exact, "_swept", blind)
    monkeypatch.setattr(exact, "_flat", blind)
    assert same(nearest(features, 5), true)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_an_index_finds_nearly_all_neighbors_and_ranks_them_alike(index, metric):
    features = cloud()
    features[[5, 9]] = 0
    true = Knn(6, metric, "none", "exact", 0.9).build(features)
    graph = Knn(6, metric, "none", index, 0.9).build(features)
    rows = np.linspace(0, 1498, 500).astype(np.int64)
    found = graph.distances[rows] <= true.distances[rows, -1:]
    assert true.recall == 1
    assert graph.recall >= 0.98
    assert graph.recall == pytest.approx(found.mean(), abs=0.002)
    alike = (graph.neighbors == true.neighbors).all(axis=1)
    assert alike.mean() > 0.95
    assert same((graph.distances[alike],), (true.distances[alike],))


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_gives_the_same_graph_again_and_with_other_threads(index):
    setting, before = Knn(6, "sqeuclidean", "none", index, 0.9), torch.get_num_threads()
    graphs = []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            graphs.append(setting.build(cloud(seed=1)))
    finally:
        torch.set_num_threads(before)
    assert same((graphs[0].neighbors, graphs[0].neighbors), (graphs[1].neighbors, graphs[2].neighbors))


@pytest.mark.parametrize("index", INDEXES)
def test_indexes_take_duplicates_constant_features_and_few_rows(index):
    setting = Knn(6, "sqeuclidean", "none", index, 0.9)
    heavy = np.vstack([cloud(1200, 4), np.repeat(cloud(30, 4, seed=3), 40, axis=0)])
    true, graph = Knn(6, "sqeuclidean", "none", "exact", 0.9).build(heavy), setting.build(heavy)
    assert (graph.neighbors[1200:] == true.neighbors[1200:]).all()
    assert (graph.distances[1200:] == 0).all()
    constant = setting.build(np.ones((3000, 4), np.float32))
    assert constant.neighbors[7].tolist() == [0, 1, 2, 3, 4, 5]
    assert constant.recall == 1
    assert setting.build(cloud(3)).k == 2
    with pytest.raises(ValueError, match="row 4 holds nan"):
        setting.build(np.where(np.arange(3000)[:, None] == 4, np.nan, cloud(3000)).astype(np.float32))


def test_candidates_from_cells_are_the_same_compiled_and_plain(monkeypatch):
    monkeypatch.setattr(cells, "NEAREST", 3)
    clustered = all_points(cloud() + 6 * cloud(4, 8)[np.arange(1500) % 4])
    first = points.ranked(clustered, cells.searcher(clustered, 12)(0), 8)
    monkeypatch.setattr(cells, "TILE_ROWS", 7)
    monkeypatch.setattr(cells, "TILE_COLUMNS", 50)
    cut = points.ranked(clustered, cells.searcher(clustered, 12)(0), 8)
    uncompiled(monkeypatch)
    plain = points.ranked(clustered, cells.searcher(clustered, 12)(0), 8)
    assert same(first, cut)
    assert same(first, plain)


def test_effort_is_doubled_until_the_recall_is_reached(monkeypatch, caplog):
    monkeypatch.setattr(cells, "NEAREST", 2)
    setting = Knn(6, "sqeuclidean", "none", "ivf", 0.6)
    with caplog.at_level(logging.INFO):
        graph = setting.build(cloud(1500, 16))
    assert "searching longer" in caplog.text
    assert f"{graph.recall:.4f}" in caplog.text
    assert 0.6 <= graph.recall < 1


def test_too_low_a_recall_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(cells, "NEAREST", 1)
    monkeypatch.setattr(approximate, "STEPS", 1)
    with pytest.raises(ValueError, match=r"min_recall=0.99 .* got 0\.\d+; lower graph.min_recall"):
        Knn(6, "sqeuclidean", "none", "ivf", 0.99).build(cloud(1500, 16))


def test_a_neighbor_as_near_as_the_true_one_counts_as_found():
    line = all_points(np.arange(600, dtype=np.float32)[:, None])
    right = np.minimum(np.arange(600) + 1, 599)[:, None].astype(np.int32)
    right[599] = 598
    _, _, recall = approximate._measured(line, right, 1)
    assert recall == 1


def test_points_with_too_few_candidates_are_searched_exactly():
    features = cloud(600, 3)
    found = np.full((600, 6), -1, np.int32)
    found[:, 0] = (np.arange(600) + 1) % 600
    neighbors, distances, recall = approximate._measured(all_points(features), found, 5)
    assert same((neighbors, distances), by_definition(features, 5))
    assert recall < 0.5


def test_auto_is_exact_up_to_its_limit_of_distinct_rows(monkeypatch, caplog):
    monkeypatch.setattr(module, "EXACT_UP_TO", {"cpu": 1500})
    setting = Knn(6, "sqeuclidean", "none", "auto", 0.9)
    with caplog.at_level(logging.INFO):
        assert setting.build(cloud()).recall == 1
        assert setting.build(np.vstack([cloud(), cloud()])).recall == 1
        assert not caplog.records
        setting.build(cloud(1501))
    assert "graph.index=ivf" in caplog.text
