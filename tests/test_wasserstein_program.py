"""Masters that bring nothing new: what the search does next, and why it ends."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from every_selection import TO_THE_END, VARIANTS, Priced, distances, pool, rules, searched, task_of

from alrun.wasserstein import program
from alrun.wasserstein.descent import choice
from alrun.wasserstein.master import Answer
from alrun.wasserstein.program import RETRIES, Program
from alrun.wasserstein.search import Limits, Search

POINTS = pool(3, n=21)  # one more than are gone through one by one
CUT_SHORT = Answer(None, None, "limit", False)


def started(by, polish=lambda found: None) -> Any:
    """A search among 21 points that has a selection, and its program."""
    search = Search(task_of(POINTS, "euclidean", 3), by, TO_THE_END, np.random.default_rng(0), print)
    search.offer(choice(search.task, np.array([0, 1, 2])))
    return search, Program(search.task, by, search, None, lambda found: polish(search))


def answers(monkeypatch, *first, then=program.solve):
    """The master gives these answers first; the seeds and gaps that it was asked for with."""
    asked, queue = [], list(first)

    def told(*arguments, **options):
        asked.append((options.get("seed"), options["gap"]))
        return queue.pop(0) if queue else then(*arguments, **options)

    monkeypatch.setattr(program, "solve", told)
    return asked


def test_a_solver_that_is_always_out_of_its_own_time_is_asked_so_often_only(monkeypatch):
    visited = Answer(np.array([0, 1, 2]), 0.0, "limit", False)
    asked = answers(monkeypatch, then=lambda *_, **__: visited)
    by = replace(VARIANTS["(B+)"], solver="cbc")
    search, tried = started(by)
    over = [tried.iterate()[2] for _ in range(RETRIES + 1)]
    assert over == [None] * RETRIES + ["exhausted"]
    assert len({seed for seed, _ in asked}) == len(asked) == RETRIES + 1
    assert len(tried.cuts) == 1  # of one selection, learned from once
    assert search.bound == 0.0


def test_masters_cut_short_by_their_own_time_are_followed_by_others(monkeypatch):
    asked = answers(monkeypatch, *[CUT_SHORT] * RETRIES)
    found = searched(task_of(POINTS, "euclidean", 2), VARIANTS["(B+)"])
    assert len(asked) > RETRIES + 1
    assert found.stopped == "optimal"
    assert found.choice.cost == pytest.approx(Priced.of(distances(POINTS, "euclidean"), 2).least)


@pytest.mark.parametrize("rows", [None, np.array([0, 1, 2])])
def test_a_master_cut_short_by_the_clock_ends_the_search_by_its_seconds(rows, monkeypatch):
    def late(*_, seconds, **__):
        time.sleep(seconds())
        return Answer(rows, None, "limit", False)

    monkeypatch.setattr(program, "solve", late)
    by = replace(VARIANTS["(B)"], start="k_medoids", master_gap=0.0)
    found = searched(task_of(POINTS, "euclidean", 3), by, Limits(0.3, None, 0.0))
    assert found.stopped == "seconds"


def test_a_failing_solver_is_named_even_when_no_time_is_left(monkeypatch):
    answers(monkeypatch, Answer(None, None, "failed: it died", False))
    assert started(VARIANTS["(B+)"])[1].iterate()[1:] == ("failed: it died", "solver")


def test_a_best_selection_without_a_cut_is_learned_from_after_a_master_cut_short(monkeypatch):
    answers(monkeypatch, CUT_SHORT)
    search, tried = started(rules(root=False), polish=lambda s: s.offer(choice(s.task, np.array([3, 8, 20]))))
    assert search.best.rows.tolist() == [0, 1, 2]
    assert tried.iterate()[1:] == ("limit", None)
    assert tried.hat is search.best
    assert search.best.rows.tolist() == [3, 8, 20]


def test_each_iteration_begins_with_the_masters_own_gap(monkeypatch):
    said = [Answer(np.array(rows), None, "optimal", False) for rows in ([0, 1, 2], [3, 4, 5], [6, 7, 8])]
    asked = answers(monkeypatch, *said)
    _, tried = started(replace(VARIANTS["(B+)"], solver="cbc", master_gap=0.1))
    assert tried.iterate()[2] is tried.iterate()[2] is None
    assert [gap for _, gap in asked] == pytest.approx([0.1, 0.01, 0.1])


@pytest.mark.parametrize("swaps", [True, False])
def test_near_follows_what_swaps_find_and_without_them_the_masters_selections(swaps):
    better = np.array([3, 8, 20])
    by = rules(root=False, swaps=swaps, pruning=True, near=1)
    search, tried = started(by, polish=lambda s: s.offer(choice(s.task, better)))
    search.offer(choice(search.task, better))
    tried._learn()
    assert np.isin(better, tried.near.rows).all() if swaps else tried.near is None
    tried.near = None  # nothing is left there
    tried.hat = choice(search.task, np.array([0, 1, 5]))
    tried._learn()
    assert tried.near is None
