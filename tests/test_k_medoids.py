"""k-medoids: near the best of all choices, honest about it, the same whatever computes it."""

from itertools import combinations

import numpy as np
import pytest
import torch
from crowds import CASES, METRICS, NONE, assert_equal, crowd, gaps, medoids, objective

from alrun.coverage import assignment
from alrun.coverage import k_medoids as module
from alrun.coverage.k_medoids import k_medoids


@pytest.mark.usefixtures("way")
def test_two_groups_on_a_line_are_known_by_their_middles():
    found = medoids(np.array([[0], [1], [2], [10], [11], [13]], np.float32), 2)
    assert found.rows.tolist() == [1, 4]
    assert found.objective == pytest.approx(5 / 6, rel=1e-12)
    # Without the row at 1 its group is served from 11: 11 + 10 + 9 instead of 2; without 11, 9 + 10 + 12.
    np.testing.assert_allclose(found.losses, [28 / 6, 28 / 6], rtol=1e-12)
    assert found.converged
    assert found.tried == 6


@pytest.mark.parametrize("metric", METRICS)
def test_the_objective_is_near_the_best_of_all_choices(metric):
    ratios = np.empty((20, 5))
    for instance in range(20):
        rng = np.random.default_rng(instance)
        points = rng.normal(size=(int(rng.integers(8, 13)), 3)).astype(np.float32)
        size, fixed = int(rng.integers(1, 5)), list(range(instance % 3))
        distances = gaps(points, metric)
        free = range(len(fixed), len(points))
        best = min(objective(distances, [*fixed, *rows]) for rows in combinations(free, size))
        for seed in range(5):
            found = medoids(points, size, fixed=fixed, metric=metric, seed=seed)
            ratios[instance, seed] = found.objective / best
    assert ratios.min() > 1 - 1e-6
    assert ratios.mean() < 1.015
    assert ratios.min(axis=1).max() < 1.05
    assert ratios.max() < 1.2


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_objective_and_losses_are_those_of_the_definition(kind, metric):
    points, fixed = crowd(kind), [3, 50]
    found = medoids(points, 7, fixed=fixed, metric=metric)
    distances = gaps(points, metric)
    chosen = [*fixed, *found.rows]
    least = 1e-11 if metric == "cosine" else 0  # unit rows are rounded to float32
    whole = objective(distances, chosen)
    np.testing.assert_allclose(found.objective, whole, rtol=1e-6, atol=least)
    without = [objective(distances, [row for row in chosen if row != out]) for out in found.rows]
    np.testing.assert_allclose(found.losses, np.array(without) - whole, rtol=1e-6, atol=1e-6 * whole + least)
    order = np.lexsort((found.rows, -found.losses))
    assert (order == np.arange(7)).all()


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_the_objective_falls_with_each_swap_until_no_single_swap_lowers_it(kind, metric):
    points, fixed = crowd(kind, n=60, seed=1), [0, 9]
    found = medoids(points, 5, fixed=fixed, metric=metric)
    assert (np.diff(found.history) < 0).all()
    assert (found.history[-1], found.swaps) == (found.objective, len(found.history) - 1)
    assert found.converged
    distances = gaps(points, metric)
    for out in found.rows:
        rest = [*fixed, *(row for row in found.rows if row != out)]
        swapped = np.minimum(distances, distances[:, rest].min(axis=1, keepdims=True)).mean(axis=0)
        assert swapped.min() >= found.objective * (1 - 1e-6) - 1e-7 * (metric == "cosine")


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_compiled_and_plain_ways_give_the_same_bits(kind, metric, monkeypatch):
    points, ways = crowd(kind), []
    for compiled in (assignment.COMPILED, False):
        monkeypatch.setattr(assignment, "COMPILED", compiled)
        ways.append(
            [
                medoids(points, size, fixed=fixed, metric=metric, seed=seed)
                for seed, (size, fixed) in enumerate([(6, []), (6, [1, 70]), (1, []), (15, [2]), (110, [])])
            ]
        )
    for ours, plain in zip(*ways, strict=True):
        assert_equal(ours, plain)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["plain", "integers", "tight clusters"])
