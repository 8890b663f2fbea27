"""The figures of a report, by what is in them, and the verb that writes them."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_cli import alrun
from test_report import made, panel_of, run_settings, three_runs

from alrun.report.aggregating import panels
from alrun.report.command import report
from alrun.report.figures import figures
from alrun.report.looks import KNOWN, OTHERS, looks, seconds
from alrun.report.reading import read
from alrun.report.tables import by_method


@pytest.fixture
def two_methods(tmp_path) -> Path:
    return three_runs(tmp_path)


def axes_of(figure: Figure):
    return figure.axes[0]


def said(axes, words: str) -> bool:
    return any(words in text.get_text() for text in axes.texts)


def mean_lines(axes) -> dict:
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_accuracy_over_query_time_shows_queried_rounds_and_the_best_and_worst_end(two_methods):
    axes = axes_of(figures([panel_of(two_methods)])["accuracy_by_query_time"])
    lines = mean_lines(axes)
    assert lines["margin"].get_xdata().tolist() == [3.0, 6.0]
    assert lines["margin"].get_ydata() == pytest.approx([40, 70])
    assert lines["random"].get_xdata().tolist() == [0.25, 0.5]
    assert axes.get_xscale() == "log"
    levels = [line.get_ydata()[0] for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
    assert levels == pytest.approx([70, 30])
    assert {text.get_text() for text in axes.texts} >= {"70.0", "30.0"}
    assert said(axes, "margin, alone with 2 seeds: 70.0 ± 14.1 % after 6 s")


def test_a_method_with_fewer_seeds_or_labels_does_not_end_highest(two_methods):
    made(two_methods / "d", [0.1, 0.2, 0.9], settings=run_settings("coreset", seed=1))
    made(two_methods / "e", [0.1, 0.9], settings=run_settings("bald", rounds=1))
    assert said(
        axes_of(figures([panel_of(two_methods)])["accuracy_by_labels"]), "margin, alone with 2 seeds: 70.0"
    )
    for seed in (0, 1):
        made(two_methods / f"k{seed}", [0.1, 0.2, 0.8], settings=run_settings("badge", seed=seed))
    axes = axes_of(figures([panel_of(two_methods)])["accuracy_by_labels"])
    assert said(axes, "badge ends highest of 2 with 2 seeds: 80.0 ± 0.0 % with 30 labels")
    for seed in (0, 1):
        made(two_methods / f"s{seed}", [0.1, 0.9], settings=run_settings("seals", seed=seed, rounds=9))
    axes = axes_of(figures([panel_of(two_methods)])["accuracy_by_labels"])
    assert said(axes, "badge ends highest of 2 with 2 seeds and 30 labels: 80.0")


def test_the_best_of_methods_with_the_same_seeds_ends_highest(two_methods):
    made(two_methods / "d", [0.2, 0.5, 0.3], settings=run_settings("random", seed=1))
    axes = axes_of(figures([panel_of(two_methods)])["accuracy_by_labels"])
    assert said(axes, "margin ends highest: 70.0 ± 14.1 % with 30 labels")


def test_accuracy_over_labels_has_a_band_of_one_deviation_and_every_seed(two_methods):
    axes = axes_of(figures([panel_of(two_methods)])["accuracy_by_labels"])
    assert mean_lines(axes)["margin"].get_xdata().tolist() == [10, 20, 30]
    (band,) = axes.collections  # of margin: random has one seed
    corners = band.get_paths()[0].vertices
    last, deviation = corners[corners[:, 0] == 30, 1], 100 * np.sqrt(0.02)
    assert [last.min(), last.max()] == pytest.approx([70 - deviation, 70 + deviation])
    singles = [line for line in axes.get_lines() if line.get_linewidth() < 1]
    assert len(singles) == 3


def test_bars_are_sorted_by_query_time_with_parts_and_whiskers_over_seeds(two_methods):
    figure = figures([panel_of(two_methods)])["query_seconds"]
    axes = axes_of(figure)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["random", "margin"]
    ends = [patch.get_x() + patch.get_width() for patch in axes.patches]
    assert ends == pytest.approx([0.25, 3.0])
    parts = {
        (line.get_marker(), float(np.ravel(line.get_xdata())[0]))
        for line in axes.get_lines()
        if line.get_marker() != "None"
    }
    assert parts == {("o", 0.125), ("D", 0.125), ("o", 1.5), ("D", 1.5)}
    (whisker,) = [line for line in axes.get_lines() if line.get_marker() == "None"]
    assert list(whisker.get_xdata()) == [2.0, 4.0]
    assert {text.get_text() for text in axes.texts} >= {"250 ms", "3 s"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predict", "select"]


def test_no_variant_of_random_is_called_the_fastest(two_methods):
    made(two_methods / "d", [0.1, 0.2, 0.3], 1.0, run_settings("coreset"))
    budget = {"_target_": "alrun.budget.Budget", "initial": 10, "per_round": 20, "rounds": 2, "sizes": None}
    made(two_methods / "e", [0.1, 0.2, 0.3], 0.1, run_settings("random", budget=budget))
    panel = panel_of(two_methods)
    assert "random" not in {method.name for method in panel.methods}
    assert said(axes_of(figures([panel])["query_seconds"]), "margin takes 3.0 times the time of coreset")


def test_costs_paid_once_stand_in_a_figure_of_their_own_if_there_are_any(two_methods):
    assert "once_seconds" not in figures([panel_of(two_methods)])
    made(two_methods / "d", [0.1, 0.2, 0.3], settings=run_settings("dgal"), once_features_seconds=[60.0] * 3)
    axes = axes_of(figures([panel_of(two_methods)])["once_seconds"])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dgal"]
    assert any("2 other methods" in text.get_text() for text in axes.texts)


def test_candidates_begin_with_the_first_query_and_equal_curves_share_their_line(two_methods):
    made(two_methods / "d", [0.1, 0.2, 0.3], settings=run_settings("seals"), candidates=5)
    lines = mean_lines(axes_of(figures([panel_of(two_methods)])["candidates"]))
    assert lines["seals"].get_xdata().tolist() == [20, 30]
    assert lines["seals"].get_linestyle() == "-"
    assert lines["margin"].get_ydata().tolist() == lines["random"].get_ydata().tolist() == [90, 90]
    assert lines["margin"].get_linestyle() == lines["random"].get_linestyle() == "--"


def test_training_time_is_shown(two_methods):
    lines = mean_lines(axes_of(figures([panel_of(two_methods)])["train_seconds"]))
    assert lines["margin"].get_ydata().tolist() == [2, 2, 2]


def test_every_data_set_has_a_panel_and_the_legend_names_every_method_once(two_methods):
    for number in range(4):
        settings = run_settings("coreset", f"set{number}")
        made(two_methods / f"d{number}", [0.1, 0.2, 0.3], settings=settings)
    figure = figures(panels(read([two_methods]).runs))["accuracy_by_labels"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["digits", "set0", "set1", "set2", "set3"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["coreset", "margin", "random"]


def test_a_known_strategy_looks_the_same_in_every_report(two_methods):
    before = looks([panel_of(two_methods)])
    made(two_methods / "d", [0.1, 0.2, 0.3], settings=run_settings("another"))
    made(two_methods / "e", [0.1, 0.2, 0.3], settings=run_settings("coreset"))
    after = looks([panel_of(two_methods)])
    assert {name: after[name] for name in before} == before
    assert len({(look.color, look.marker) for look in after.values()}) == len(after) == 4


def test_known_strategies_are_told_apart_by_color_or_marker():
    assert len(set(KNOWN.values()) | set(OTHERS)) == len(KNOWN) + len(OTHERS)


def test_variants_of_a_strategy_share_a_marker_and_differ_in_line_and_shade(tmp_path):
    for k in (1, 2):
        strategy = {"_target_": "strategies.Seals", "k": k}
        made(tmp_path / f"{k}", [0.1, 0.2, 0.3], settings=run_settings("seals", strategy=strategy))
    one, two = looks([panel_of(tmp_path)]).values()
    assert one.marker == two.marker
    assert one.line != two.line
    assert one.color != two.color


def test_a_run_without_a_query_is_drawn_all_the_same(tmp_path):
    base = run_settings()
    made(tmp_path / "a", [0.4], settings=base | {"budget": base["budget"] | {"initial": "all"}})
    found = figures([panel_of(tmp_path)])
    assert set(found) == {"accuracy_by_query_time", "accuracy_by_labels", "candidates", "train_seconds"}
    (line,) = by_method(panel_of(tmp_path))
    assert line["total_query_seconds_mean"] == 0
    assert np.isnan(line["average_query_seconds_mean"])


def test_seconds_are_said_in_the_unit_that_suits():
    told = {
        0.0: "0 s",
        2e-5: "20 µs",
        0.0012: "1.2 ms",
        0.99999: "1 s",
        59.7: "60 s",
        3600.0: "3,600 s",
        9000.0: "2.5 h",
    }
    assert {value: seconds(value) for value in told} == told


def test_the_verb_writes_figures_and_tables_and_lists_what_is_missing(nursery, two_methods):
    made(two_methods / "d", [0.9, 0.9], settings=run_settings("margin", seed=2))
    (two_methods / "foreign").mkdir()
    (two_methods / "foreign" / "settings.yaml").write_text("x: 1\n")
    (two_methods / "foreign" / "rounds.csv").write_text("a,b\n1,2\n")
    done = nursery.run(two_methods, "report", ".", "--output", "out")
    assert done.returncode == 0, done.stderr
    names = ["accuracy_by_query_time", "accuracy_by_labels", "candidates", "train_seconds", "query_seconds"]
    files = {path.name for path in (two_methods / "out").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")} | {
        f"{name}.csv" for name in ("report", "methods", "ratios")
    }
    assert (two_methods / "out" / "accuracy_by_labels.pdf").read_bytes()[:5] == b"%PDF-"
    assert "70.00 ± 14.14" in done.stdout
    assert "margin on digits, seed 2: 1 of 2 rounds, not counted" in done.stdout
    assert "foreign" in done.stdout
    assert "out/accuracy_by_query_time.png" in done.stdout


def test_the_verb_says_when_there_is_no_run(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    made(tmp_path / "bad" / "a", [0.1], settings={"x": 1})
    for folder, lines in (
        ("empty", ["no run found"]),
        ("none", ["no such folder"]),
        ("bad", ["no run", "/a/"]),
    ):
        assert report([str(tmp_path / folder)]) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert [each in line for each, line in zip(lines, told, strict=True)] == [True] * len(lines)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "bad"}


def test_figures_go_beside_the_runs_and_are_no_runs_themselves(two_methods, capsys):
    before = read([two_methods])
    assert report([str(two_methods)]) == 0
    assert str(two_methods / "report" / "methods.csv") in capsys.readouterr().out
    after = read([two_methods])
    assert [run.folder for run in after.runs] == [run.folder for run in before.runs]
    assert after.problems == ()


def test_an_output_that_is_no_folder_is_refused(two_methods, capsys):
    (two_methods / "file").write_text("")
    assert report([str(two_methods), "--output", str(two_methods / "file")]) == 2
    assert "--output: cannot write" in capsys.readouterr().err


def test_help_of_the_verbs_needs_nothing_heavy(tmp_path):
    for verb in ("report", "objective", "bounds", "picture"):
        done = alrun(tmp_path, verb, "--help", PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode == 0
        assert "usage: alrun" in done.stdout
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "omegaconf" in loaded
        assert not loaded & {"torch", "matplotlib", "numpy", "sklearn"}
