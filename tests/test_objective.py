"""Selections scored by exact transport, and the verb that compares runs by it."""

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from conftest import settings
from rich.console import Console
from scipy.spatial.distance import cdist
from test_report import made

from alrun import scoring
from alrun.assembly import assemble
from alrun.cache import Cache
from alrun.fixed_spaces import named_space, word_of
from alrun.objective import objective
from alrun.report.aggregating import panels
from alrun.report.objectives import Measure, latex, objective_table, told_budgets
from alrun.report.reading import read, read_settings
from alrun.scoring import objectives, scored
from alrun.screen import Bars

POOL = 60


def reference(points: np.ndarray, rows: np.ndarray, metric: str) -> float:
    """W by POT's network simplex on SciPy's distances."""
    costs = cdist(points.astype(np.float64), points[rows].astype(np.float64), metric)
    return ot.emd2(np.full(len(points), 1 / len(points)), np.full(len(rows), 1 / len(rows)), costs)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_objectives_are_those_of_pot_after_each_purchase(metric):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(23, 3)).astype(np.float32)
    points[5] = points[4]
    order = rng.permutation(23)[:9]
    batches = np.split(order, [0, 4, 5])
    found = list(objectives(points, batches, metric))
    assert np.isnan(found[0])
    for value, count in zip(found[1:], (4, 5, 9), strict=True):
        assert value == pytest.approx(reference(points, order[:count], metric), rel=1e-6)


def test_objectives_of_closed_forms():
    line = np.arange(6, dtype=np.float32)[:, None]
    assert list(objectives(line, [np.array([1, 4])], "euclidean")) == [pytest.approx(2 / 3)]
    assert list(objectives(line, [np.arange(5), np.array([5])], "euclidean")) == [pytest.approx(0.5), 0]
    axes = np.eye(5, dtype=np.float32)  # equal distances: 1 - B / n
    assert list(objectives(axes, [np.array([3, 0])], "cosine")) == [pytest.approx(0.6)]


@cache
def composed(*words: str) -> dict:
    dataset, strategy = (
        next((word.partition("=")[2] for word in words if word.startswith(f"{group}=")), default)
        for group, default in (("dataset", "digits"), ("strategy", "random"))
    )
    size = [f"dataset.pool_size={POOL}"] if dataset == "digits" else []
    found = settings("tracker=none", "budget.initial=10", "budget.rounds=1", *size, *words)
    return {**found, "choices": {"dataset": dataset, "strategy": strategy}}


