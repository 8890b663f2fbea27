"""Small pools, all of whose selections are gone through: the optimum, whatever the search is told."""

from itertools import combinations, product

import numpy as np
import pytest
from every_selection import HAIR, VARIANTS, Priced, distances, pool, price, rules, searched, task_of

from alrun.wasserstein import search
from alrun.wasserstein.descent import choice
from alrun.wasserstein.enumeration import Enumeration
from alrun.wasserstein.search import Limits

HURRY = Limits(1e-9, 1, 1.0)
CASES = list(product(("euclidean", "cosine"), ((), (3,), (2, 5, 7)), (4, 7)))


@pytest.mark.parametrize(("metric", "fixed", "size"), CASES)
def test_the_optimum_of_all_selections_is_found_and_no_bound_exceeds_a_cost(metric, fixed, size):
    points = pool(size, n=10, width=1 + len(fixed))
    points[9] *= 1e4 if fixed else 1
    priced, task = Priced.of(distances(points, metric), size, fixed), task_of(points, metric, size, fixed)
    every = Enumeration(task, choice(task, task.cheapest(-np.arange(10.0))))
    while (nth := every.next()) is not None:
        assert every.bound <= priced.least + HAIR
        every.price(nth)
    costs = np.array([priced.cost(rows) for rows in every.sets])
    known = np.isfinite(every.costs)
    np.testing.assert_allclose(every.costs[known], costs[known], rtol=HAIR, atol=HAIR)
    assert (every.bounds[~known] <= costs[~known] + HAIR).all()
    assert costs[every.first] == pytest.approx(priced.least, rel=HAIR)
    assert len(costs) == len(priced.costs)


def test_every_variant_ends_at_the_same_optimum_whatever_limits_it():
    points = pool(2, n=12)
    priced = Priced.of(distances(points, "euclidean"), 4)
    best = priced.sets[priced.costs.argmin()].tolist()
    more = (rules(columns=4), rules(root=False, swaps=False, solver="cbc", columns=5, dual=True))
    for by in (*VARIANTS.values(), *more):
        found = searched(task_of(points, "euclidean", 4), by, HURRY)
        assert found.choice.rows.tolist() == best
        assert (found.stopped, found.bound, found.gap) == ("optimal", found.choice.cost, 0.0)
        assert [record["phase"] for record in found.records] == ["start", "enumerate"]
        assert (found.iterations, found.searched) == (1, True)


def test_few_candidates_and_fixed_rows_leave_few_selections():
    points, some = pool(3, n=19), np.array([1, 4, 6, 8, 12, 15, 17])
    matrix = distances(points, "cosine")
    costs = {(2, 9, *rows): price(matrix, (2, 9, *rows)) for rows in combinations(some.tolist(), 3)}
    found = searched(task_of(points, "cosine", 5, (2, 9), some), rules(), HURRY)
    assert tuple(found.choice.rows.tolist()) == min(costs, key=lambda rows: costs[rows])


@pytest.mark.parametrize("start", ["k_centers", "k_medoids"])
def test_of_equal_selections_the_first_is_taken(start):
    every_distance_is_one = task_of(np.eye(15) / np.sqrt(2), "euclidean", 6, (9,))
    found = searched(every_distance_is_one, rules(start=start), HURRY)
    assert found.choice.rows.tolist() == [9, 0, 1, 2, 3, 4]
    twice = task_of(np.repeat(pool(1, n=5), 2, axis=0), "euclidean", 5)
    assert searched(twice, rules(start=start), HURRY).choice.rows.tolist() == [0, 2, 4, 6, 8]


def test_the_largest_of_small_pools_has_few_selections_priced():
    found = searched(task_of(pool(0, n=19, width=5), "cosine", 9), rules(), HURRY)
    assert found.stopped == "optimal"
    assert found.records[-1]["cuts"] < 300  # of 92,378


@pytest.mark.parametrize("calls", [1, 4])
def test_ctrl_c_leaves_the_best_so_far_and_the_least_bound(calls, monkeypatch):
    original, told = Enumeration.price, []

    def interrupted(self, nth):
        told.append(self.bound)
        if len(told) == calls:
            raise KeyboardInterrupt
        return original(self, nth)

    monkeypatch.setattr(Enumeration, "price", interrupted)
    points = pool(3, n=12)
    found = searched(task_of(points, "euclidean", 5), VARIANTS["(B)"])
    least = Priced.of(distances(points, "euclidean"), 5).least
    assert (found.stopped, found.bound) == ("interrupt", told[-1])
    assert 0 < told[-1] < least <= found.choice.cost
    assert found.records[-1]["phase"] == "end"


def test_limits_hold_from_twenty_rows_on_and_none_below():
    for n, stopped in ((19, "optimal"), (20, "seconds")):
        assert searched(task_of(pool(4, n=n), "euclidean", 3), rules(), HURRY).stopped == stopped


def test_a_search_that_may_not_begin_leaves_the_start(monkeypatch):
    found = searched(task_of(pool(4), "euclidean", 3), rules(), Limits(None, 0, 0.0))
    assert (found.stopped, found.bound) == ("iterations", None)
    monkeypatch.setattr(search, "Enumeration", None)  # one selection needs none
    assert searched(task_of(pool(4), "euclidean", 12), rules(), HURRY).stopped == "optimal"
