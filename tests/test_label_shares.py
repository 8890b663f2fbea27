"""Which classes runs bought, and how unsure the model was of them: what stands in the two figures."""

import csv
import json

import numpy as np
import pytest
from test_report import made, panel_of, run_settings
from test_report_figures import mean_lines, said

from alrun.report.curves import entropies
from alrun.report.figures import figures
from alrun.report.label_shares import _apart, label_shares, shares_figure


def bought(folder, labels, *, strategy="margin", seed=0, classes=None, **columns):
    """A run whose rounds bought these labels; rounds without an entropy stay blank."""
    rounds = len(labels)
    made(folder, [0.5] * rounds, settings=run_settings(strategy, seed=seed, rounds=rounds - 1), **columns)
    with (folder / "selections.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "rank", "row", "label", "score"])
        rows = iter(range(10_000))
        for number, each in enumerate(labels):
            writer.writerows((number, rank, next(rows), label, "") for rank, label in enumerate(each))
    if classes:
        (folder / "environment.json").write_text(json.dumps({"classes": classes}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two seeds of margin on a pool of five `one` and fifteen `two`."""
    pool = {"one": 5, "two": 15}
    bought(tmp_path / "a", [[0, 1], [1, 1], [1, 1, 1, 1]], seed=0, classes=pool)
    bought(tmp_path / "b", [[0, 0], [0, 0], [1, 1, 1, 1]], seed=1, classes=pool)
    return tmp_path


def test_shares_count_all_labels_up_to_each_round(runs):
    (shares,) = label_shares([panel_of(runs)])
    assert shares.class_names == ("one", "two")
    assert shares.values[:, :, 0] == pytest.approx(np.array([[1 / 2, 1 / 4, 1 / 8], [1, 1, 1 / 2]]))
    assert shares.values.sum(axis=2) == pytest.approx(np.ones((2, 3)))
    assert shares.pool == pytest.approx(np.array([0.25, 0.75]))


def test_the_figure_has_a_line_a_class_the_pool_beside_it_and_says_the_extremes(runs):
    (axes,) = figures([panel_of(runs)])["label_shares"].axes
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert [line.get_ydata().tolist() for line in lines] == [
        pytest.approx([75, 62.5, 31.25]),
        pytest.approx([25, 37.5, 68.75]),
    ]
    marks = [line.get_ydata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert marks == pytest.approx([25, 75])
    assert said(axes, "most: two 68.8 % (pool 75.0), least: one 31.2 % (pool 25.0)")
    assert {"one", "two"} <= {text.get_text() for text in axes.texts}
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= 75


def test_panels_of_one_data_set_share_their_scale(runs):
    bought(runs / "c", [[0], [0], [0]], strategy="random", classes={"one": 5, "two": 15})
    margin, random = label_shares([panel_of(runs)])
    assert random.values[0, :, 0].tolist() == [1, 1, 1]
    tops = {axes.get_ylim()[1] for axes in shares_figure([margin, random]).axes}
    assert tops == {100}


def test_without_the_pools_classes_labels_name_themselves_and_nothing_is_marked(tmp_path):
    bought(tmp_path / "a", [[0, 2], [1, 1]])
    (shares,) = label_shares([panel_of(tmp_path)])
    assert (shares.class_names, shares.pool) == (("0", "1", "2"), None)
    (axes,) = shares_figure([shares]).axes
    assert said(axes, "most: 1 50.0 %, least: 0 25.0 %")


def test_methods_without_purchases_or_with_too_many_classes_are_left_out(tmp_path):
    made(tmp_path / "a", [0.1, 0.2], settings=run_settings("random", rounds=1))
    assert label_shares([panel_of(tmp_path)]) == []
    assert "label_shares" not in figures([panel_of(tmp_path)])
    bought(tmp_path / "b", [[0, 25], [1, 2]])
    assert label_shares([panel_of(tmp_path)]) == []


@pytest.mark.parametrize(
    "text", ["round,label\n0,x\n", "round,rank\n0,1\n", "round,label\n", "round,label\n0,1\n"]
)
def test_damaged_purchases_are_told_and_left_out(runs, text, caplog):
    (runs / "b" / "selections.csv").write_text(text)
    assert label_shares([panel_of(runs)]) == []
    assert "selections.csv" in caplog.text
    assert "margin is left out of label_shares" in caplog.text


def test_a_damaged_environment_is_told(runs, caplog):
    (runs / "a" / "environment.json").write_text("{")
    assert label_shares([panel_of(runs)]) == []
    assert "environment.json" in caplog.text


def test_names_are_moved_apart_in_their_order():
    levels = np.array([10.0, 10.5, 40.0, 9.8, 0.0])
    moved = _apart(levels, 3.0)
    assert np.array_equal(np.argsort(moved), np.argsort(levels))
    assert np.diff(np.sort(moved)).min() >= 2.9
    assert (moved[2], moved.min()) == (40.0, 0.0)
    assert _apart(np.array([1.0, 9.0]), 3.0).tolist() == [1.0, 9.0]


def test_the_entropy_of_batches_is_shown_where_a_model_chose_and_set_against_random(tmp_path):
    blank = {"batch_entropy": ["", 0.6, 0.4]}
    bought(tmp_path / "a", [[0], [1], [0]], seed=0, **blank)
    bought(tmp_path / "b", [[0], [1], [0]], seed=1, batch_entropy=["", 0.4, 0.2])
    bought(tmp_path / "c", [[0], [1], [0]], strategy="random", batch_entropy=["", 0.2, 0.2])
    (axes,) = figures([panel_of(tmp_path)])["batch_entropy"].axes
    lines = mean_lines(axes)
    assert lines["margin"].get_xdata().tolist() == [20, 30]
    assert lines["margin"].get_ydata() == pytest.approx([0.5, 0.3])
    assert said(axes, "margin buys 0.4 nats on average, 100% above random")


def test_methods_that_lie_on_one_another_in_entropy_are_both_seen(tmp_path):
    for strategy in ("margin", "entropy"):
        bought(tmp_path / strategy, [[0], [1], [0]], strategy=strategy, batch_entropy=["", 0.6, 0.4])
    (axes,) = figures([panel_of(tmp_path)])["batch_entropy"].axes
    assert all(line.is_dashed() for line in mean_lines(axes).values())


def test_without_entropies_there_is_no_such_figure(tmp_path):
    made(tmp_path / "a", [0.1, 0.2], settings=run_settings("random", rounds=1))
    panel = panel_of(tmp_path)
    assert entropies(panel.methods[0]) is None
    assert "batch_entropy" not in figures([panel])