def bought(folder: Path, rows: np.ndarray, *words: str) -> Path:
    """A run folder without a training: ten rows, then ten more; the points of its pool in `pool.npy`."""
    found = {**composed(*words), "output_dir": str(folder.parent), "cache": {"_target_": "alrun.cache.Cache"}}
    found["cache"]["dir"] = str(folder.parent / "cache")
    experiment = assemble(found)
    data = experiment.dataset.load(Path("data"), experiment.stream("split"))
    made(folder, [0.1, 0.2], settings=found)
    mark = {"pool": list(data.inputs.shape), "inputs": data.fingerprint()}
    (folder / "environment.json").write_text(json.dumps({"data": mark}))
    np.save(folder / "pool.npy", data.inputs.reshape(len(data.inputs), -1))
    with (folder / "selections.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "rank", "row", "label", "score"])
        writer.writerows([i // 10, i % 10, row, data.labels[row], ""] for i, row in enumerate(rows))
    return folder


def chosen(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(POOL)[:20]


@pytest.fixture
def runs(tmp_path) -> Path:
    """Random and k-center runs of two seeds, whose pools differ; k-center in the space of pixels."""
    for seed in (0, 1):
        word = f"seed={seed}"
        bought(tmp_path / f"r{seed}", chosen(seed), "strategy=random", word)
        bought(tmp_path / f"c{seed}", chosen(10 + seed), "strategy=coreset", "featurizer=pixels", word)
    return tmp_path


def measured(folder: Path, space: str | None, metric: str | None):
    """The scores that the verb would tell, none of them kept."""
    return scored(read([folder]).runs, space, metric, Cache(None), "cpu", Bars(Console(), shown=False))


def lines(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open() as opened:
        return {(line["method"], line["labels"]): line for line in csv.DictReader(opened)}


def test_the_table_has_mean_and_deviation_over_seeds_in_the_space_that_runs_select_in(runs, capsys):
    assert objective([str(runs), "--metric", "cosine", "--device", "cpu"]) == 0
    found = lines(runs / "objective" / "objective.csv")
    assert set(found) == {(name, labels) for name in ("random", "coreset") for labels in ("10", "20")}
    for name, first in (("random", 0), ("coreset", 10)):
        for count in (10, 20):
            values = [
                reference(
                    np.load(runs / f"{name[0]}{seed}" / "pool.npy"), chosen(first + seed)[:count], "cosine"
                )
                for seed in (0, 1)
            ]
            line = found[name, str(count)]
            assert (line["space"], line["metric"], line["seeds"]) == ("pixels", "cosine", "2")
            assert float(line["objective_mean"]) == pytest.approx(np.mean(values), rel=1e-6)
            assert float(line["objective_std"]) == pytest.approx(np.std(values, ddof=1), rel=1e-5)
            assert line["gap_mean"] == ""
    told = capsys.readouterr().out
    assert "digits: objective W (pixels, cosine)" in told
    assert f"± {float(found['random', '20']['objective_std']):.4f}" in told
    for kind in (".png", ".pdf", ".tex"):
        assert (runs / "objective" / f"objective{kind}").stat().st_size > 100


def test_what_was_scored_is_kept_and_new_purchases_are_not_taken_for_it(runs, monkeypatch):
    assert objective([str(runs), "--metric", "cosine"]) == 0
    before = (runs / "objective" / "objective.csv").read_text()
    asked = []

    def opened(folder, *others):
        asked.append(folder.name)
        return real(folder, *others)

    real = scoring.opened
    monkeypatch.setattr(scoring, "opened", opened)
    assert objective([str(runs), "--metric", "cosine"]) == 0
    assert asked == []
    assert (runs / "objective" / "objective.csv").read_text() == before
    file = runs / "r1" / "selections.csv"
    unsold = next(row for row in range(POOL) if row not in chosen(1))
    file.write_text(file.read_text().replace(f"0,0,{chosen(1)[0]},", f"0,0,{unsold},"))
    assert objective([str(runs), "--metric", "cosine"]) == 0
    assert len(asked) == 1
    now = lines(runs / "objective" / "objective.csv")
    assert (runs / "objective" / "objective.csv").read_text() != before
    assert now["coreset", "20"]["objective_mean"] in before


def test_runs_in_several_spaces_are_refused_unless_one_is_chosen(runs, capsys):
    bought(runs / "p0", chosen(3), "strategy=coreset", "featurizer=pca", "featurizer.components=3", "seed=0")
    assert objective([str(runs)]) == 2
    told = capsys.readouterr().err
    assert "these select in several (" in told
    assert "choose one with --space" in told
    for space, name in (("pixels", "pixels"), (str(runs / "p0"), "pca")):
        assert measured(runs, space, "euclidean").measure == (name, "euclidean")
    with pytest.raises(ValueError, match="no space pixel; did you mean pixels"):
        measured(runs, "pixel", None)


def test_features_are_those_of_the_first_run_that_has_some_of_the_space(tmp_path, monkeypatch):
    words = {
        "a": ("strategy=entropy", "featurizer=vae"),
        "b": ("strategy=kmedoids", "featurizer=pca", "featurizer.components=3"),
    }
    for name, own in words.items():
        folder = bought(tmp_path / name, chosen(0), *own)
        (folder / "checkpoint").mkdir()
        torch.save({"features": f"digest of {name}"}, folder / "checkpoint" / "round.pt")
    real, asked = scoring.opened, []

    def opened(folder, *others):
        asked.append(folder.name)
        return real(folder, *others)

    monkeypatch.setattr(scoring, "opened", opened)
    found = measured(tmp_path, None, "euclidean")
    assert (found.measure.space, found.problems) == ("pca", ())
    assert set(asked) == {"b"}


def test_a_file_is_a_space_for_runs_on_one_pool(runs, tmp_path, capsys):
    points = np.random.default_rng(5).normal(size=(POOL, 2)).astype(np.float32)
    np.save(tmp_path / "mine.npy", points)
    words = [
        str(runs / "r0"),
        str(runs / "c0"),
        "--space",
        str(tmp_path / "mine.npy"),
        "--metric",
        "euclidean",
    ]
    assert objective([*words, "--output", str(tmp_path / "out")]) == 0
    found = lines(tmp_path / "out" / "objective.csv")
    value = float(found["random", "20"]["objective_mean"])
    assert value == pytest.approx(reference(points, chosen(0), "euclidean"), rel=1e-6)
    assert found["random", "20"]["objective_std"] == ""
    assert found["random", "20"]["space"] == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy=random", "featurizer=pixels"], "none of these runs selects in features"),
        (["strategy=coreset", "featurizer=penultimate"], "none of these runs selects in features"),
        (["strategy=random", "dataset=checkerboard"], "must be of one data set"),
        (["strategy=random", "seeds.split=9"], "different pools"),
        (["strategy=random", "seeds.artifacts=9"], "different seeds.artifacts"),
        (["strategy=coreset", "featurizer=pixels", "strategy.metric=cosine"], "cosine and euclidean"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(words, message, tmp_path, capsys):
    bought(tmp_path / "a", chosen(0), *words)
    if "none" not in message:
        bought(
            tmp_path / "b", chosen(1), "strategy=coreset", "featurizer=pixels", "strategy.metric=euclidean"
        )
    assert objective([str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("**/objective.csv"))


def test_runs_that_cannot_be_scored_are_left_out_and_said(runs, capsys):
    short = (runs / "r0" / "selections.csv").read_text().splitlines()
    (runs / "r0" / "selections.csv").write_text("\n".join(short[:-1]) + "\n")
    file = runs / "r1" / "settings.yaml"
    file.write_text(file.read_text().replace("strategies.random.Random", "strategies.random.Gone"))
    assert objective([str(runs), "--metric", "cosine"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "r0: left out (" in told
    assert "has not the labels that rounds.csv counts" in told
    assert "r1: left out (" in told
    assert "strategies.random.Gone" in told
    assert {name for name, _ in lines(runs / "objective" / "objective.csv")} == {"coreset"}
    assert objective([str(runs / "r0"), "--space", "pixels"]) == 2
    assert "no run can be scored" in capsys.readouterr().err
    assert objective([str(runs / "nothing")]) == 2


def test_the_gap_of_a_search_is_told_in_its_own_space_and_metric_alone(tmp_path, capsys):
    words = ("strategy=kmedoids", "featurizer=pixels", "strategy.metric=cosine")
    for seed, gap in ((0, 0.2), (1, 0.4)):
        run = bought(tmp_path / f"k{seed}", chosen(seed), *words, f"seed={seed}")
        head, *records = (run / "rounds.csv").read_text().splitlines()
        texts = [f"{head},gap", f"{records[0]},", f"{records[1]},{gap}", ""]
        (run / "rounds.csv").write_text("\n".join(texts))
    assert objective([str(tmp_path)]) == 0
    found = lines(tmp_path / "objective" / "objective.csv")
    assert float(found["kmedoids", "20"]["gap_mean"]) == pytest.approx(0.3)
    assert found["kmedoids", "10"]["gap_mean"] == ""
    assert "gap 30.0 %" in capsys.readouterr().out
    for space, metric in ((None, "euclidean"), ("pca", None)):
        assert all(np.isnan(run.columns["gap"]).all() for run in measured(tmp_path, space, metric).runs)


def scored_panel(folder: Path):
    """Two methods with objectives made up, one of them without the last budget."""
    for name, values in (("margin", [0.5, 0.25, 0.125]), ("best_of_all", [0.5, 0.2])):
        made(folder / name, [0.1] * len(values), settings=None, objective=values, gap=[""] * len(values))
        file = folder / name / "settings.yaml"
        file.write_text(file.read_text().replace("margin", name))
    (panel,) = panels(read([folder]).runs)
    return panel


def test_the_least_of_a_budget_is_bold_and_names_are_escaped(tmp_path):
    text = latex(scored_panel(tmp_path), Measure("pca", "cosine"))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r"strategy & 10 & 20 & 30 \\"
    assert rows[1] == r"best\_of\_all & \textbf{0.5000} & \textbf{0.2000} &  \\"
    assert rows[2] == r"margin & \textbf{0.5000} & 0.2500 & \textbf{0.1250} \\"


def test_a_budget_without_labels_has_a_dash_and_nothing_bold(tmp_path):
    for name, values in (("margin", ["nan", 0.25]), ("random", ["nan", "nan"])):
        made(tmp_path / name, [0.1, 0.1], settings=None, objective=values, gap=["", ""])
        file = tmp_path / name / "settings.yaml"
        file.write_text(file.read_text().replace("margin", name))
    (panel,) = panels(read([tmp_path]).runs)
    rows = [line for line in latex(panel, Measure("pca", "cosine")).splitlines() if line.endswith(r"\\")]
    assert rows[1:] == [r"margin & -- & \textbf{0.2500} \\", r"random & -- & -- \\"]
    table = objective_table(panel, 60)
    assert [list(column.cells) for column in table.columns] == [
        ["margin", "random"],
        ["–", "–"],
        ["0.2500", "–"],
    ]


def test_as_many_budgets_are_told_as_fit_the_first_and_last_among_them(tmp_path):
    panel = scored_panel(tmp_path)
    assert told_budgets(panel, 2) == [10, 30]
    assert told_budgets(panel, 9) == [10, 20, 30]
    narrow = objective_table(panel, 40)
    assert [column.header for column in narrow.columns] == ["strategy", "10", "30"]


def test_a_space_may_be_named_whatever_the_trainer_of_the_runs_needs(tmp_path):
    words = ("strategy=kmedoids", "featurizer=simclr", "trainer=frozen_head")
    run = bought(tmp_path / "a", chosen(0), *words)
    space = named_space("pca", read_settings(run / "settings.yaml"))
    assert (space.depends_on_model, word_of(space)) == (False, "pca")
    with pytest.raises(ValueError, match="must be made without a model, penultimate is not"):
        named_space("penultimate", read_settings(run / "settings.yaml"))
