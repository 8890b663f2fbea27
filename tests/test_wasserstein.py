"""The Wasserstein search against every selection of small pools, each priced by a linear program."""

import logging
from itertools import islice, product

import numpy as np
import pytest
from every_selection import (
    HAIR,
    TO_THE_END,
    VARIANTS,
    Priced,
    audited,
    distances,
    pool,
    price,
    rules,
    searched,
    task_of,
)
from scipy.stats import wasserstein_distance

from alrun.wasserstein import refinement, search
from alrun.wasserstein.descent import choice
from alrun.wasserstein.program import Program
from alrun.wasserstein.refinement import Refinement
from alrun.wasserstein.search import Limits, Search

# How many of the cases: scripts/check_wasserstein.py takes all of them with every variant.
SHARES = {
    "ours": 4,
    "ours+(7)": 2,
    "(B+)+(6*)": 4,
    "(B+)": 4,
    "(B)+(6*)": 2,
    "(B)+(6')+(7)": 1,
    "(B)": 1,
    "(B)+(6')+(7)+P": 1,
}


@pytest.fixture(autouse=True)
def _few_swaps(monkeypatch):
    monkeypatch.setattr(refinement, "TRIES", 10)


@pytest.fixture(params=[search.FEW_ROWS, 0], ids=["enumerated", "by cuts"])
def _both_ways(request, monkeypatch):
    """Small pools are gone through, and searched as large ones are."""
    monkeypatch.setattr(search, "FEW_ROWS", request.param)


