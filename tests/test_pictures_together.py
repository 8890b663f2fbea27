"""Several runs in one picture: their first purchases in one map, and the images that they bought."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_objective import POOL, bought, chosen

from alrun.picture import picture
from alrun.pool import Inputs
from alrun.report.image_grid import draw_images, lines
from alrun.report.purchases import Purchases, read_purchases
from alrun.report.reading import UnreadableError
from alrun.report.rounds_picture import Map, draw_rounds
from alrun.shelf import Deaf
from alrun.spaces import together


def purchases(*rounds: tuple[int, list[int], list[int]]) -> Purchases:
    """Round, rows and answers of each purchase."""
    numbers = [number for number, rows, _ in rounds for _ in rows]
    rows, answers = ([each for one in rounds for each in one[place]] for place in (1, 2))
    return Purchases(*np.array([numbers, rows, answers], np.int64))


FIRST = purchases((1, [7, 2], [0, 1]), (2, [5, 9], [1, 1]), (3, [3], [2]))
OTHER = purchases((0, [1], [0]), (1, [0], [2]))


def ground() -> Map:
    rows = np.arange(10)
    places = np.stack([rows, rows**2], axis=1).astype(np.float64)
    return Map(rows, places, rows % 3, ("cat", "dog", "deer"))


def test_purchases_are_read_in_their_order(tmp_path):
    text = "round,rank,row,label,score\n1,1,7,0,0.5\n0,0,4,1,\n1,0,2,1,0.9\n"
    (tmp_path / "selections.csv").write_text(text)
    found = read_purchases(tmp_path, 8)
    assert (found.rows.tolist(), found.answers.tolist(), found.numbers) == ([4, 2, 7], [1, 1, 0], [0, 1])
    assert found.of(1).rows.tolist() == [2, 7]
    assert read_purchases(tmp_path, 8).of(2).rows.tolist() == []
    for total, change, message in (
        (7, ("", ""), "row 7 of a pool of 7"),
        (8, ("1,0,2", "1,0,4"), "bought twice"),
        (8, ("1,0,2", "1,0,x"), "cannot be read as purchases"),
        (8, ("rank", "rang"), "cannot be read as purchases"),
    ):
        (tmp_path / "selections.csv").write_text(text.replace(*change))
        with pytest.raises(UnreadableError, match=message):
            read_purchases(tmp_path, total)


def test_the_first_purchases_stand_side_by_side_in_one_map():
    figure = Figure()
    draw_rounds(figure, ground(), {"ours": FIRST, "theirs": OTHER}, 2, "title")
    panels = np.reshape(figure.axes, (2, 2))
    titles = [axes.get_title(loc="left") for axes in panels.ravel()]
    assert titles == [
        "ours\nround 1: 2 labels, 2 of 3 classes",
        "theirs\nround 0: 1 labels, 1 of 3 classes",
        "round 2: 4 labels, 2 of 3 classes",
        "round 1: 2 labels, 2 of 3 classes",
    ]
    pool, old, new = (each.get_offsets().tolist() for each in panels[1, 0].collections)
    assert len(pool) == 10
    assert (old, new) == ([[7, 49], [2, 4]], [[5, 25], [9, 81]])
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["bought in this round", "bought before", "cat", "dog", "deer"]
    with pytest.raises(ValueError, match="bought nothing yet"):
        draw_rounds(Figure(), ground(), {"none": purchases()}, 2, "title")


def test_lines_of_images_tell_rounds_and_classes_covered():
    assert [(line.before, line.rows, line.behind) for line in lines(FIRST, 2, 3)] == [
        ("round 1", (7, 2), "2 of 3 classes"),
        ("round 2", (5, 9), "2 of 3 classes"),
    ]
    assert [line.behind for line in lines(FIRST, 9, 3)][-1] == "3 of 3 classes"
    large = purchases((1, list(range(70)), [0] * 70))
    found = lines(large, 1, 3)
    assert [len(line.rows) for line in found] == [20, 20, 20]
    assert [line.before for line in found] == ["round 1", "", ""]
    assert [line.behind for line in found] == ["", "", "10 more; 1 of 3 classes"]


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5), (4, 4, 5)])
def test_bought_images_are_shown_in_their_order_above_their_classes(shape):
    items = np.random.default_rng(0).integers(0, 256, (10, *shape)).astype(np.uint8)
    items[7].ravel()[:2] = 0, 255
    figure = Figure()
    draw_images(
        figure, Inputs(items), ("cat", "dog", "a_very_long_name"), {"ours": FIRST, "theirs": OTHER}, 9
    )
    (axes,) = figure.axes
    assert len(axes.images) == 7
    shown = np.asarray(axes.images[2].get_array())
    expected = (
        items[5] if len(shape) == 2 else items[5, 0] if shape[0] == 1 else np.moveaxis(items[5, :3], 0, -1)
    )
    assert shown == pytest.approx(expected / 255, abs=1e-6)
    tops = [image.get_extent()[3] for image in axes.images]
    lefts = [image.get_extent()[0] for image in axes.images]
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4] < tops[5] < tops[6]
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]
    words = [(text.get_text(), text.get_fontweight()) for text in axes.texts]
    assert words[0] == ("ours", "bold")
    assert words.count(("dog", "bold")) == 1
    assert words.count(("dog", "normal")) == 2
    assert ("a_very_lo…", "bold") in words


def test_images_of_any_range_are_told_apart():
    items = np.linspace(-2, 14, 10 * 9, dtype=np.float32).reshape(10, 3, 3)
    figure = Figure()
    draw_images(figure, Inputs(items), ("cat", "dog", "deer"), {"ours": FIRST}, 9)
    shown = np.concatenate([np.asarray(image.get_array()).ravel() for image in figure.axes[0].images])
    assert 0 <= shown.min() < 0.35
    assert shown.max() == 1
    draw_images(Figure(), Inputs(np.zeros((10, 3, 3), np.float32)), ("a", "b", "c"), {"ours": FIRST}, 1)


def test_items_that_are_no_images_and_runs_without_purchases_are_refused():
    with pytest.raises(ValueError, match=r"items of shape \(7,\) are no images; choose --kind rounds"):
        draw_images(Figure(), Inputs(np.zeros((10, 7), np.float32)), ("a", "b", "c"), {"ours": FIRST}, 9)
    with pytest.raises(ValueError, match="bought nothing yet"):
        draw_images(Figure(), Inputs(np.zeros((10, 7, 7), np.float32)), ("a",), {"ours": purchases()}, 9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    """Two runs on one pool, and one of another seed, whose pool is another."""
    folder = tmp_path_factory.mktemp("runs")
    words = ("strategy=coreset", "featurizer=pixels")
    return [
        str(bought(folder / "random", chosen(0), "strategy=random")),
        str(bought(folder / "coreset", chosen(1), *words)),
        str(bought(folder / "elsewhere", chosen(2), *words, "seed=1")),
    ]


def test_runs_on_one_pool_are_opened_together(folders, tmp_path):
    scene, found = together([Path(folder) for folder in folders[:2]], "cpu", Deaf())
    assert list(found) == ["random", "coreset"]
    assert found["coreset"].rows.tolist() == chosen(1).tolist()
    assert len(scene.data.labels) == POOL
    with pytest.raises(ValueError, match="must share their pool, .*elsewhere and .*random do not"):
        together([Path(folder) for folder in (folders[0], folders[2])], "cpu", Deaf())
    shutil.copytree(folders[0], tmp_path / "twin")
    settings = tmp_path / "twin" / "settings.yaml"
    settings.write_text(settings.read_text().replace("\nseed: 0\n", "\nseed: 5\n"))
    _, twins = together([Path(folders[0]), tmp_path / "twin"], "cpu", Deaf())
    assert list(twins) == ["random, seed 0", "random, seed 5"]


def test_the_verb_draws_several_runs_in_the_space_that_they_select_in(folders, capsys):
    assert picture([*folders[:2], "--points", "40", "--device", "cpu", "--projection", "pca"]) == 0
    assert capsys.readouterr().out.strip() == str(Path(folders[0]) / "figures" / "rounds-pixels.png")
    assert picture([*folders[:2], "--kind", "images", "--output", f"{folders[0]}/all.pdf"]) == 0
    assert Path(f"{folders[0]}/all.pdf").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "selection"], "--kind selection: is of one run, got 2"),
        (["--purchases", "0"], "--purchases: must be at least 1, got 0"),
        (["--space", "penultimate"], "must be made without a model, penultimate is not"),
        (["--space", "full"], "no space full"),
    ],
)
def test_what_cannot_be_drawn_of_several_runs_is_refused(words, message, folders, capsys):
    assert picture([*folders[:2], *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_fixed_features_asks_for_a_space(folders, capsys):
    assert picture([folders[0], "--kind", "rounds"]) == 2
    assert "choose one with --space" in capsys.readouterr().err
