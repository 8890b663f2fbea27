"""Many runs side by side: reading and aggregates."""

import csv
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from alrun.report.aggregating import panels
from alrun.report.reading import UnreadableError, read, read_run
from alrun.report.tables import by_labels, by_method

SEEDS = {"_target_": "alrun.pool.Seeds", "split": None, "weights": None, "artifacts": 0}


def run_settings(name="margin", data="digits", *, seed=0, rounds=2, **groups):
    """What a run leaves in settings.yaml, as far as a report reads it."""
    budget = {
        "_target_": "alrun.budget.Budget",
        "initial": 10,
        "per_round": 10,
        "rounds": rounds,
        "sizes": None,
    }
    known = {
        "dataset": {"_target_": f"data.{data}"},
        "strategy": {"_target_": f"strategies.{name}"},
        "featurizer": None,
        "trainer": {"_target_": "training.Supervised", "epochs": 3},
        "budget": budget,
    }
    choices = {"dataset": data, "strategy": name, "featurizer": "none", **groups.pop("choices", {})}
    return {
        **known,
        "seed": seed,
        "seeds": SEEDS,
        "device": "cpu",
        "choices": choices,
        "contents": {},
    } | groups


def made(folder: Path, accuracies, query=0.5, settings=None, candidates=None, **columns) -> Path:
    """A run folder with a round an accuracy; from round 1 on `query` seconds each, half of them predict."""
    rounds = len(accuracies)
    asked = np.r_[0.0, np.broadcast_to(query, rounds - 1)]
    table = {
        "round": range(rounds),
        "labeled": range(10, 10 * rounds + 1, 10),
        "accuracy": accuracies,
        "query_seconds": asked,
        "predict_seconds": asked / 2,
        "features_seconds": np.zeros(rounds),
        "graph_seconds": np.zeros(rounds),
        "select_seconds": asked / 2,
        "train_seconds": np.full(rounds, 2.0),
        "candidates": [0, *([candidates or 90] * (rounds - 1))],
        **columns,
    }
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(settings or run_settings(rounds=rounds - 1)), folder / "settings.yaml")
    with (folder / "rounds.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return folder


def panel_of(folder: Path):
    (panel,) = panels(read([folder]).runs)
    return panel


def three_runs(folder: Path) -> Path:
    """Margin with two seeds, random with one, on one data set."""
    made(folder / "a", [0.1, 0.4, 0.6], 2.0, run_settings("margin", seed=0))
    made(folder / "b", [0.3, 0.4, 0.8], 4.0, run_settings("margin", seed=1))
    made(folder / "c", [0.2, 0.5, 0.3], 0.25, run_settings("random", seed=0))
    return folder


@pytest.fixture
def two_methods(tmp_path) -> Path:
    return three_runs(tmp_path)


def test_runs_are_found_at_any_depth_and_only_once(two_methods):
    made(two_methods / "deep" / "er" / "d", [0.1, 0.2, 0.3], settings=run_settings("coreset"))
    found = read([two_methods, two_methods / "a", two_methods / "deep"])
    assert [(run.strategy, run.seed) for run in found.runs] == [
        ("coreset", 0),
        ("margin", 0),
        ("margin", 1),
        ("random", 0),
    ]
    assert found.problems == ()


def test_of_copies_of_a_run_the_longer_one_counts(tmp_path):
    short = made(tmp_path / "a", [0.1, 0.2], settings=run_settings(rounds=2))
    made(tmp_path / "b", [0.1, 0.2, 0.3], settings=run_settings(rounds=2))
    found = read([tmp_path])
    assert [run.done for run in found.runs] == [2]
    assert "the same run as" in found.problems[0]
    assert found.problems[0].startswith(str(short))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("rounds.csv", lambda text: text.splitlines()[0] + "\n", "no round is whole yet"),
        ("rounds.csv", lambda text: text[: text.rindex(",")], "line 4 has 9 fields of 10"),
        ("rounds.csv", lambda text: text.replace("accuracy", "score"), "accuracy missing"),
        ("rounds.csv", lambda text: text.replace("0.4", "many"), "accuracy must hold numbers"),
        ("rounds.csv", lambda text: text.replace("0.4", "nan"), "accuracy must be a number"),
        ("rounds.csv", lambda text: text.replace("0.4", "40.0"), "accuracy must be at most 1"),
        ("rounds.csv", lambda text: text.replace("0.4,2.0", "0.4,-2.0"), "query_seconds must be"),
        ("rounds.csv", lambda text: text.replace("\n2,30", "\n1,30"), "round must grow"),
        ("settings.yaml", lambda text: "just words", "not the settings of a run"),
        ("settings.yaml", lambda text: "a: [", "cannot be read"),
        ("settings.yaml", lambda text: text.replace("choices:", "other:"), "not the settings of a run"),
        ("settings.yaml", lambda text: text.replace("budget:", "budgets:"), "not the settings of a run"),
    ],
)
def test_damaged_and_foreign_folders_are_said_and_the_others_counted(file, change, message, two_methods):
    damaged = two_methods / "a" / file
    text = damaged.read_text()
    damaged.write_text(change(text))
    assert damaged.read_text() != text
    found = read([two_methods])
    assert [run.folder.name for run in found.runs] == ["b", "c"]
    (problem,) = found.problems
    assert message in problem
    assert str(two_methods / "a") in problem


