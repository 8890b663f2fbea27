"""Objective and bound as a search goes on: the figure, the records, and the verb that compares variants."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_report import made, run_settings

from alrun.report.bounds import bounds, of_round, title, variants
from alrun.report.reading import UnreadableError, read
from alrun.report.searches import read_searches
from alrun.wasserstein.picture import BOUND, OBJECTIVE, Curve, draw_bounds

NONE = float("nan")


def curve(objective: list[float], bound: list[float], seconds: list[float] | None = None) -> Curve:
    """A search of an iteration a second."""
    steps = np.arange(1.0, len(objective) + 1)
    return Curve(np.array(seconds or steps, float), steps, np.array(objective), np.array(bound))


def drawn(**curves: Curve) -> Figure:
    figure = Figure(layout="constrained")
    draw_bounds(figure, curves)
    figure.draw_without_rendering()
    return figure


def steps(axes, style: str) -> list[tuple[list, list]]:
    return [
        (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes.lines
        if line.get_drawstyle() == "steps-post" and line.get_linestyle() == style
    ]


def test_the_gap_is_what_the_last_bound_leaves_of_the_last_objective():
    assert curve([0.6, 0.5], [NONE, 0.4]).gap == pytest.approx(0.2)
    assert curve([0.5, 0.5], [0.45, NONE]).gap == pytest.approx(0.1)
    assert curve([0.5], [-0.5]).gap == pytest.approx(2)
    assert curve([0.0], [0.0]).gap == 0
    assert np.isnan(curve([0.5, 0.4], [NONE, NONE]).gap)


def test_objective_and_bound_are_steps_by_iteration_and_by_time_and_begin_where_they_exist():
    figure = drawn(one=curve([0.6, 0.5, 0.5], [NONE, 0.3, 0.4], [0.5, 2, 4]))
    left, right = figure.axes
    for axes, across in ((left, [1, 2, 3]), (right, [0.5, 2, 4])):
        assert steps(axes, OBJECTIVE) == [(across, [0.6, 0.5, 0.5])]
        assert steps(axes, BOUND) == [(across[1:], [0.3, 0.4])]
        (gap,) = axes.collections
        assert gap.get_paths()[0].get_extents().bounds == pytest.approx(
            (across[1], 0.3, across[2] - across[1], 0.2)
        )
    assert (left.get_yscale(), right.get_xscale()) == ("linear", "linear")


def test_a_search_without_a_bound_is_said_to_have_none():
    figure = drawn(exact=curve([0.5, 0.4], [0.1, 0.3]), pruned=curve([0.5, 0.3], [NONE, NONE]))
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told[2:] == ["exact: gap 25 % in the end", "pruned: no bound"]
    assert len(steps(figure.axes[0], OBJECTIVE)) == 2
    assert len(steps(figure.axes[0], BOUND)) == len(figure.axes[0].collections) == 1


def test_bounds_far_below_zero_bend_the_axis_and_leave_the_objectives_apart():
    figure = drawn(weak=curve([0.5, 0.4], [-90.0, -20.0]), strong=curve([0.5, 0.4], [0.2, 0.3]))
    axes = figure.axes[0]
    assert axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low < -90 < 0.5 < high
    heights = axes.transData.transform([(0, value) for value in (-90, 0, 0.3, 0.4)])[:, 1]
    whole = heights[-1] - heights[0]
    assert heights[3] - heights[2] > 0.05 * whole
    assert heights[1] - heights[0] > 0.2 * whole
    assert drawn(near=curve([0.5, 0.4], [-0.3, 0.1])).axes[0].get_yscale() == "linear"


def test_times_over_many_decades_take_a_log_axis():
    assert drawn(one=curve([2.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.1, 1, 180])).axes[1].get_xscale() == "log"


def test_a_search_that_found_nothing_is_refused():
    with pytest.raises(ValueError, match="needs a search"):
        draw_bounds(Figure(), {})
    with pytest.raises(ValueError, match="two has none"):
        draw_bounds(Figure(), {"one": curve([1.0], [NONE]), "two": curve([NONE], [NONE])})


def searched(folder: Path, name: str, text: str, pool: str = "a", **groups) -> Path:
    """A run folder of two rounds with this table of searches."""
    made(folder, [0.1, 0.2, 0.3], settings=run_settings(name, **groups))
    (folder / "wasserstein.csv").write_text("round,part,iteration,seconds,phase,objective,bound,gap\n" + text)
    (folder / "environment.json").write_text(json.dumps({"data": {"pool": [60, 2], "inputs": pool}}))
    return folder


TWO = "1,0,0,0.1,start,0.6,,\n1,0,1,0.9,benders,0.5,0.25,0.5\n2,0,0,0.2,start,0.4,0.4,0\n"


def test_searches_are_read_round_by_round(tmp_path):
    found = read_searches(searched(tmp_path / "a", "wasserstein", TWO))
    assert list(found) == [(1, 0), (2, 0)]
    assert found[1, 0].objective.tolist() == [0.6, 0.5]
    assert np.isnan(found[1, 0].bound[0])
    assert (found[1, 0].gap, found[2, 0].gap) == (0.5, 0)
    assert read_searches(made(tmp_path / "b", [0.1])) == {}
    for damage in (TWO.replace("0.25", "low"), "1,0,0,0.1\n"):
        with pytest.raises(UnreadableError, match="cannot be read as searches"):
            read_searches(searched(tmp_path / damage[-9:-3], "wasserstein", damage))


def test_parts_of_a_divided_pool_are_searches_of_their_own(tmp_path):
    text = TWO + TWO.replace("1,0,", "1,1,").replace("2,0,", "2,1,").replace("0.5,0.25", "0.7,0.25")
    found = read_searches(searched(tmp_path / "a", "wasserstein", text))
    assert list(found) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert found[1, 1].objective.tolist()[-1] == 0.7
    whole = read_searches(searched(tmp_path / "b", "wasserstein", TWO))
    shown = of_round({"parted": found, "whole": whole}, 1)
    assert list(shown) == ["parted, part 0", "parted, part 1", "whole"]
    assert shown["parted, part 1"] is found[1, 1]


def test_the_verb_draws_a_figure_a_round_from_the_least_seed_that_all_have(tmp_path, capsys):
    for seed in (1, 2):
        searched(tmp_path / f"a{seed}", "wasserstein", TWO, seed=seed)
        searched(tmp_path / f"b{seed}", "wasserstein_paper", TWO[: TWO.index("2,0,0")], seed=seed)
    searched(tmp_path / "a0", "wasserstein", TWO, seed=0)
    made(tmp_path / "random", [0.1, 0.2, 0.3], settings=run_settings("random", seed=3))
    chosen = variants([run for run in read([tmp_path]).runs if run.strategy != "random"])
    assert {name: run.folder.name for name, run in chosen.items()} == {
        "wasserstein": "a1",
        "wasserstein_paper": "b1",
    }
    assert bounds([str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in told] == ["bounds-round001.png", "bounds-round002.png"]
    assert all(Path(line).with_suffix(".pdf").exists() for line in told)


def test_a_round_under_way_is_drawn_and_said_to_be(tmp_path, capsys):
    searched(tmp_path / "a", "wasserstein", TWO + TWO.replace("1,0,", "3,0,")[: TWO.index("2,0,0")])
    runs = {run.strategy: run for run in read([tmp_path]).runs}
    assert title(runs, 2) == "digits, seed 0, round 2: 30 labels"
    assert title(runs, 3) == "digits, seed 0, round 3: under way"
    assert bounds([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("bounds-round003.png")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "mnist"}, "must be on one data set, got digits, mnist"),
        ({"seed": 7}, "must have a seed in common, got one of 0; two of 7"),
        ({"pool": "b"}, "one and two differ: pool"),
        ({"featurizer": {"_target_": "features.Pca"}}, "one and two differ: featurizer"),
        (
            {"strategy": {"_target_": "strategies.two", "metric": "cosine"}},
            "differ: strategy.metric None and cosine",
        ),
    ],
)
def test_searches_for_different_problems_are_refused(changed, message, tmp_path, capsys):
    searched(tmp_path / "one", "one", TWO)
    searched(tmp_path / "two", "two", TWO, **changed)
    assert bounds([str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.png"))


def test_runs_without_a_search_make_no_figure(tmp_path, capsys):
    made(tmp_path / "a", [0.1, 0.2])
    assert bounds([str(tmp_path)]) == 2
    assert "alrun bounds: no run with a search (wasserstein.csv) found" in capsys.readouterr().err
