"""Where in a space of features a run's purchases lie, and the verb that draws it."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from test_run import played

from alrun.cache import Cache
from alrun.picture import picture
from alrun.report.selection_picture import Selection, among_strangers, draw_selection, pictured, projected
from alrun.screen import Bars
from alrun.shelf import Deaf
from alrun.spaces import opened, points


def blobs(distance: float = 10.0) -> Selection:
    """Two classes of 30 points; six bought in rounds 0 to 5."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    points = (rng.normal(size=(60, 3)) + distance * labels[:, None]).astype(np.float32)
    rounds = np.full(60, -1, np.int64)
    rounds[:6] = range(6)
    return Selection(points, labels, rounds, np.ones(60, bool), ("one", "two"))


def test_purchases_are_parted_into_the_first_set_and_two_halves():
    selection = blobs()
    assert [np.flatnonzero(each).tolist() for each in (selection.first, selection.early, selection.late)] == [
        [0],
        [1, 2, 3],
        [4, 5],
    ]


def test_neighbors_of_another_class_are_counted():
    assert among_strangers(blobs(100.0)).max() == 0
    mixed = among_strangers(blobs(0.0))
    assert 0.3 < mixed.mean() < 0.7
    tiny = Selection(
        np.array([[0.0], [1.0], [2.0]], np.float32),
        np.array([0, 0, 1]),
        np.array([0, -1, -1]),
        np.ones(3, bool),
        ("a", "b"),
    )
    assert among_strangers(tiny).tolist() == [0.5, 0.5, 1.0]
    bought_too = replace(tiny, drawn=np.array([False, True, True]))
    assert among_strangers(bought_too).tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="two drawn points at least, got 1"):
        among_strangers(replace(tiny, drawn=np.array([False, False, True])))


def test_no_point_is_its_own_neighbor_where_many_are_equal():
    same = Selection(
        np.eye(30, 2, k=-28, dtype=np.float32),
        np.arange(30),
        np.full(30, -1),
        np.ones(30, bool),
        ("x",) * 30,
    )
    assert among_strangers(same).tolist() == [1.0] * 30


def test_purchases_along_a_boundary_do_not_shift_the_shares_that_they_are_judged_by():
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    places = rng.normal(size=(20_000, 2)) + 2.44 * np.c_[labels, np.zeros(20_000)]
    pool = Selection(
        places.astype(np.float32), labels, np.full(20_000, -1), np.ones(20_000, bool), ("one", "two")
    )
    truth = among_strangers(pool)
    bought = np.argsort(np.abs(places[:, 0] - 1.22))[:1500]
    rows, drawn = pictured(20_000, bought, 1500, rng)
    rounds = np.full(20_000, -1)
    rounds[bought] = 1
    seen = replace(pool, points=pool.points[rows], labels=labels[rows], rounds=rounds[rows], drawn=drawn)
    shares = among_strangers(seen)
    assert shares[drawn].mean() == pytest.approx(truth.mean(), abs=0.02)
    assert shares[seen.rounds == 1].mean() == pytest.approx(truth[bought].mean(), abs=0.02)
    figure = Figure()
    draw_selection(figure, seen, seen.points.astype(np.float64), "title")
    assert f"Everywhere in the pool {100 * shares[drawn].mean():.0f} %" in figure.get_suptitle()
    assert shares.mean() > truth.mean() + 0.1


def test_bought_rows_are_always_pictured():
    rows, drawn = pictured(1000, np.array([3, 999]), 50, np.random.default_rng(0))
    assert drawn.sum() == 50
    assert set(rows[~drawn].tolist()) <= {3, 999}
    assert {3, 999} <= set(rows.tolist())
    assert 50 <= len(rows) <= 52
    assert np.array_equal(rows, np.unique(rows))
    rows, drawn = pictured(10, np.array([3]), 4000, np.random.default_rng(0))
    assert (rows.tolist(), drawn.all()) == (list(range(10)), True)


@pytest.mark.parametrize("projection", ["tsne", "pca"])
def test_projections_are_repeatable_and_keep_classes_apart(projection):
    selection = blobs()
    places = projected(selection.points, projection)
    assert np.array_equal(places, projected(selection.points, projection))
    one, two = places[selection.labels == 0], places[selection.labels == 1]
    assert np.linalg.norm(one.mean(axis=0) - two.mean(axis=0)) > max(one.std(), two.std())


def test_points_in_one_dimension_can_be_pictured():
    line = np.arange(20, dtype=np.float32)[:, None]
    assert projected(line, "pca")[:, 1].tolist() == [0.0] * 20
    assert projected(line, "tsne").shape == (20, 2)