def test_records_without_settings_are_no_run_and_settings_without_records_have_no_round(two_methods):
    (two_methods / "a" / "settings.yaml").unlink()
    (two_methods / "b" / "rounds.csv").unlink()
    found = read([two_methods])
    assert [run.folder.name for run in found.runs] == ["c"]
    assert found.problems == (f"{two_methods / 'b'}: no round is whole yet",)
    with pytest.raises(UnreadableError, match="no settings.yaml"):
        read_run(two_methods / "a")
    with pytest.raises(UnreadableError, match="no such folder"):
        read([two_methods / "z"])


def test_the_plan_follows_the_budget(tmp_path):
    base = run_settings()
    for name, change, planned in (
        ("sizes", {"sizes": [5, 5, 5]}, 3),
        ("all", {"initial": "all"}, 0),
        ("rounds", {"rounds": 7}, 7),
    ):
        folder = made(tmp_path / name, [0.1], settings=base | {"budget": base["budget"] | change})
        assert read_run(folder).planned == planned
        assert read_run(folder).whole == (planned == 0)


def test_mean_and_deviation_are_those_computed_by_hand(two_methods):
    lines = {(line["method"], line["labels"]): line for line in by_labels(panel_of(two_methods))}
    at = lines["margin", 30]
    assert at["seeds"] == 2
    assert at["accuracy_mean"] == pytest.approx(0.7)
    assert at["accuracy_std"] == pytest.approx(np.sqrt(0.02))  # of 0.6 and 0.8, over n - 1
    assert at["total_query_seconds_mean"] == pytest.approx((4 + 8) / 2)
    assert at["total_query_seconds_std"] == pytest.approx(np.sqrt(8))
    assert at["candidates_mean"] == 90
    assert np.isnan(lines["margin", 10]["candidates_mean"])  # the first set is not queried for
    assert np.isnan(lines["random", 30]["accuracy_std"])  # one seed has no deviation


def test_averages_leave_the_first_set_out_and_parts_add_up(two_methods):
    margin, random = by_method(panel_of(two_methods))
    assert margin["average_query_seconds_mean"] == pytest.approx(3.0)
    assert margin["average_predict_seconds"] + margin["average_select_seconds"] == pytest.approx(3.0)
    assert margin["average_train_seconds"] == 2.0
    assert random["total_query_seconds_mean"] == pytest.approx(0.5)
    assert random["once_seconds_mean"] == 0


def test_what_is_made_once_is_the_largest_entry_and_compiling_is_no_part_of_it(tmp_path):
    made(
        tmp_path / "a",
        [0.1, 0.2, 0.3],
        once_features_seconds=[7.0, 7.0, 7.5],
        once_graph_seconds=["", 2.0, 2.0],
        once_index_seconds=["", "", 0.5],
        once_compile_seconds=[9.0, 9.0, 9.0],
    )
    (line,) = by_method(panel_of(tmp_path))
    assert line["once_seconds_mean"] == 10.0
    assert [line[f"once_{part}_seconds"] for part in ("features", "graph", "other")] == [7.5, 2.0, 0.5]


def test_whole_runs_count_and_broken_ones_are_listed(two_methods):
    made(two_methods / "d", [0.9, 0.9], settings=run_settings("margin", seed=2))
    panel = panel_of(two_methods)
    margin, random = panel.methods
    assert [run.seed for run in margin.runs] == [0, 1]
    assert margin.labels.tolist() == [10, 20, 30]
    assert list(panel.missing) == [
        "margin on digits, seed 2: 1 of 2 rounds, not counted",
        "random on digits: no run of seed 1, 2",
    ]
    assert random.left == ()


def test_without_a_whole_run_all_count_as_far_as_all_are(tmp_path):
    made(tmp_path / "a", [0.1, 0.2, 0.3], settings=run_settings(seed=0, rounds=9))
    made(tmp_path / "b", [0.3, 0.4], settings=run_settings(seed=1, rounds=9))
    panel = panel_of(tmp_path)
    (method,) = panel.methods
    assert method.labels.tolist() == [10, 20]
    assert method.values("accuracy").tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert len(list(panel.missing)) == 2


def test_a_cold_start_counts_the_query_of_its_first_record(tmp_path):
    made(tmp_path / "a", [0.1, 0.2], round=[1, 2], query_seconds=[3.0, 4.0])
    (method,) = panel_of(tmp_path).methods
    assert method.total_query.tolist() == [[3.0, 7.0]]
    assert method.average_query.tolist() == [3.5]
