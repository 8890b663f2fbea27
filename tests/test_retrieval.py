import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy import ndarray

from alrun.retrieval import scan, sweep
from alrun.retrieval.nearest_free import Finder, NearestFree, Retrieval
from alrun.retrieval.scan import Scan
from alrun.retrieval.sweep import Nearest


def exact(points: ndarray) -> NearestFree:
    return NearestFree(Scan(points))


def distances(points: ndarray, query: ndarray, free: ndarray) -> ndarray:
    gaps = ((points.astype(np.float64) - query) ** 2).sum(axis=1)
    return np.where(free, np.sqrt(gaps), np.inf)


def greedy(points: ndarray, queries: ndarray, free: ndarray) -> ndarray:
    free, rows = free.copy(), []
    for query in queries:
        rows.append(int(distances(points, query, free).argmin()))
        free[rows[-1]] = False
    return np.array(rows)


def case(seed: int) -> tuple[ndarray, ndarray, ndarray]:
    """Points, queries and what is free; every other case is a coarse grid with duplicates and ties."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 600)), int(rng.integers(1, 20))
    free = rng.random(n) < rng.choice([0.05, 0.5, 1.0])
    free[rng.integers(n)] = True
    q = int(rng.integers(1, min(40, free.sum()) + 1))
    if seed % 2:
        points, queries = rng.integers(0, 3, (n, d)), rng.integers(0, 3, (q, d))
    else:
        shift = rng.choice([0, 1000], 2)  # far from the origin products lose digits
        points, queries = rng.normal(size=(n, d)) + shift[0], rng.normal(size=(q, d)) + shift[1]
    if seed % 3 == 0:
        queries = np.repeat(queries[:1], q, axis=0)  # all want the same points
    return points.astype(np.float32), queries.astype(np.float32), free


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    monkeypatch.setattr(sweep, "CPU_POINTS", 64)
    monkeypatch.setattr(sweep, "QUERIES", 7)


@pytest.mark.parametrize("seed", range(60))
def test_taking_equals_the_greedy_loop_over_all_points(seed):
    points, queries, free = case(seed)
    before = free.copy()
    assert exact(points).take(queries, free).tolist() == greedy(points, queries, free).tolist()
    assert (free == before).all()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.usefixtures("small_tiles")
def test_neither_tiles_nor_threads_nor_files_change_a_choice(seed, tmp_path):
    points, queries, free = case(seed)
    np.save(tmp_path / "points.npy", points)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    expected, before = greedy(points, queries, free).tolist(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert exact(mapped).take(queries, free).tolist() == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(20))
def test_nearest_are_sorted_by_distance_and_row(seed):
    points, queries, free = case(seed)
    count = min(int(free.sum()), 9)
    rows, gaps = exact(points).nearest(queries, free, count)
    for query, own, gap in zip(queries, rows, gaps, strict=True):
        true = distances(points, query, free)
        order = np.lexsort((np.arange(len(points)), true))[:count]
        assert own.tolist() == order.tolist()
        assert gap == pytest.approx(true[order], rel=1e-12)


def test_nearest_of_one_query_do_not_depend_on_the_others():
    points, queries, free = case(4)
    index = exact(points)
    together, _ = index.nearest(queries, free, 3)
    alone = [index.nearest(query[None], free, 3)[0][0].tolist() for query in queries]
    assert together.tolist() == alone


def test_a_difference_below_float32_decides_in_float64():
    points = np.array([[1000, 1.0001], [1000, 1]], np.float32)
    assert exact(points).take(np.zeros((2, 2), np.float32), np.ones(2, bool)).tolist() == [1, 0]


def test_many_equal_points_are_taken_in_the_order_of_rows():
    points = np.ones((900, 3), np.float32)
    taken = exact(points).take(np.zeros((100, 3), np.float32), np.arange(900) % 2 == 1)
    assert taken.tolist() == list(range(1, 201, 2))


def test_points_without_features_are_all_at_distance_zero():
    index, free = exact(np.empty((5, 0), np.float32)), np.array([False, True, True, False, True])
    assert index.take(np.empty((3, 0), np.float32), free).tolist() == [1, 2, 4]


class Counted(Scan):
    """Points that count how often they are searched and for how many queries."""

    def __init__(self, points: ndarray) -> None:
        super().__init__(points)
        self.searched: list[int] = []

    def nearest(self, queries: ndarray, free: ndarray, count: int) -> Nearest:
        self.searched.append(len(queries))
        return super().nearest(queries, free, count)


def test_only_queries_whose_list_ran_out_are_searched_again():
    rng = np.random.default_rng(0)
    points, queries = (rng.normal(size=(n, 4)).astype(np.float32) for n in (2000, 100))
    queries[50:60] = queries[50]
    counted = Counted(points)
    assert isinstance(counted, Finder)
    taken = NearestFree(counted).take(queries, np.ones(2000, bool))
    assert taken.tolist() == greedy(points, queries, np.ones(2000, bool)).tolist()
    assert counted.searched[0] == 100
    assert 0 < sum(counted.searched[1:]) <= 10


def test_equal_queries_need_few_searches():
    points = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    counted = Counted(points)
    NearestFree(counted).take(np.zeros((500, 4), np.float32), np.ones(2000, bool))
    assert len(counted.searched) <= 6


def test_a_search_takes_memory_for_its_tiles_and_not_for_the_points(tmp_path):
    shape = (150_000, 20)
    points = np.lib.format.open_memmap(tmp_path / "points.npy", mode="w+", dtype=np.float32, shape=shape)
    points[:] = np.random.default_rng(0).normal(size=shape)
    free, index = np.ones(shape[0], bool), exact(points)
    tracemalloc.start()
    index.take(points[:50].copy(), free)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < points.nbytes  # torch's own tile is 4 MiB more at most


def stated(kind: str, recall: float = 0.99) -> Callable[[ndarray], NearestFree]:
    return Retrieval(kind, 5000, recall).over


def clusters(n: int, seed: int = 0) -> ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(50, 8))[rng.integers(50, size=n)] * 3 + rng.normal(size=(n, 8))).astype(
        np.float32
    )


def test_an_inverted_file_states_the_recall_it_has():
    points, probe = clusters(20_000), clusters(500, 1)
    free = np.ones(len(points), bool)
    index = Retrieval("auto", 5000, 0.9).over(points, probe=probe)
    rows, _ = index.nearest(probe, free, 1)
    true, _ = exact(points).nearest(probe, free, 1)
    assert index.notes["recall"] == pytest.approx((rows == true).mean())
    assert index.notes["recall"] >= 0.9
    assert index.notes["cells_probed"] <= 64


def test_a_higher_recall_takes_more_cells():
    points, probe = np.random.default_rng(0).normal(size=(2, 10_000, 20)).astype(np.float32)
    few, many = (Retrieval("ivf", 1, recall).over(points, probe=probe[:300]).notes for recall in (0.5, 0.85))
    assert few["cells_probed"] < many["cells_probed"]
    assert few["recall"] < many["recall"]


def test_an_inverted_file_without_the_recall_is_refused():
    points = np.random.default_rng(0).normal(size=(6000, 30)).astype(np.float32)
    with pytest.raises(ValueError, match=r"min_recall=0.999 .* got 0\.\d+ in a quarter.*index=exact"):
        stated("ivf", 0.999)(points)


def test_rows_of_an_inverted_file_are_free_and_taken_once():
    points = clusters(6000)
    free = np.random.default_rng(0).random(6000) < 0.02
    rows = stated("ivf")(points).take(clusters(int(free.sum()), 2), free)
    assert sorted(rows.tolist()) == np.flatnonzero(free).tolist()


def test_exact_up_to_a_size_and_an_inverted_file_beyond():
    assert "cells_probed" not in stated("auto")(clusters(5000)).notes
    assert "cells_probed" in stated("auto")(clusters(5001)).notes
    assert stated("ivf")(np.empty((9, 0), np.float32)).notes == {"recall": 1.0}
    assert stated("exact")(clusters(5001)).notes == {"recall": 1.0}


@pytest.mark.parametrize(
    ("queries", "free", "message"),
    [
        (np.zeros((3, 2)), [True, True, False, False], "3 queries were asked for and 2 of 4 points are free"),
        (np.zeros((1, 2)), [False] * 4, "1 queries were asked for and 0 of 4"),
        (np.zeros((1, 3)), [True] * 4, "4 points of 2 features need queries of 2 features"),
        (np.zeros((1, 2)), [True] * 3, "4 flags of what is free, got 2 and 3"),
        (np.array([[0, np.nan]]), [True] * 4, "row 0 holds nan"),
    ],
)
def test_what_cannot_be_taken_is_told(queries, free, message):
    index = exact(np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match=message):
        index.take(queries.astype(np.float32), np.array(free))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e18])
@pytest.mark.parametrize("row", [0, 7])
def test_points_that_are_no_numbers_are_refused(wrong, row, monkeypatch):
    monkeypatch.setattr(scan, "SAMPLE", 2)  # rows 0 and 9
    points = np.zeros((10, 2), np.float32)
    points[row, 1] = wrong
    with pytest.raises(ValueError, match=f"row {row} holds"):
        exact(points)


def test_no_points_are_refused():
    with pytest.raises(ValueError, match="needs points, got none"):
        exact(np.empty((0, 2), np.float32))
