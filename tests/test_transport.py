from itertools import permutations, product
from math import lcm

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from alrun.transport import balancing, semi_discrete
from alrun.transport.cycles import merged
from alrun.transport.semi_discrete import relaxed, transport


def clouds(n, width, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 4)) + 2 * rng.integers(0, 2, (n, 1))
    return np.linalg.norm(rows[:, None] - rows[rng.choice(n, width, replace=False)], axis=2)


def odd(rng):
    """A small problem, often with ties, duplicates, negative costs or an extreme scale."""
    n = int(rng.integers(1, 13))
    width = int(rng.integers(1, n + 1))
    kind = rng.integers(6)
    if kind == 0:
        return rng.normal(size=(n, width))
    if kind == 1:
        return rng.integers(0, 3, (n, width)).astype(float)
    if kind == 2:
        return rng.integers(0, 4, (n, width)).astype(float)[rng.integers(n, size=n)]
    if kind == 3:
        return rng.normal(size=(n, width))[:, rng.integers(width, size=width)] * 10.0 ** rng.integers(-12, 13)
    if kind == 4:
        return np.full((n, width), rng.integers(-1, 2).astype(float))
    points = rng.integers(0, 4, (n, 2)).astype(float)
    return np.linalg.norm(points[:, None] - points[rng.integers(n, size=width)], axis=2)


def size_of(costs):
    return np.abs(costs).max()


