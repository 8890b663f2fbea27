"""The strategy wasserstein: what it buys and notes, its parts, its errors, and a run that is interrupted."""

import csv
import json
import logging

import numpy as np
import pulp
import pytest
from conftest import Situation, strategy
from every_selection import Priced, distances, pool, price

from alrun.rounds import checked
from alrun.strategies import wasserstein
from alrun.wasserstein import program, refinement, search
from alrun.wasserstein.master import Answer
from alrun.wasserstein.search import Search


@pytest.fixture(autouse=True)
def _few_swaps(monkeypatch):
    monkeypatch.setattr(refinement, "TRIES", 10)


@pytest.fixture(params=[search.FEW_ROWS, 0], ids=["enumerated", "by cuts"])
def _both_ways(request, monkeypatch):
    """Small pools are gone through, and searched as large ones are."""
    monkeypatch.setattr(search, "FEW_ROWS", request.param)


def bought(at, size, *words, name="wasserstein", candidates=None):
    who = strategy(name, *words)
    current = at.round(who, size, cold=not len(at.pool.labeled))
    if candidates is not None:
        current = current.narrow(candidates)
    return checked(who.select(current, size), current, size, name), current


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("labeled", [{}, {3: 0, 7: 1, 8: 2, 9: 0}])  # more labels than classes
def test_with_the_labeled_rows_it_buys_what_costs_least(metric, labeled):
    points = pool(6, n=14)
    words = (f"metric={metric}", "gap=0.0", "iterations=null", "seconds=null")
    batch, _ = bought(Situation(points, labeled, fixed=True), 2, *words)
    priced = Priced.of(distances(points, metric), 2 + len(labeled), tuple(labeled))
    rows = [*labeled, *batch.rows.tolist()]
    assert priced.cost(rows) == pytest.approx(priced.least, abs=1e-7)
    assert batch.notes["objective"] == pytest.approx(priced.least, abs=1e-7)
    assert batch.notes["bound"] == pytest.approx(priced.least, abs=1e-7)
    flags = {name: batch.notes[name] for name in ("bounded", "proven", "searched", "gap")}
    assert flags == {"bounded": 1.0, "proven": 1.0, "searched": 1.0, "gap": pytest.approx(0, abs=1e-6)}


@pytest.mark.parametrize("name", ["wasserstein_vanilla", "wasserstein_eoc_p"])
def test_the_papers_variants_prove_the_optimum_of_a_small_pool_too(name):
    batch, current = bought(Situation(pool(6, n=14), {3: 0}, fixed=True), 4, "seconds=1e-6", name=name)
    flags = {key: batch.notes[key] for key in ("bounded", "proven", "searched", "gap", "iterations")}
    assert flags == {"bounded": 1.0, "proven": 1.0, "searched": 1.0, "gap": 0.0, "iterations": 1.0}
    assert batch.notes["bound"] == batch.notes["objective"]
    assert [line["phase"] for line in current.work.tables["wasserstein"]] == ["start", "enumerate"]


def test_scores_are_the_mean_distances_of_what_the_rows_receive():
    points = pool(1, n=40)
    batch, _ = bought(Situation(points, {}, fixed=True), 5, "iterations=1")
    assert batch.scores.tolist() == sorted(batch.scores.tolist())
    assert batch.scores.mean() == pytest.approx(batch.notes["objective"])
    assert batch.notes["objective"] == pytest.approx(price(distances(points, "euclidean"), batch.rows))


def test_every_iteration_is_written_with_its_columns_and_drawn():
    batch, current = bought(Situation(pool(1, n=40), {}, fixed=True), 3, "iterations=3", "gap=0.0")
    lines = current.work.tables["wasserstein"]
    columns = "round part iteration seconds phase value objective bound gap cuts status"
    assert all(list(line) == columns.split() for line in lines)
    assert [line["iteration"] for line in lines] == list(range(int(batch.notes["iterations"]) + 1))
    assert lines[-1]["objective"] == batch.notes["objective"]
    assert lines[-1]["bound"] == batch.notes["bound"]
    assert list(current.work.figures) == ["wasserstein-round001"]


def test_parts_split_pool_labels_and_batch_and_are_searched_alone():
    points = pool(2, n=61)
    labeled: dict[int, int] = dict.fromkeys((0, 5, 10, 50, 60), 1)
    batch, current = bought(Situation(points, labeled, fixed=True), 7, "parts=2", "iterations=1")
    lines = current.work.tables["wasserstein"]
    assert {line["part"] for line in lines} == {0, 1}
    assert sorted(current.work.figures) == ["wasserstein-part0-round001", "wasserstein-part1-round001"]
    assert batch.notes["bounded"] == 0
    assert "bound" not in batch.notes
    ends = [[line["objective"] for line in lines if line["part"] == part][-1] for part in (0, 1)]
    assert batch.notes["objective"] == pytest.approx(np.mean(ends))
    few, current = bought(Situation(points, labeled, fixed=True), 1, "parts=3", "iterations=1")
    assert len(few.rows) == 1
    assert {line["part"] for line in current.work.tables["wasserstein"]} == {0}


