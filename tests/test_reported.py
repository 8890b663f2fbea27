"""What settings quote from elsewhere beside runs, errors over budgets, and top-5 accuracies, in a report."""

import csv
from pathlib import Path

import pytest
from rich.console import Console
from test_fit_pictures import trained
from test_report import made, panel_of, run_settings
from test_report_figures import axes_of, mean_lines

from alrun.report.aggregating import panels
from alrun.report.figures import figures
from alrun.report.reading import read, read_run
from alrun.report.tables import save_tables, summary

QUOTED = {"VAT": {30: 11.4}, "TDCNN": {20: 40.0, 10: 60.0}}


def quoting(folder: Path, told: object = QUOTED) -> Path:
    """Two runs of three rounds (10, 20, 30 labels), one of which quotes others."""
    settings = run_settings("margin", seed=0, preset={"k": 1, "reported": told})
    made(folder / "a", [0.1, 0.4, 0.6], settings=settings)
    made(folder / "b", [0.3, 0.4, 0.8], settings=run_settings("random", seed=1))
    return folder


def printed(panel) -> list[str]:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(panel))
    return console.export_text().splitlines()


def lines(file: Path) -> list[dict[str, str]]:
    with file.open() as opened:
        return list(csv.DictReader(opened))


def test_what_others_reported_is_marked_in_the_figure_of_accuracies(tmp_path):
    found = figures([panel_of(quoting(tmp_path))])
    axes = axes_of(found["accuracy_by_labels"])
    marks = mean_lines(axes)
    assert marks["TDCNN (reported, not run)"].get_xdata() == [10, 20]
    assert marks["TDCNN (reported, not run)"].get_ydata() == [40, 60]
    assert marks["TDCNN (reported, not run)"].get_markerfacecolor() == "white"
    assert marks["VAT (reported, not run)"].get_ydata() == [pytest.approx(88.6)]
    assert axes.get_ylim()[1] > 88.6
    (legend,) = found["accuracy_by_labels"].legends
    assert [each.get_text() for each in legend.get_texts()] == [
        *("margin", "random"),
        *("VAT (reported, not run)", "TDCNN (reported, not run)"),
    ]
    assert not any("reported" in name for name in mean_lines(axes_of(found["train_seconds"])))


@pytest.mark.parametrize("count", [2, 4])
def test_of_several_data_sets_each_panel_shows_what_its_own_runs_quote(count, tmp_path):
    for number in range(count):
        told = {} if number else {"reported": {"VAT": {20: 30.0}}}
        settings = run_settings("margin", f"data{number}", preset=told)
        made(tmp_path / str(number), [0.1, 0.4, 0.6], settings=settings)
    shown = figures(panels(read([tmp_path]).runs))["accuracy_by_labels"].axes
    quoting_panels = ["VAT (reported, not run)" in mean_lines(axes) for axes in shown]
    assert quoting_panels == [True] + [False] * (count - 1)  # four panels leave two places empty


def test_what_others_reported_stands_apart_in_tables(tmp_path):
    panel = panel_of(quoting(tmp_path))
    told = printed(panel)
    (place,) = (i for i, text in enumerate(told) if "VAT (reported, not run)" in text)
    assert told[place].split()[-2:] == ["30", "88.60"]
    assert not any("TDCNN" in text for text in told)  # for no label count that a run ended with
    assert any("random" in text for text in told[:place])
    save_tables([panel], tmp_path)
    assert [(line["name"], line["labels"], line["error"]) for line in lines(tmp_path / "reported.csv")] == [
        ("VAT (reported, not run)", "30", "11.4"),
        ("TDCNN (reported, not run)", "10", "60"),
        ("TDCNN (reported, not run)", "20", "40"),
    ]
    assert not any("reported" in line["method"] for line in lines(tmp_path / "methods.csv"))


@pytest.mark.parametrize("told", [[1, 2], {"VAT": 3}, {"VAT": {"few": 3}}, {"VAT": {10: "high"}}])
def test_a_quotation_that_cannot_be_read_leaves_the_run_out_and_is_told(told, tmp_path):
    found = read([quoting(tmp_path, told)])
    assert [run.strategy for run in found.runs] == ["random"]
    assert "not the settings of a run" in found.problems[0]


def test_without_quotations_nothing_is_reported(tmp_path):
    made(tmp_path / "a", [0.1, 0.4], settings=run_settings("margin", rounds=1))
    assert read_run(tmp_path / "a").reported == {}
    written = {file.name for file in save_tables([panel_of(tmp_path)], tmp_path)}
    assert written == {"report.csv", "methods.csv", "ratios.csv"}
    assert not set(figures([panel_of(tmp_path)])) & {"error_by_labels", "top5_by_labels"}


def test_runs_that_differ_in_labels_get_a_figure_and_a_table_of_errors(tmp_path):
    for name, labels, accuracy in (
        ("supervised", 10, 0.5),
        ("supervised", 40, 0.6),
        ("mean_teacher", 40, 0.9),
    ):
        settings = trained(name, labels=labels, preset={"reported": {"VAT": {40: 9.0}}})
        made(tmp_path / f"{name}{labels}", [accuracy], settings=settings, labeled=[labels])
    panel = panel_of(tmp_path)
    found = figures([panel])["error_by_labels"]
    curves = mean_lines(axes_of(found))
    assert curves["supervised"].get_xdata().tolist() == [10, 40]
    assert curves["supervised"].get_ydata() == pytest.approx([50, 40])
    assert curves["VAT (reported, not run)"].get_ydata() == [9]
    assert axes_of(found).texts[0].get_text() == "mean_teacher ends lowest: 10.0 % (40 labels)"
    save_tables([panel], tmp_path)
    assert [tuple(line.values())[1:4] for line in lines(tmp_path / "errors.csv")] == [
        ("mean_teacher", "40", "10"),
        ("supervised", "10", "50"),
        ("supervised", "40", "40"),
    ]


def test_top_5_accuracies_are_shown_where_runs_have_them(tmp_path):
    made(tmp_path / "a", [0.1, 0.4], settings=run_settings("margin", rounds=1), top5_accuracy=[0.5, 0.75])
    made(tmp_path / "b", [0.1, 0.5], settings=run_settings("random", rounds=1))
    panel = panel_of(tmp_path)
    axes = axes_of(figures([panel])["top5_by_labels"])
    assert list(mean_lines(axes)) == ["margin"]
    assert mean_lines(axes)["margin"].get_ydata() == pytest.approx([50, 75])
    told = printed(panel)
    assert any("top-5 (%)" in text for text in told)
    assert any("margin" in text and "75.00" in text for text in told)
    save_tables([panel], tmp_path)
    found = {line["method"]: line["final_top5_accuracy_mean"] for line in lines(tmp_path / "methods.csv")}
    assert found == {"margin": "0.75", "random": ""}
