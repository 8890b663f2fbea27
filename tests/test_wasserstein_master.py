"""The master program by both solvers, and searches whose solver is missing, dies or is cut short."""

import itertools
import logging
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pulp
import pytest
from every_selection import TO_THE_END, VARIANTS, Priced, distances, pool, rules, searched, task_of

from alrun.wasserstein import master, program
from alrun.wasserstein.cuts import Cut
from alrun.wasserstein.descent import choice
from alrun.wasserstein.master import Ball, check_solver, solve
from alrun.wasserstein.program import Program
from alrun.wasserstein.search import Limits, Search

SOLVERS = pytest.mark.parametrize("solver", ["highs", "cbc"])
NONE = np.empty(0, np.int64)


def random_cuts(n, count, seed=0):
    rng = np.random.default_rng(seed)
    return [Cut("random", 9 + rng.normal(), rng.normal(size=n)) for _ in range(count)]


def answer(task, cuts, balls=(), *, open_rows=None, sure=NONE, seconds=None, **options) -> Any:
    rows = task.candidates if open_rows is None else np.array(open_rows)
    options = {"scale": 1.0, "solver": "highs", "gap": 0.0, **options}
    return solve(task, cuts, balls, rows, sure, seconds=lambda: seconds, **options)


def brute(task, cuts, allowed=lambda rows: True):
    """The least of the largest cuts over all selections, none below zero, and where it is."""
    sets = [
        np.concatenate([task.fixed, np.array(rows)])
        for rows in itertools.combinations(task.candidates, task.free)
    ]
    values = {
        tuple(sorted(rows)): max(0.0, *(cut.at(rows) for cut in cuts)) for rows in sets if allowed(rows)
    }
    best = min(values, key=lambda rows: values[rows])
    return values[best], best


@SOLVERS
@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("large", [master.LARGE, 0])
def test_the_answer_is_the_selection_that_all_cuts_call_cheapest(solver, scale, large, monkeypatch):
    monkeypatch.setattr(master, "LARGE", large)
    task, cuts = task_of(pool(0), "euclidean", 4, (5,)), random_cuts(12, 6)
    least, rows = brute(task, cuts)
    found = answer(task, cuts, solver=solver, scale=scale)
    assert (found.status, found.exact) == ("optimal", True)
    assert tuple(sorted(found.rows)) == rows
    assert found.rows[0] == 5
    assert found.bound == pytest.approx(least, abs=1e-6)
    assert found.bound <= least


@SOLVERS
def test_balls_keep_the_answer_near_and_far(solver):
    task, cuts = task_of(pool(0), "euclidean", 4), random_cuts(12, 3)
    first = np.array(brute(task, cuts)[1])
    other = np.setdiff1d(np.arange(12), first)[:4]
    balls = [Ball(first, 0, 3), Ball(other, 2, 4)]

    def allowed(rows):
        return np.isin(rows, first).sum() <= 3 and np.isin(rows, other).sum() >= 2

    least, rows = brute(task, cuts, allowed)
    found = answer(task, cuts, balls, solver=solver)
    assert tuple(sorted(found.rows)) == rows
    assert found.bound == pytest.approx(least, abs=1e-6)
    impossible = answer(task, cuts, [Ball(first, 4, 4), Ball(first, 0, 3)], solver=solver)
    assert (impossible.rows, impossible.bound, impossible.status) == (None, None, "infeasible")


def test_sure_rows_and_closed_ones_are_kept_to():
    task, cuts = task_of(pool(0), "euclidean", 4, (5,)), random_cuts(12, 4)
    found = answer(task, cuts, open_rows=[1, 3, 7, 9], sure=np.array([2]))
    least, rows = brute(task, cuts, lambda rows: 2 in rows and set(rows) <= {1, 2, 3, 5, 7, 9})
    assert tuple(sorted(found.rows)) == rows
    assert found.bound == pytest.approx(least, abs=1e-6)