def test_threads_and_blocks_change_nothing(kind, metric, monkeypatch):
    points, before = crowd(kind, n=200), torch.get_num_threads()
    whole = medoids(points, 12, fixed=[5], metric=metric)
    monkeypatch.setattr(assignment, "HANDFUL", 0)
    try:
        for count, size in ((1, 9000), (2, 9000), (3, 2**22)):
            torch.set_num_threads(count)
            monkeypatch.setattr(assignment, "BLOCK_BYTES", size)
            monkeypatch.setattr(module, "BLOCK_BYTES", size)
            assert_equal(medoids(points, 12, fixed=[5], metric=metric), whole)
    finally:
        torch.set_num_threads(before)


def test_permuted_rows_give_an_equally_good_result():
    points, order = crowd("plain", n=300), np.random.default_rng(5).permutation(300)
    plain = np.mean([medoids(points, 8, seed=seed).objective for seed in range(5)])
    moved = np.mean([medoids(points[order], 8, seed=seed).objective for seed in range(5)])
    assert moved == pytest.approx(plain, rel=0.005)


def test_the_seed_alone_decides_and_nothing_else_is_touched():
    points = crowd("plain", n=300)
    before, state = points.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert_equal(medoids(points, 9, seed=3), medoids(points, 9, seed=3))
    assert any((medoids(points, 9, seed=seed).rows != medoids(points, 9).rows).any() for seed in range(1, 9))
    assert (points == before).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_a_sample_of_candidates_is_recorded_and_respected():
    points = crowd("plain", n=500)
    whole, some = medoids(points, 10), medoids(points, 10, sample=100)
    assert (whole.tried, some.tried) == (500, 100)
    assert whole.objective <= some.objective < 1.15 * whole.objective
    assert some.converged
    assert medoids(points, 10, sample=10_000).tried == 500


def test_one_sweep_compares_each_candidate_once_and_is_nearly_enough():
    points = crowd("plain", n=500)
    short, whole = medoids(points, 10, sweeps=1), medoids(points, 10)
    assert (short.sweeps, short.converged) == (1, False)
    assert whole.sweeps > 1
    assert whole.objective <= short.objective < 1.02 * whole.objective


def test_cosine_does_not_see_the_length_of_rows():
    points = crowd("plain")
    lengths = (2.0 ** np.random.default_rng(0).integers(-30, 20, (120, 1))).astype(np.float32)
    assert_equal(medoids(points, 6, metric="cosine"), medoids(points * lengths, 6, metric="cosine"))


def test_the_objective_is_no_worse_than_that_of_the_kmedoids_package():
    peer = pytest.importorskip("kmedoids")
    ours, theirs = [], []
    for seed in range(6):
        points = crowd("plain", n=300, seed=seed)
        distances = gaps(points)
        found = medoids(points, 12, seed=seed)
        ours.append(found.objective)
        theirs.append(peer.fasterpam(distances, 12, random_state=seed, n_cpu=1).loss / 300)
        again = peer.fasterpam(distances, found.rows.astype(np.uint64), n_cpu=1)
        # What is no longer improved here is no longer improved there.
        assert again.n_swap == 0
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


def test_when_time_is_up_the_swaps_so_far_are_kept():
    points, said = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32), iter([True] * 5)
    options = {"metric": "euclidean", "sample": None, "sweeps": 9}

    def cut(in_time):
        rng = np.random.default_rng(0)
        return k_medoids(points, NONE, np.arange(200), 6, rng=rng, in_time=in_time, **options)

    begun, some, whole = cut(lambda: False), cut(lambda: next(said, False)), cut(lambda: True)
    assert (begun.swaps, begun.converged, whole.converged) == (0, False, True)
    assert begun.objective > some.objective > whole.objective
    assert len(set(some.rows.tolist())) == 6
