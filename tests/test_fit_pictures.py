"""Pictures of what fits went through, from what runs wrote down: contents, names of trainers, bad input."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from test_report import made, run_settings

from alrun.journal import EPOCHS, PSEUDO
from alrun.picture import picture
from alrun.pool import Inputs
from alrun.report.aggregating import panels
from alrun.report.epochs import FILE, FOLDER, Kept, by_trainer, over_budgets, read_epochs, read_kept, titles
from alrun.report.epochs_picture import draw_epochs, draw_pseudo_accuracy, errors
from alrun.report.pseudo_picture import RIGHT, WRONG, draw_weights, draw_wrong
from alrun.report.reading import UnreadableError, read, read_run

OTHER = "label_propagation"


def trained(name: str, *, seed: int = 0, labels: int = 10, rounds: int = 0, **further) -> dict:
    """Settings of a run with this trainer and so many labels at first."""
    trainer = {"_target_": f"training.{name}", "epochs": 4}
    budget = {"_target_": "alrun.budget.Budget", "initial": labels, "rounds": rounds, "sizes": None}
    choices = {"trainer": name}
    return run_settings("random", seed=seed, trainer=trainer, budget=budget, choices=choices, **further)


def line(epoch: int, error: float | None, accuracy: float | None = None, number: int = 0) -> dict:
    stage = "supervised" if epoch <= 2 else "semi_supervised"
    told = {"round": number, "epoch": epoch, "stage": stage, "loss": 0.5}
    told |= {"test_accuracy": "" if error is None else 1 - error / 100, "network_accuracy": ""}
    weights = ("", "") if accuracy is None else (0.8, 0.2)
    names = ("pseudo_accuracy", "pseudo_right_weight", "pseudo_wrong_weight")
    return told | dict(zip(names, ("" if accuracy is None else accuracy, *weights), strict=True))


def shown(folder: Path, *lines: dict, settings: dict) -> Path:
    """A run folder of one round (10 labels, 70 %) with these epochs."""
    made(folder, [0.7], settings=settings)
    with (folder / "epochs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return folder


def kept(folder: Path, number: int, epoch: int, labels, truth, weights) -> None:
    parts = {"labels": np.array(labels), "truth": np.array(truth), "weights": np.array(weights, np.float32)}
    (folder / "pseudo").mkdir(exist_ok=True)
    file = folder / "pseudo" / f"round{number:03d}_epoch{epoch:04d}.npz"
    np.savez_compressed(file, rows=np.arange(len(labels)), **parts)


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Label propagation with two seeds, whose error rises after stage 1, and a supervised run."""
    dips = {seed: [60.0, 40.0, 46.0 + 2 * seed, None, 20.0 + 2 * seed] for seed in (0, 1)}
    for seed, dip in dips.items():
        lines = [
            line(epoch, error, 0.5 + 0.1 * epoch if epoch in (2, 3, 4) else None)
            for epoch, error in enumerate(dip, 1)
        ]
        shown(tmp_path / f"lp{seed}", *lines, settings=trained(OTHER, seed=seed))
        kept(tmp_path / f"lp{seed}", 0, 2, [0, 1, 1], [0, 1, 0], [0.9, 0.5, 0.4])
        kept(tmp_path / f"lp{seed}", 0, 4, [0, 1, 1], [0, 1, 1], [0.9, 0.5, 0.4])
    made(tmp_path / "supervised", [0.6], settings=trained("supervised"))
    return [tmp_path / "lp0", tmp_path / "lp1", tmp_path / "supervised"]


def drawn_epochs(folders: list[Path]) -> Figure:
    methods = by_trainer([read_run(folder) for folder in folders])
    watched = {each: [read_epochs(run.folder) for run in each.runs] for each in methods[:1]}
    figure = Figure()
    draw_epochs(figure, watched, {methods[1]: 40.0}, "title")
    return figure


def curves(axes) -> dict:
    return {each.get_label(): each for each in axes.get_lines() if not each.get_label().startswith("_")}


def test_errors_over_epochs_are_means_over_seeds_and_the_rise_after_stage_1_is_told(folders):
    whole, near = drawn_epochs(folders).axes
    curve = curves(whole)[OTHER]
    assert curve.get_xdata().tolist() == [1, 2, 3, 5]
    assert curve.get_ydata() == pytest.approx([60, 40, 47, 21])
    assert curves(whole)["supervised (last epoch)"].get_ydata()[0] == 40
    upright = [each.get_xdata()[0] for each in whole.get_lines() if len(set(each.get_xdata())) == 1]
    assert upright == [2.5]
    (band,) = whole.collections
    corners = band.get_paths()[0].vertices
    last = corners[corners[:, 0] == 5, 1]
    assert [last.min(), last.max()] == pytest.approx([21 - 2**0.5, 21 + 2**0.5])
    assert near.texts[0].get_text() == "label_propagation rises from 40.0 to 47.0 % (epoch 3)"