def holds(found, costs):
    """Checks that the plan keeps its sums and the duals prove it optimal."""
    n, width = costs.shape
    units = np.zeros((n, width), int)
    np.add.at(units, (found.rows, found.columns), found.units)
    total = lcm(n, width)
    assert (units.sum(1) == total // n).all()
    assert (units.sum(0) == total // width).all()
    assert (found.units > 0).all()
    assert (np.diff(found.rows * width + found.columns) > 0).all()
    assert len(found.rows) <= n + width - 1
    assert (found.row_duals == (costs - found.column_duals).min(1)).all()
    assert abs(found.column_duals.mean()) <= 1e-14 * (1 + size_of(costs))
    assert found.value == pytest.approx((units * costs).sum() / total, rel=1e-12, abs=1e-14 * size_of(costs))
    assert found.gap == pytest.approx(
        found.value - found.row_duals.mean() - found.column_duals.mean(), abs=1e-14 * size_of(costs)
    )
    assert abs(found.gap) <= 1e-14 * size_of(costs)


@pytest.mark.parametrize("seed", range(6))
def test_hundreds_of_small_problems_cost_what_network_simplex_says(seed):
    rng = np.random.default_rng(seed)
    for trial in range(500):
        costs = odd(rng)
        n, width = costs.shape
        start = rng.normal(size=width) * 10.0 ** rng.integers(-3, 30) if trial % 2 else None
        found = transport(costs, start)
        assert found.solver == "paths"
        holds(found, costs)
        size = size_of(costs) or 1.0
        expected = ot.emd2(np.full(n, 1 / n), np.full(width, 1 / width), costs / size) * size
        assert found.value == pytest.approx(expected, abs=1e-12 * size)


@pytest.mark.parametrize(("n", "width"), [(400, 7), (1003, 20), (600, 48), (2500, 13), (2000, 20)])
@pytest.mark.parametrize("kind", ["plain", "integers", "copies", "two sizes"])
def test_larger_problems_cost_what_network_simplex_says(n, width, kind):
    costs = clouds(n, width)
    if kind == "integers":
        costs = np.rint(costs)
    if kind == "copies":
        costs = costs[np.arange(n) % 11][:, np.arange(width) % 5].copy()
    if kind == "two sizes":
        costs[:, 0] *= 1e6
    found = transport(costs)
    holds(found, costs)
    expected, notes = ot.emd2(np.full(n, 1 / n), np.full(width, 1 / width), costs, log=True, numItermax=10**7)
    assert notes["warning"] is None
    assert found.value == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_as_many_columns_as_rows_is_the_assignment_problem(n):
    costs = np.random.default_rng(n).random((n, n))
    assert transport(costs).value == pytest.approx(costs[linear_sum_assignment(costs)].mean(), rel=1e-12)


def test_columns_that_divide_the_rows_are_an_assignment_to_repeated_columns():
    costs = clouds(60, 5)
    repeated = np.repeat(costs, 12, axis=1)
    found = transport(costs)
    assert found.value == pytest.approx(repeated[linear_sum_assignment(repeated)].mean(), rel=1e-12)
    assert len(found.rows) == 60


def test_every_assignment_of_split_rows_costs_at_least_as_much():
    costs = np.random.default_rng(3).integers(0, 9, (3, 2)).astype(float)
    # Three rows of two units, two columns of three.
    options = {order for order in permutations([0, 0, 0, 1, 1, 1])}
    best = min(
        sum(costs[row, column] for row, column in zip([0, 0, 1, 1, 2, 2], order, strict=True))
        for order in options
    )
    assert transport(costs).value == best / 6


def test_one_column_takes_all():
    costs = clouds(50, 1)
    found = transport(costs)
    assert found.value == pytest.approx(costs.mean(), rel=1e-14)
    assert (found.row_duals == costs[:, 0]).all()


def test_points_on_a_line_cost_what_sorting_says():
    points = np.random.default_rng(5).normal(size=301)
    columns = points[[3, 50, 120, 7]]
    found = transport(np.abs(points[:, None] - columns))
    assert found.value == pytest.approx(wasserstein_distance(points, columns), rel=1e-12)


@pytest.mark.parametrize(
    ("columns", "expected"), [([1, 4], 2 / 3), ([0, 4], 5 / 6), ([0, 1], 2), ([4, 5], 2)]
)
def test_golden_values_on_six_points_of_a_line(columns, expected):
    points = np.arange(6.0)
    assert transport(np.abs(points[:, None] - points[columns])).value == pytest.approx(expected, rel=1e-15)


def test_equal_distances_cost_one_less_the_share_of_columns():
    costs = np.ones((12, 4)) - np.eye(12)[:, :4]
    assert transport(costs).value == pytest.approx(1 - 4 / 12, rel=1e-15)


def test_constant_costs_need_no_augmentation():
    found = transport(np.full((3000, 24), 0.3))
    assert found.augmentations == 0
    holds(found, np.full((3000, 24), 0.3))


def test_scaled_shifted_and_permuted_costs_cost_accordingly():
    costs, rng = clouds(300, 7), np.random.default_rng(0)
    value = transport(costs).value
    moved = np.ascontiguousarray(costs[rng.permutation(300)][:, rng.permutation(7)])
    assert transport(moved).value == pytest.approx(value, rel=1e-13)
    assert transport(costs * 2.0**-40).value == pytest.approx(value * 2.0**-40, rel=1e-13)
    assert transport(1e12 * costs).value == pytest.approx(1e12 * value, rel=1e-13)
    assert transport(costs - 5).value == pytest.approx(value - 5, rel=1e-13)
    assert transport(np.asfortranarray(costs)).value == value


def test_the_number_of_threads_changes_no_bit():
    costs, before, found = clouds(3000, 24), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(transport(costs))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert (other.row_duals == found[0].row_duals).all()
        assert (other.rows == found[0].rows).all()
        assert (other.columns == found[0].columns).all()
        assert (other.value, other.augmentations) == (found[0].value, found[0].augmentations)


def test_rows_are_assigned_to_the_first_of_the_least_columns_and_know_the_gap_to_the_next():
    rng = np.random.default_rng(0)
    for width in (1, 2, 5, 30):
        costs, duals = rng.integers(0, 40, (200, width)) / 7, rng.integers(0, 5, width) / 7
        rows = rng.integers(200, size=90)
        least, columns, gaps = balancing.assigned(costs, duals, rows)
        reduced = costs[rows] - duals
        ranked = np.hstack([np.sort(reduced, axis=1), np.full((90, 1), np.inf)])
        assert (least == ranked[:, 0]).all()
        assert (columns == reduced.argmin(axis=1)).all()
        assert (gaps == ranked[:, 1] - ranked[:, 0]).all()


def test_optimal_duals_leave_almost_nothing_to_move():
    costs = clouds(3000, 24)
    first = transport(costs)
    again = transport(costs, first.column_duals)
    assert first.augmentations > 100
    assert again.augmentations < 24
    assert again.value == pytest.approx(first.value, rel=1e-13)


@pytest.mark.parametrize(("n", "width"), [(1200, 12), (700, 30), (11, 3)])
@pytest.mark.parametrize("swapped", [[0], [2], [1, 0, 2]])
def test_swapped_columns_are_solved_from_relaxed_duals(n, width, swapped):
    costs, others = clouds(n, width), clouds(n, width, seed=1)
    previous = transport(costs)
    costs[:, swapped] = others[:, swapped]
    start = relaxed(costs, np.array(swapped), previous)
    found = transport(costs, start)
    holds(found, costs)
    assert found.value == pytest.approx(transport(costs).value, rel=1e-12)
    if len(swapped) < width:
        kept = np.setdiff1d(np.arange(width), swapped)
        assert (start[kept] == previous.column_duals[kept]).all()
    if n > 1000 and len(swapped) == 1:
        won = np.argmin(costs - start, axis=1) == swapped[0]
        assert won.sum() - n // width in (-1, 0, 1)  # the row at the order statistic ties
        assert found.augmentations < transport(costs).augmentations


def test_a_swap_for_the_same_column_gives_an_optimal_start():
    costs = clouds(600, 8)
    previous = transport(costs)
    start = relaxed(costs, np.array([3]), previous)
    proven = (costs - start).min(1).mean() + start.mean()
    assert proven == pytest.approx(previous.value, rel=1e-3)


def test_rows_split_without_spare_room_get_more(monkeypatch):
    costs = clouds(500, 37)
    expected = transport(costs)
    monkeypatch.setattr(balancing, "SPARE", 0)
    found = transport(costs)
    holds(found, costs)
    assert (found.row_duals == expected.row_duals).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_plain_path_gives_the_same_values_and_valid_duals(seed, monkeypatch):
    rng = np.random.default_rng(100 + seed)
    problems = [odd(rng) for _ in range(200)] + [clouds(300, 7), 1e-12 * clouds(101, 20)]
    compiled = [transport(costs) for costs in problems]
    monkeypatch.setattr(semi_discrete, "COMPILED", False)
    for costs, other in zip(problems, compiled, strict=True):
        found = transport(costs)
        assert found.solver == "simplex"
        holds(found, costs)
        assert found.value == pytest.approx(other.value, abs=1e-13 * size_of(costs))


def test_an_uncertified_result_is_solved_again_and_said(monkeypatch, caplog):
    costs = clouds(30, 4)
    good = transport(costs)
    bad = semi_discrete.Transport(**{**vars(good), "gap": 1e-6 * good.value})
    monkeypatch.setattr(semi_discrete, "_by_paths", lambda *given: bad)
    found = transport(costs)
    assert found.solver == "simplex"
    assert found.value == pytest.approx(good.value)
    assert "POT solves again" in caplog.text
    monkeypatch.setattr(semi_discrete, "_by_simplex", lambda *given: bad)
    with pytest.raises(ValueError, match="certified plan"):
        transport(costs)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e301])