def on_a_line(*places):
    return np.array(places, np.float32)[:, None]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_proves_the_optimum_between_bounds_and_cuts_that_hold_for_every_selection(variant):
    cases = zip(range(8), product(("euclidean", "cosine"), ((), (3,)), (2, 4)), strict=True)
    for seed, (metric, fixed, size) in islice(cases, 0, None, 8 // SHARES[variant]):
        points = pool(seed)
        priced = Priced.of(distances(points, metric), size, fixed)
        found = audited(priced, task_of(points, metric, size, fixed), VARIANTS[variant])
        assert found.cuts > 0 or len(found.found.records) <= 9
        assert found.wrong == []


def test_a_master_that_highs_once_called_solved_too_early_proves_no_more_than_the_optimum():
    points = pool(2)
    priced = Priced.of(distances(points, "cosine"), 3)
    assert audited(priced, task_of(points, "cosine", 3), VARIANTS["(B+)"]).wrong == []


def test_a_search_cut_short_stands_between_bounds_that_hold():
    for seed, variant in enumerate(VARIANTS):
        points = pool(seed, n=21, width=3)
        priced = Priced.of(distances(points, "euclidean"), 3)
        audit = audited(
            priced, task_of(points, "euclidean", 3), VARIANTS[variant], limits=Limits(None, 3, 0.0)
        )
        assert audit.wrong == []
        assert len(audit.found.records) <= 4


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_duplicates_are_chosen_for_what_they_cost(metric):
    points = np.repeat(pool(2, n=4), 3, axis=0) + np.float32(1)
    priced = Priced.of(distances(points, metric), 4)
    for variant in ("ours", "(B)+(6*)"):
        assert audited(priced, task_of(points, metric, 4), VARIANTS[variant]).wrong == []


def test_rows_that_are_all_equal_cost_nothing():
    found = searched(task_of(np.ones((30, 2)), "euclidean", 4), rules())
    assert (found.choice.cost, found.bound, found.stopped) == (0.0, 0.0, "optimal")
    assert len(set(found.choice.rows.tolist())) == 4


@pytest.mark.usefixtures("_both_ways")
def test_selections_of_points_on_a_line_cost_what_was_worked_out_by_hand():
    found = searched(task_of(on_a_line(0, 1, 2, 3, 4, 5), "euclidean", 2), rules())
    assert (found.choice.cost, sorted(found.choice.rows)) == (pytest.approx(2 / 3), [1, 4])
    skewed = on_a_line(0, 1, 2, 6, 7)  # k-medians has a tie of {1, 3} and {1, 4} there
    found = searched(task_of(skewed, "euclidean", 2), rules())
    assert (found.choice.cost, sorted(found.choice.rows)) == (pytest.approx(0.9), [1, 3])
    found = searched(task_of(skewed, "euclidean", 2, (0,)), rules())
    assert (found.choice.cost, found.choice.rows.tolist()) == (pytest.approx(1.0), [0, 3])


@pytest.mark.usefixtures("_both_ways")
def test_what_another_column_adds_may_cost_more():
    points = on_a_line(0, 0, 0, 0, 10)
    one, two = (searched(task_of(points, "euclidean", size, (0,)), rules()) for size in (1, 2))
    assert (one.choice.cost, two.choice.cost) == (pytest.approx(2), pytest.approx(2))
    matrix = distances(points, "euclidean")
    assert (price(matrix, (0,)), price(matrix, (0, 4))) == (pytest.approx(2), pytest.approx(3))


@pytest.mark.usefixtures("_both_ways")
def test_all_rows_cost_nothing_and_one_row_costs_its_mean_distance():
    points = pool(0, n=9)
    whole, one = (searched(task_of(points, "cosine", size), rules()) for size in (9, 1))
    assert (whole.choice.cost, whole.stopped) == (0.0, "optimal")
    means = distances(points, "cosine").mean(axis=0)
    assert one.choice.rows.tolist() == [means.argmin()]
    assert one.choice.cost == pytest.approx(means.min(), abs=HAIR)


@pytest.mark.usefixtures("_both_ways")
def test_equal_distances_cost_one_less_the_share_of_columns():
    for size in (2, 5, 7):
        found = searched(task_of(np.eye(8) / np.sqrt(2), "euclidean", size), rules())
        assert found.choice.cost == pytest.approx(1 - size / 8, abs=1e-7)
        assert found.stopped == "optimal"


def test_on_a_line_the_cost_is_the_distance_of_distributions():
    places = pool(1, n=31, width=1)
    found = searched(task_of(places, "euclidean", 4), rules(), Limits(None, 4, 0.0))
    line = places[:, 0].astype(float)
    assert found.choice.cost == pytest.approx(wasserstein_distance(line, line[found.choice.rows]), abs=1e-7)


def test_moved_and_scaled_pools_have_the_same_optimum():
    points = pool(3)
    order = np.random.default_rng(0).permutation(12)
    first = searched(task_of(points, "euclidean", 3), rules())
    moved = searched(task_of(points[order], "euclidean", 3), rules())
    scaled = searched(task_of(points * 1024, "euclidean", 3), rules())
    assert sorted(order[moved.choice.rows]) == sorted(first.choice.rows) == sorted(scaled.choice.rows)
    assert moved.choice.cost == pytest.approx(first.choice.cost)
    assert scaled.choice.cost == pytest.approx(1024 * first.choice.cost)


def test_it_costs_more_than_with_free_weights_and_less_than_a_product():
    points = pool(4, n=40, width=3)
    matrix = distances(points, "euclidean")
    found = searched(task_of(points, "euclidean", 5), rules(), Limits(None, 3, 0.0))
    columns = matrix[:, found.choice.rows]
    assert columns.min(axis=1).mean() <= found.choice.cost <= columns.mean()


def test_a_search_that_iterations_end_repeats_exactly():
    task = task_of(pool(5, n=80, width=4), "cosine", 7, (3, 70))
    first, second = (searched(task, rules(), Limits(None, 4, 0.0)) for _ in range(2))
    assert first.stopped == second.stopped == "iterations"
    assert first.choice.rows.tolist() == second.choice.rows.tolist()
    assert first.choice.rows[:2].tolist() == [3, 70]
    for one, other in zip(first.records, second.records, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert {record["phase"] for record in first.records} >= {"start", "refine"}


def test_a_bound_is_never_below_zero_nor_above_a_known_cost(caplog):
    task = task_of(pool(6, n=30), "euclidean", 3)
    run = Search(task, rules(), Limits(None, None, 0.0), np.random.default_rng(0), lambda record: None)
    cost = run.offer(choice(task, np.arange(3))) and run.best.cost
    told = []
    for bound in (-5.0, cost / 2, cost / 3, cost * 1.1):
        run.raise_bound(bound)
        told.append(run.bound)
    assert told == [0, cost / 2, cost / 2, cost / 2]
    assert "was refused" in caplog.text


def test_it_ends_at_the_gap_asked_for():
    task = task_of(pool(6, n=60, width=3), "euclidean", 4)
    found = searched(task, rules(), Limits(None, None, 0.2))
    assert found.stopped == "gap"
    assert found.gap is not None
    assert 0 < found.gap <= 0.2
    assert all(record["gap"] is None or record["gap"] > 0.2 for record in found.records[:-1])


def test_a_time_limit_shorter_than_an_iteration_leaves_the_start():
    task = task_of(pool(7, n=40), "euclidean", 3)
    found = searched(task, rules(), Limits(1e-9, None, 0.0))
    assert (found.stopped, len(found.records), found.bound) == ("seconds", 1, None)
    assert found.records[0]["status"] == "k_centers"


@pytest.mark.parametrize(("owner", "name"), [(Refinement, "_descend"), (Program, "_solve")])
def test_ctrl_c_ends_a_search_with_the_best_so_far(owner, name, monkeypatch, caplog):
    original, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    by = rules() if owner is Refinement else VARIANTS["(B)+(6*)"]
    with caplog.at_level(logging.WARNING):
        found = searched(task_of(pool(0, n=40), "euclidean", 4), by)
    assert found.stopped == "interrupt"
    assert found.choice.cost == min(record["objective"] for record in found.records)
    assert found.records[-1]["bound"] == found.bound
    assert "best selection so far" in caplog.text


def test_ctrl_c_before_there_is_a_selection_ends_the_program(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "k_center", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(task_of(pool(0), "euclidean", 3), rules())


def test_records_are_handed_on_as_they_come():
    told = []
    points = pool(1, n=30)
    found = Search(
        task_of(points, "euclidean", 3), rules(), Limits(None, 4, 0.0), np.random.default_rng(0), told.append
    ).run()
    assert told == found.records
    assert [record["iteration"] for record in told] == list(range(len(told)))
    keys = ["iteration", "seconds", "phase", "value", "objective", "bound", "gap", "cuts", "status"]
    assert list(told[0]) == keys
    assert (np.diff([record["seconds"] for record in told]) >= 0).all()


def test_pruning_leaves_no_bound_and_restricted_candidates_none_of_the_master():
    points = pool(3, n=40)
    limits = Limits(None, 6, 0.0)
    task = task_of(points, "euclidean", 4)
    pruned = searched(task, VARIANTS["(B)+(6')+(7)+P"], limits)
    assert pruned.bound is None
    assert pruned.gap is None
    few = searched(task, rules(root=False, swaps=False, columns=10), TO_THE_END)
    assert (few.bound, few.stopped) == (None, "exhausted")
    ours = searched(task, rules(columns=10), limits)
    assert ours.bound is not None  # the Lagrangian one, of all candidates
    assert all(record["bound"] == ours.bound for record in ours.records if record["phase"] == "benders")