def test_a_single_run_has_no_band_and_a_fit_without_a_second_stage_one_panel(folders, tmp_path):
    plain = shown(tmp_path / "one", line(1, 50.0), line(2, 40.0), settings=trained("supervised"))
    (method,) = by_trainer([read_run(plain)])
    figure = Figure()
    draw_epochs(figure, {method: [read_epochs(plain)]}, {}, "title")
    (axes,) = figure.axes
    assert not axes.collections
    assert axes.texts[0].get_text() == "supervised ends at 40.0 %"


def test_pseudo_labels_and_weights_stand_side_by_side(folders):
    (method,) = by_trainer([read_run(folder) for folder in folders[:2]])
    figure = Figure()
    draw_pseudo_accuracy(figure, {method: [read_epochs(run.folder) for run in method.runs]}, "title")
    left, right = figure.axes
    assert curves(left)[OTHER].get_xdata().tolist() == [2, 3, 4]
    assert curves(left)[OTHER].get_ydata() == pytest.approx([70, 80, 90])
    assert sorted(float(each.get_ydata()[0]) for each in right.get_lines()) == pytest.approx([0.2, 0.8])
    assert left.texts[0].get_text() == "label_propagation from 70.0 to 90.0 %"


def test_weights_are_split_into_right_and_wrong(folders):
    figure = Figure()
    draw_weights(figure, {"one": read_kept(folders[0]), "two": read_kept(folders[1])[:1]}, "title")
    assert len(figure.axes) == 3
    first, second = figure.axes[:2]
    assert first.get_title(loc="left") == "after epoch 2: 66.7 % right"
    assert first.texts[0].get_text() == "mean weight 0.70 right, 0.40 wrong"
    assert second.texts[0].get_text() == "mean weight 0.60 right"

    def counts(axes) -> list[int]:
        bars = [(each.get_facecolor()[:3], each.get_height()) for each in axes.patches]
        return [int(sum(high for color, high in bars if color == to_rgb(own))) for own in (RIGHT, WRONG)]

    assert (counts(first), counts(second)) == ([2, 1], [3, 0])


def test_the_heaviest_wrong_pseudo_labels_come_first_and_weightless_ones_never():
    items = np.zeros((6, 4, 4), np.float32)
    items[:, 0, 0] = np.arange(6) / 10
    items[5, 1, 1] = 1
    labels, truth = np.array([1, 1, 0, 1, 1, 0]), np.array([0, 0, 0, 0, 0, 1])
    weights = np.array([0.3, 0.9, 1.0, 0.0, 0.9, 0.5], np.float32)
    found = Kept(0, 7, np.arange(6), labels, weights, truth)
    figure = Figure()
    draw_wrong(figure, Inputs(items), found, ("cat", "automobile_long"), "title")
    (axes,) = figure.axes
    corners = [float(np.asarray(image.get_array())[0, 0]) for image in axes.images]
    assert corners == pytest.approx([0.1, 0.4, 0.5, 0.0])
    words = [text.get_text() for text in axes.texts]
    assert words[1:] == [
        "cat →\nautomobil… 0.90",
        "cat →\nautomobil… 0.90",
        "automobil… →\ncat 0.50",
        "cat →\nautomobil… 0.30",
    ]
    short = Figure()
    draw_wrong(short, Inputs(items), found, ("cat", "dog"), "title")
    assert short.axes[0].texts[1].get_text() == "cat → dog\n0.90"
    right = Kept(0, 7, np.arange(6), truth, weights, truth)
    with pytest.raises(ValueError, match="after epoch 7 no pseudo-label with a weight is wrong"):
        draw_wrong(Figure(), Inputs(items), right, ("cat", "dog"), "title")
    with pytest.raises(ValueError, match=r"items of shape \(9,\) are no images"):
        draw_wrong(Figure(), Inputs(np.zeros((6, 9), np.float32)), found, ("cat", "dog"), "title")


def test_what_the_journal_writes_is_read_under_its_name():
    assert (f"{EPOCHS}.csv", PSEUDO) == (FILE, FOLDER)