def test_a_pool_too_large_for_the_memory_is_searched_in_as_many_parts_as_it_takes(monkeypatch, caplog):
    monkeypatch.setattr(wasserstein, "MOST_DISTANCES", 61 * 12 // 4)
    at = Situation(pool(2, n=61), dict.fromkeys((0, 5, 10, 50, 60), 1), fixed=True)
    with caplog.at_level(logging.WARNING):
        batch, current = bought(at, 7, "iterations=1")
    assert batch.notes["parts"] == 2
    assert {line["part"] for line in current.work.tables["wasserstein"]} == {0, 1}
    assert "12 columns of 61 rows are searched for in 2 parts" in caplog.text
    with pytest.raises(ValueError, match=r"strategy\.parts must be at least 2 for 61 rows, 12 labels"):
        bought(at, 7, "parts=1")
    assert bought(at, 1, "iterations=1", "parts=3")[0].notes["parts"] == 3


def test_a_master_out_of_time_in_a_search_that_iterations_end_is_said(monkeypatch, caplog):
    draws = np.random.default_rng(0)

    def late(*_, **__):
        return Answer(draws.choice(30, 3, replace=False), 0.0, "limit", False)

    monkeypatch.setattr(program, "solve", late)
    at = Situation(pool(4, n=30), {}, fixed=True)
    with caplog.at_level(logging.WARNING):
        bought(at, 3, "iterations=3", "root=false", "swaps=false", "gap=0.0")
    assert "out of strategy.master_seconds=180.0" in caplog.text


@pytest.mark.usefixtures("_both_ways")
def test_narrowed_candidates_still_stand_for_the_whole_pool():
    points = pool(3, n=13)
    some = np.array([2, 3, 5, 7, 11])
    batch, _ = bought(Situation(points, {4: 0}, fixed=True), 2, candidates=some)
    priced = Priced.of(distances(points, "euclidean"), 3, (4,))
    least = min(
        cost for rows, cost in zip(priced.sets, priced.costs, strict=True) if set(rows) <= {4, *some.tolist()}
    )
    assert batch.notes["objective"] == pytest.approx(least, abs=1e-7)


@pytest.mark.parametrize("words", [("pruning=true", "root=false"), ("columns=9", "root=false")])
def test_where_something_is_left_out_there_is_no_bound_and_the_notes_say_so(words):
    batch, current = bought(Situation(pool(4, n=30), {}, fixed=True), 3, "iterations=6", *words)
    assert batch.notes["bounded"] == 0
    assert batch.notes["proven"] == 0
    assert not {"bound", "gap"} & set(batch.notes)
    assert all(line["bound"] is None and line["gap"] is None for line in current.work.tables["wasserstein"])


def test_a_time_limit_shorter_than_an_iteration_buys_the_start_and_says_so(caplog):
    at = Situation(pool(5, n=40), {0: 0}, fixed=True)
    with caplog.at_level(logging.WARNING):
        batch, _ = bought(at, 4, "seconds=1e-6")
    assert batch.notes["searched"] == 0
    assert "strategy.seconds=1e-06 was up before the search began" in caplog.text
    centers, _ = bought(at, 4, name="coreset")
    assert sorted(batch.rows) == sorted(centers.rows)


def test_an_interrupted_search_buys_the_best_so_far(monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "reached", interrupted)
    batch, _ = bought(Situation(pool(5, n=40), {}, fixed=True), 4)
    assert (batch.notes["iterations"], batch.notes["proven"]) == (0, 0)


def test_a_row_of_zeros_has_no_cosine():
    points = pool(0, n=30)
    points[17] = 0
    at = Situation(points, {}, fixed=True)
    with pytest.raises(ValueError, match=r"row 17 is; use strategy\.metric=euclidean"):
        bought(at, 3, "metric=cosine")
    assert len(bought(at, 3, "iterations=1")[0].rows) == 3


def test_settings_that_do_not_fit_together_are_refused_before_the_run(monkeypatch):
    with pytest.raises(Exception, match=r"dual: holds for metrics only, .* use strategy\.metric=euclid"):
        strategy("wasserstein", "dual=true", "metric=cosine")
    monkeypatch.setattr(pulp.HiGHS, "available", lambda self: False)
    with pytest.raises(Exception, match="PuLP finds no highs on this machine"):
        strategy("wasserstein")


INTERRUPTED = """
import os, signal
from alrun.wasserstein import refinement
signal.signal(signal.SIGINT, signal.default_int_handler)
refinement.TRIES, calls, climb = 20, [], refinement.Refinement._climb
def interrupted(self):
    calls.append(climb(self))
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGINT)
refinement.Refinement._climb = interrupted
"""


def test_a_run_interrupted_in_its_search_goes_on_to_its_end_with_the_gap_recorded(nursery, tmp_path):
    words = ["tracker=none", "budget.rounds=1", "trainer.epochs=1", "strategy=wasserstein"]
    done = nursery.run(tmp_path, *words, code=INTERRUPTED)
    assert done.returncode == 0, done.stderr
    assert "interrupted: the best selection so far is used" in done.output
    (file,) = tmp_path.glob("outputs/*/*/*/wasserstein.csv")
    with file.open() as lines:
        records = list(csv.DictReader(lines))
    assert [record["phase"] for record in records] == ["start", "refine", "end"]
    assert records[-1]["status"] == "interrupt"
    assert 0 < float(records[-1]["gap"]) < 1
    (figure,) = (file.parent / "figures").glob("wasserstein-round001*")
    assert figure.stat().st_size > 1000
    with (file.parent / "rounds.csv").open() as lines:
        rounds = list(csv.DictReader(lines))
    notes = json.loads(rounds[-1]["notes"]) if "notes" in rounds[-1] else rounds[-1]
    assert float(next(value for name, value in notes.items() if name.endswith("gap"))) < 1