def test_features_that_are_not_finite_are_refused():
    points = blobs().points.copy()
    points[7, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in point 7"):
        projected(points, "tsne")


def test_the_picture_marks_early_and_late_purchases_over_all_points():
    selection, figure = blobs(), Figure()
    draw_selection(figure, selection, selection.points[:, :2].astype(np.float64), "title")
    left, right = figure.axes
    assert [len(marks.get_offsets()) for marks in left.collections] == [60, 1, 3]
    assert [len(marks.get_offsets()) for marks in right.collections] == [60, 2]
    assert left.collections[2].get_offsets().tolist() == selection.points[1:4, :2].tolist()
    assert "early: 3 queries, 0 % of their neighbors of another class" in left.get_title(loc="left")
    assert {text.get_text() for text in left.texts} == {"one", "two"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "first set",
        "rounds 1 to 3",
        "rounds 4 to 5",
    ]
    light, dark = left.collections[0].get_facecolors()[0], left.collections[1].get_facecolors()[0]
    assert light[:3].min() > dark[:3].max() - 0.5
    assert light[:3].mean() > dark[:3].mean()


class Ears:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.news: list[str] = []
        self.epochs: list[tuple[int, int]] = []

    def say(self, news: str) -> None:
        self.news.append(news)

    def tell(self, news: str) -> None: ...

    def epoch(self, done: int, total: int) -> None:
        self.epochs.append((done, total))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A real run of two rounds on a pool of 200."""
    folder = tmp_path_factory.mktemp("real") / "run"
    played(folder, "strategy=margin", "featurizer=pixels")
    return folder


@pytest.mark.parametrize("space", ["pixels", "penultimate", "features", "full"])
def test_a_run_can_be_pictured_in_every_space(space, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene = opened(run_folder, "cpu", Deaf())
    rows = np.array([3, 0, 199])
    found = points(scene, space, rows)
    assert found.shape == (3, 64 if space in ("pixels", "features") else 32)
    assert np.array_equal(found, points(opened(run_folder, "cpu", Deaf()), space, rows))
    assert np.bincount(scene.rounds[scene.rounds >= 0]).tolist() == [20, 10, 10]
    if space == "pixels":
        stored = scene.data.inputs[rows].reshape(3, -1)
        assert np.array_equal(found, stored.astype(np.float32) / np.float32(255))


def test_training_for_a_picture_is_said_and_its_epochs_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vae = ["featurizer=vae", "featurizer.epochs=2", "featurizer.patience=null"]
    played(tmp_path / "run", "strategy=margin", *vae)  # which asks for no features
    watch = Ears()
    points(opened(tmp_path / "run", "cpu", watch), "features", np.arange(3))
    assert watch.news[0].startswith("features (vae): ")
    assert "to be made" in watch.news[0]
    assert watch.epochs == [(1, 2), (2, 2)]
    assert picture([str(tmp_path / "run"), "--space", "features", "--points", "60", "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert "features (vae): reused" in told.err
    assert told.out.count("\n") == 1


def test_where_there_are_no_rounds_no_bar_tells_of_them():
    text = StringIO()
    with Bars(Console(file=text, force_terminal=True), shown=True) as bars:
        bars.epoch(1, 2)
    assert "epochs" in text.getvalue()
    assert "rounds" not in text.getvalue()


def test_training_on_all_labels_shows_its_epochs(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watch = Ears()
    scene = opened(run_folder, "cpu", watch)
    forgetful = replace(scene.experiment, cache=Cache(None))
    points(replace(scene, experiment=forgetful), "full", np.arange(3))
    assert watch.epochs
    assert watch.epochs[-1][0] <= watch.epochs[-1][1]


def test_the_picture_is_drawn_from_an_embedding_file_and_repeats_byte_by_byte(
    run_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))
    for name in ("a.png", "b.png", "a.pdf", "b.pdf"):
        words = ["--space", "mine.npy", "--points", "60", "--device", "cpu", "--output", name]
        assert picture([str(run_folder), *words]) == 0
        assert capsys.readouterr().out.strip() == name
    for kind in ("png", "pdf"):
        assert Path(f"a.{kind}").read_bytes() == Path(f"b.{kind}").read_bytes()
    assert b"CreationDate" not in Path("a.pdf").read_bytes()


def test_the_picture_goes_to_the_figures_of_the_run(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert picture([str(run_folder), "--space", "pixels", "--projection", "pca"]) == 0
    assert (run_folder / "figures" / "selection-pixels.png").exists()
    assert picture([str(run_folder), "--output", "x.gif"]) == 2
    assert picture([str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "must end in .png or .pdf" in told[0]
    assert "no settings.yaml" in told[1]


def test_spaces_that_do_not_fit_are_refused(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene = opened(run_folder, "cpu", Deaf())
    np.save("short.npy", np.zeros((199, 4), np.float32))
    np.save("whole.npy", np.zeros((200, 4), np.int64))
    np.save("objects.npy", np.array([{}] * 200), allow_pickle=True)
    for space, message in (
        ("short.npy", "one vector for each of 200 pool rows"),
        ("whole.npy", "must hold floating numbers"),
        ("objects.npy", "cannot read"),
        ("none.npy", "cannot read"),
        ("pixel", "did you mean pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            points(scene, space, np.arange(3))


def test_another_pool_than_the_one_of_the_run_is_refused(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    told = json.loads((copy / "environment.json").read_text())
    told["data"]["inputs"] = "0" * 64
    (copy / "environment.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="the run's pool was another one"):
        opened(copy, "cpu", Deaf())


def test_a_run_without_a_model_says_so(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    shutil.rmtree(copy / "checkpoint")
    with pytest.raises(ValueError, match="holds no model"):
        points(opened(copy, "cpu", Deaf()), "penultimate", np.arange(3))