def test_a_cost_that_is_no_usable_number_is_named(wrong):
    costs = np.ones((5, 3))
    costs[3, 1] = wrong
    with pytest.raises(ValueError, match="row 3, column 1"):
        transport(costs)


@pytest.mark.parametrize("shape", [(2, 3), (4, 0), (0, 0)])
def test_fewer_rows_than_columns_or_no_column_are_refused(shape):
    with pytest.raises(ValueError, match="no more columns than rows"):
        transport(np.zeros(shape))


def test_starts_that_do_not_fit_are_refused():
    costs = np.ones((6, 2))
    with pytest.raises(ValueError, match="start must be 2 finite duals"):
        transport(costs, np.array([0, np.nan]))
    with pytest.raises((ValueError, TypeError)):  # types are checked in tests, and shapes with them
        transport(costs, np.zeros(3))
    found = transport(costs)
    for swapped in ([2], [-1], [0, 0]):
        with pytest.raises(ValueError, match="distinct and in"):
            relaxed(costs, np.array(swapped), found)
    with pytest.raises(ValueError, match="a problem of 5 rows"):
        relaxed(costs[:5], np.array([0]), found)


def test_entries_are_merged_and_cycles_emptied_between_the_same_sums():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, width = rng.integers(1, 7, 2)
        pairs = np.array(list(product(range(n), range(width))))
        pairs = pairs[rng.integers(len(pairs), size=3 * len(pairs))]
        units = rng.integers(1, 5, len(pairs))
        before = np.zeros((n, width), int)
        np.add.at(before, tuple(pairs.T), units)
        rows, columns, left = merged(pairs[:, 0], pairs[:, 1], units, int(n), int(width))
        after = np.zeros((n, width), int)
        after[rows, columns] = left
        assert (after.sum(0) == before.sum(0)).all()
        assert (after.sum(1) == before.sum(1)).all()
        assert (left > 0).all()
        assert (np.diff(rows * width + columns) > 0).all()
        assert len(rows) <= n + width - 1


def test_rows_that_are_split_do_not_multiply():
    costs = clouds(1009, 100)  # without a common divisor; parts of a row in one column are one part
    found = transport(costs)
    holds(found, costs)
    assert found.augmentations < 2000


def test_a_watch_may_end_it_and_pauses_change_nothing(monkeypatch):
    costs, calls = clouds(300, 20), []
    whole = transport(costs)
    monkeypatch.setattr(balancing, "PACE", 0)
    again = transport(costs, watch=lambda: calls.append(0))
    assert len(calls) > 20
    for one, other in ((whole.units, again.units), (whole.row_duals, again.row_duals)):
        np.testing.assert_array_equal(one, other)

    def over():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        transport(costs, watch=over)