def test_a_gap_allowed_to_the_solver_leaves_a_bound_below_the_optimum():
    task = task_of(pool(1, n=30), "euclidean", 6)
    cuts = [Cut("random", 1.0, np.random.default_rng(s).random(30)) for s in range(12)]
    exact, rough = answer(task, cuts), answer(task, cuts, gap=0.2)
    value = max(cut.at(rough.rows) for cut in cuts)
    assert rough.bound <= exact.bound + 1e-9 <= value + 2e-9
    assert value <= rough.bound / (1 - 0.2) + 1e-6
    assert not rough.exact


def test_cbc_tells_a_bound_only_when_it_solved_to_the_end():
    task, cuts = task_of(pool(0), "euclidean", 4), random_cuts(12, 4)
    assert answer(task, cuts, solver="cbc", gap=0.1).bound is None
    assert answer(task, cuts, solver="cbc").bound is not None
    found = searched(task_of(pool(0, n=30), "euclidean", 3), rules(root=False, swaps=False, solver="cbc"))
    assert found.stopped == "optimal"
    assert found.records[1]["bound"] is None
    assert found.bound == found.choice.cost


def test_a_solver_out_of_time_says_so_and_tells_no_more_than_it_proved():
    task = task_of(pool(1, n=200), "euclidean", 20)
    cuts = [Cut("random", 0.0, np.random.default_rng(s).normal(size=200)) for s in range(60)]
    begun = time.perf_counter()
    found = answer(task, cuts, seconds=0.3)
    assert time.perf_counter() - begun < 20
    assert found.status == "limit"
    assert not found.exact
    if found.rows is not None and found.bound is not None:
        assert found.bound <= max(cut.at(found.rows) for cut in cuts) + 1e-9


def test_a_large_program_keeps_to_its_time():
    n, size = 20_000, 50  # where HiGHS by itself takes twenty seconds and more
    task = task_of(pool(1, n=n), "euclidean", size)
    begun = time.process_time()  # on a busy machine less than HiGHS's own seconds
    found = answer(task, random_cuts(n, 12), seconds=1.0)
    assert time.process_time() - begun < 12
    assert (found.status, found.exact) == ("limit", False)


@SOLVERS
def test_the_time_left_is_asked_for_once_the_program_is_built(solver, monkeypatch):
    steps = []
    for owner, name in ((master, "_program"), (master._Highs, "buildSolverModel")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *those, o=original, n=name: (o(*those), steps.append(n))[0])
    task = task_of(pool(0), "euclidean", 4)
    options: Any = {"scale": 1.0, "solver": solver, "gap": 0.0, "seconds": lambda: steps.append("asked")}
    solve(task, random_cuts(12, 3), (), task.candidates, NONE, **options)
    built = ["_program", "buildSolverModel"] if solver == "highs" else ["_program"]
    assert steps == [*built, "asked"]


def test_what_building_takes_is_part_of_a_masters_seconds(monkeypatch):
    by = rules(root=False, swaps=False, master_seconds=5.0)
    search = Search(task_of(pool(0), "euclidean", 3), by, TO_THE_END, np.random.default_rng(0), print)
    search.offer(choice(search.task, np.arange(3)))
    left = Program(search.task, by, search, None, lambda found: None)._seconds()
    begun = time.perf_counter()
    for later, seconds in ((2.0, 3.0), (9.0, 0.0)):
        monkeypatch.setattr(time, "perf_counter", lambda at=begun + later: at)
        assert left() == pytest.approx(seconds, abs=0.5)


@SOLVERS
def test_a_missing_solver_is_named_with_a_remedy(solver: Any, monkeypatch):
    check_solver(solver)
    for each in (pulp.HiGHS, pulp.PULP_CBC_CMD):
        monkeypatch.setattr(each, "available", lambda self: False)
    with pytest.raises(ValueError, match=f"solver: PuLP finds no {solver}.*; "):
        check_solver(solver)