def test_trainers_are_named_by_what_tells_them_apart():
    one, two = trained(OTHER), trained("supervised")
    assert titles([one]) == [OTHER]
    assert titles([one, two]) == [OTHER, "supervised"]
    more = {**one, "trainer": {**one["trainer"], "epochs": 9}}
    assert titles([one, more]) == ["epochs=4", "epochs=9"]
    other = run_settings("margin", trainer=one["trainer"], budget=one["budget"], choices={"trainer": OTHER})
    assert titles([one, other]) == ["random", "margin"]


def test_runs_that_differ_in_labels_are_one_line(tmp_path):
    for labels, seed, accuracy in ((10, 0, 0.5), (10, 1, 0.7), (40, 0, 0.8)):
        settings = trained(OTHER, seed=seed, labels=labels)
        made(tmp_path / f"{labels}-{seed}", [accuracy], settings=settings, labeled=[labels])
    grouped = panels(read([tmp_path]).runs)
    assert len(grouped[0].methods) == 2
    (joined,) = over_budgets(grouped)
    (method,) = joined.methods
    assert (method.name, method.strategy) == (OTHER, OTHER)
    found = errors(method)
    assert found.across.tolist() == [10, 40]
    assert found.mean == pytest.approx([40, 20])
    assert found.std[0] == pytest.approx(200**0.5)
    assert np.isnan(found.std[1])
    assert over_budgets(panels([read_run(tmp_path / "10-0"), read_run(tmp_path / "10-1")])) == ()


def test_the_verb_draws_each_kind_and_a_chosen_round(folders, tmp_path, capsys):
    words = list(map(str, folders))
    for kind, own in (("epochs", words), ("pseudo", words[:2]), ("weights", words[:2])):
        assert picture([*own, "--kind", kind]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out.strip() == str(folders[0] / "figures" / f"{kind}.png")
    assert picture([*words, "--kind", "epochs", "--round", "0", "--output", str(tmp_path / "x.pdf")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lp0", "--kind", "epochs", "--round", "3"], "holds no round 3; it has 0"),
        (["lp0", "--kind", "weights", "--round", "3"], "holds no round 3; it has 0"),
        (["supervised", "--kind", "epochs"], "its trainer shows no epochs (no epochs.csv)"),
        (["supervised", "--kind", "weights"], "no pseudo-labels were kept"),
        (["lp0", "supervised", "--kind", "pseudo"], "its trainer shows no epochs"),
        (["lp0", "lp1", "--kind", "wrong"], "--kind wrong: is of one run, got 2; choose weights"),
        (["lp0", "--kind", "wrong", "--epoch", "3"], "--epoch: 2, 4 were kept, got 3"),
    ],
)
def test_what_was_not_written_down_is_said(words, message, folders, monkeypatch, capsys):
    monkeypatch.chdir(folders[0].parent)
    assert picture(words) == 2
    assert message in capsys.readouterr().err


def test_trainers_on_several_data_sets_are_refused(folders, tmp_path, monkeypatch, capsys):
    elsewhere = {**trained(OTHER), "choices": {"dataset": "mnist", "strategy": "random", "trainer": OTHER}}
    shown(tmp_path / "mnist", line(1, 3.0), settings=elsewhere)
    assert picture([str(folders[0]), str(tmp_path / "mnist"), "--kind", "epochs"]) == 2
    assert "must be on one data set, got digits, mnist" in capsys.readouterr().err


def test_damaged_files_are_refused(folders):
    file = folders[0] / "epochs.csv"
    file.write_text(file.read_text().replace("0.5", "half", 1))
    with pytest.raises(UnreadableError, match="cannot be read as epochs"):
        read_epochs(folders[0])
    (folders[0] / "pseudo" / "round000_epoch0004.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UnreadableError, match="cannot be read as pseudo-labels"):
        read_kept(folders[0])
    np.save(folders[1] / "pseudo" / "plain.npy", np.zeros(3))
    (folders[1] / "pseudo" / "plain.npy").rename(folders[1] / "pseudo" / "round000_epochs.npz")
    with pytest.raises(UnreadableError, match="not named"):
        read_kept(folders[1])


def test_a_course_with_which_another_begins_is_seen_around_it(tmp_path):
    first = (line(1, 50.0), line(2, 40.0))
    folders = [
        shown(tmp_path / "short", *first, settings=trained("mean_teacher")),
        shown(tmp_path / "long", *first, line(3, 30.0), settings=trained("mean_teacher_label_propagation")),
    ]
    watched = {
        method: [read_epochs(method.all[0].folder)] for method in by_trainer(list(map(read_run, folders)))
    }
    figure = Figure()
    draw_epochs(figure, watched, {}, "title")
    widths = {name: each.get_linewidth() for name, each in curves(figure.axes[0]).items()}
    assert widths["mean_teacher"] > 2 * widths["mean_teacher_label_propagation"]