@SOLVERS
def test_a_solver_that_dies_ends_the_search_with_the_best_so_far(solver, monkeypatch, caplog):
    if solver == "highs":

        def dies(self, lp):
            raise pulp.PulpSolverError("out of memory")

        monkeypatch.setattr(pulp.HiGHS, "actualSolve", dies)
    else:
        monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", "/bin/false")
        monkeypatch.setattr(pulp.PULP_CBC_CMD, "available", lambda self: True)
    task = task_of(pool(3, n=30), "euclidean", 4)
    by = rules(swaps=False, solver=solver)
    with caplog.at_level(logging.WARNING):
        found = searched(task, by, Limits(None, None, 0.0))
    assert found.stopped == "solver"
    assert found.records[-1]["status"].startswith("failed: ")
    assert found.choice.cost == min(record["objective"] for record in found.records)
    assert found.bound is not None  # the Lagrangian one
    assert found.bound < found.choice.cost
    assert f"the solver {solver} failed" in caplog.text


def test_an_answer_that_breaks_the_program_tells_no_bound_either(monkeypatch):
    monkeypatch.setattr(master, "_keeps", lambda rows, balls: False)
    found = answer(task_of(pool(0), "euclidean", 3), random_cuts(12, 3))
    assert (found.rows, found.bound, found.exact) == (None, None, False)
    assert found.status.startswith("failed: ")


def test_a_program_that_highs_does_not_take_is_a_failure(caplog):
    with caplog.at_level(logging.WARNING):
        found = answer(task_of(pool(0), "euclidean", 3), [Cut("huge", 0.0, np.full(12, 1e30))])
    assert (found.rows, found.bound, found.status) == (None, None, "failed: HiGHS refuses the program")


def test_the_last_master_leaves_time_for_its_selection_to_be_priced():
    task = task_of(pool(0), "euclidean", 3)
    search = Search(task, rules(), Limits(10.0, None, 0.0), np.random.default_rng(0), print)
    search.limits, search.pricing = Limits(10.0, None, 0.0), 4.0
    assert search.seconds_for(None) == pytest.approx(6.0, abs=0.5)
    assert search.seconds_for(1.0) == 1.0
    search.pricing = 20.0
    assert search.seconds_for(None) == 0.0


def test_columns_that_need_no_program_are_not_solved_for(monkeypatch):
    def refused(*_, **__):
        raise AssertionError

    monkeypatch.setattr(program, "solve", refused)
    found = searched(task_of(pool(3, n=25), "euclidean", 25), VARIANTS["(B+)"])
    assert (found.choice.cost, found.stopped) == (0.0, "optimal")


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals here")
def test_ctrl_c_ends_highs_at_once():
    task = task_of(pool(1, n=300), "euclidean", 30)
    cuts = [Cut("random", 0.0, np.random.default_rng(s).normal(size=300)) for s in range(80)]
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    before, begun = signal.signal(signal.SIGINT, signal.default_int_handler), time.perf_counter()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            answer(task, cuts, seconds=60.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - begun < 30


def test_pruning_stays_near_the_best_selection_and_away_from_others(monkeypatch):
    seen = []
    original = master._program

    def program_of(task, cuts, balls, *rest):
        seen.append(list(balls))
        return original(task, cuts, balls, *rest)

    monkeypatch.setattr(master, "_program", program_of)
    points = pool(0, n=30)
    by = VARIANTS["(B)+(6')+(7)+P"]
    found = searched(task_of(points, "euclidean", 4), by, Limits(None, 6, 0.0))
    assert len(found.records) == 7
    assert [ball.least for ball in seen[0]] == [2]  # half of four may differ
    assert all(ball.most == 3 for balls in seen for ball in balls if ball.least == 0)
    assert any(len(balls) > 1 for balls in seen)


def test_pruning_that_leaves_nothing_near_looks_farther(monkeypatch):
    monkeypatch.setattr("alrun.wasserstein.search.FEW_ROWS", 0)  # too few rows for a master otherwise
    points = pool(2)
    priced = Priced.of(distances(points, "euclidean"), 3)
    by = rules(root=False, swaps=False, pruning=True, near=0)
    found = searched(task_of(points, "euclidean", 3), by)
    assert (found.stopped, found.bound) == ("exhausted", None)
    assert found.choice.cost == pytest.approx(priced.least)
