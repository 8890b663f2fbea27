"""Runs of ASAL from end to end: after a kill, and judged by the classes of matches."""

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import settings
from rich.console import Console
from test_run import played

from alrun.agreement import agreement
from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.judging import Judge, Synthetic, given, synthetic
from alrun.report.agreements import Agreement, agreement_figure, agreement_table, class_averaged
from alrun.report.reading import UnreadableError, read_run, read_settings
from alrun.screen import Bars
from alrun.state import arrays_file, read_arrays

GENERATOR = ("generator.networks.width=2", "generator.iterations=2", "generator.batch_size=4")
WORDS = ("strategy=asal", "featurizer=pixels", "strategy.steps=3", *GENERATOR)
SMALL = ("tracker=none", "budget.initial=10", "budget.rounds=3", "trainer.epochs=4", "dataset.pool_size=100")
KILLS = (
    "import alrun.generative.search as s; deadly(s.LatentSearch, 'run', 2, False)",
    "import alrun.state as s; deadly(s.RunFolder, 'store', 1, False)",
)


def kept(folder: Path) -> dict[str, bytes]:
    """What a run has chosen, and its synthetic images."""
    (path,) = folder.glob("outputs/digits/*/*")
    files = [path / "selections.csv", path / "asal.csv", *sorted(path.glob("asal/*.npz"))]
    return {file.name: file.read_bytes() for file in files}


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_never_was(nursery, tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    words = (*WORDS, *SMALL, f"cache.dir={tmp_path / 'cache'}")
    codes = [nursery.run(tmp_path / "killed", *words, code=kill).returncode for kill in KILLS]
    assert codes == [-9] * len(KILLS)
    for name in ("whole", "killed"):
        done = nursery.run(tmp_path / name, *words)
        assert done.returncode == 0, done.output
    assert kept(tmp_path / "killed") == kept(tmp_path / "whole")
    assert list(kept(tmp_path / "whole"))[2:] == [f"round{number:03d}.npz" for number in (1, 2, 3)]


def test_shares_of_matches_are_averaged_over_the_classes_that_there_are():
    classes = np.array([0, 0, 0, 0, 2, 2])
    assert class_averaged(classes, np.array([0, 0, 0, 1, 2, 1]), 4) == pytest.approx((0.75 + 0.5) / 2)
    assert class_averaged(classes, classes, 3) == 1
    assert class_averaged(classes, np.array([1, 1, 1, 1, 1, 1]), 3) == 0
    with pytest.raises(ValueError, match="a synthetic image at least"):
        class_averaged(np.empty(0, np.int64), np.empty(0, np.int64), 3)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A run of two rounds of ten images."""
    folder = tmp_path_factory.mktemp("agreement") / "run"
    size = ("budget.initial=20", "budget.rounds=2", "dataset.pool_size=200", "trainer.epochs=60")
    experiment, _ = played(folder, *WORDS, *size, "trainer.patience=null")
    assert experiment.generator is not None
    return folder


def as_if_copied(folder: Path, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes synthetic images copies of pool rows, their matches rows that stand `shift` places later."""
    experiment = assemble({**read_run(folder).settings, "device": "cpu"})
    data = experiment.data()
    own = np.random.default_rng(0).permutation(len(data.labels))[:20]
    rows = np.roll(own, shift)
    for number, part in enumerate((slice(0, 10), slice(10, 20)), 1):
        arrays = {"images": data.inputs[own[part]], "rows": rows[part], "history": np.zeros(4)}
        np.savez_compressed(arrays_file(folder, "asal", number), **arrays)
    return data.labels[own], data.labels[rows]


def judge(labels: Path | None = None) -> Judge:
    return Judge("cpu", Bars(Console(), shown=False), labels)


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "agreement.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_reference_that_knows_the_pool_tells_copies_from_strangers(done, tmp_path, capsys):
    for shift in (0, 1):
        classes, labels = as_if_copied(done, shift)
        assert agreement([str(done), "--output", str(tmp_path), "--device", "cpu"]) == 0
        (line,) = lines(tmp_path)
        assert float(line["agreement_mean"]) == pytest.approx(class_averaged(classes, labels, 10), abs=0.06)
        assert (line["images"], line["seeds"], line["dataset"]) == ("20", "1", "digits")
        assert 0.3 < float(line["reference_accuracy"]) <= 1
        assert (tmp_path / "agreement.png").exists()
    kept = Path(read_settings(done / "settings.yaml")["cache"]["dir"])
    assert len(list((kept / "reference").glob("*/reference.pt"))) == 1
    assert "agreement.csv" in capsys.readouterr().out


def test_labels_by_hand_replace_the_reference(done, tmp_path):
    classes, labels = as_if_copied(done, 3)
    file = tmp_path / "labels.csv"
    told = [f"{1 + place // 10},{place % 10},{each}" for place, each in enumerate(classes)]
    file.write_text("\n".join(["round,image,label", *told]))
    run = read_run(done)
    images, value, reference = judge(file).of(run)
    assert (images, value) == (20, class_averaged(classes, labels, 10))
    assert np.isnan(reference)
    file.write_text("\n".join(["round,image,label", *told[5:12]]))
    assert judge(file).of(run)[:2] == (7, class_averaged(classes[5:12], labels[5:12], 10))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("round,image\n1,0\n", "the column label"),
        ("round,image,label\n1,zero,a\n", "numbers round and image"),
        ("round,image,label\n1,7,a\n", "line 2: image 7 of round 1 is not in the run"),
        ("round,image,label\n1,0,a\n1,0,b\n", "line 3: image 0 of round 1 is named twice"),
        ("round,image,label\n1,0,c\n", "no class 'c'; the classes are a, b"),
        ("round,image,label\n1,0,2\n", "no class '2'"),
        ("round,image,label\n", "names no image"),
    ],
)
def test_labels_that_cannot_be_read_are_told(text, error, tmp_path):
    images = Synthetic(np.zeros((2, 3)), np.array([1, 1]), np.array([0, 1]), np.array([5, 6]))
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=error):
        given(tmp_path / "labels.csv", images, ("a", "b"))


def test_names_and_numbers_of_classes_are_understood(tmp_path):
    images = Synthetic(np.zeros((3, 3)), np.array([1, 1, 2]), np.array([0, 1, 0]), np.array([5, 6, 7]))
    (tmp_path / "labels.csv").write_text("image,label,round\n0,b,2\n0,0,1\n")
    assert given(tmp_path / "labels.csv", images, ("a", "b")).tolist() == [0, -1, 1]


def test_runs_without_synthetic_images_are_told(done, tmp_path, capsys):
    played(tmp_path / "other", "strategy=random", "dataset.pool_size=200")
    assert agreement([str(tmp_path / "other")]) == 2
    assert "no run with synthetic images found" in capsys.readouterr().err
    as_if_copied(done, 0)
    file = arrays_file(done, "asal", 2)
    assert [number for number, _ in read_arrays(done, "asal", 2)] == [1]  # a round that is not whole
    file.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UnreadableError, match=r"round002\.npz: cannot be read"):
        synthetic(read_run(done))
    assert agreement([str(done)]) == 2
    assert "no run can be judged" in capsys.readouterr().err
    as_if_copied(done, 0)


def test_bars_are_colored_by_generator_and_named_by_feature_map():
    found = [
        Agreement("mnist", f"asal {word}", made, word, 1300, np.array([0.9, 0.8]) - place / 10, 0.99)
        for place, (made, word) in enumerate([("dcgan", "pixels"), ("dcgan", "vae"), ("wgan_gp", "pixels")])
    ]
    (axes,) = agreement_figure(found).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        *("pixels, dcgan", "vae, dcgan", "pixels, wgan_gp")
    ]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([85, 75, 65])
    colors = [bar.get_facecolor() for bar in axes.patches]
    assert colors[0] == colors[1] != colors[2]
    table = agreement_table(found)
    assert list(table.columns[-2].cells)[0] == "85.0 ± 7.1"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("strategy=asal", "featurizer=pca"), "featurizer: asal needs features of synthetic images, and pca"),
        (("strategy=asal", "generator=none"), "generator: asal needs a generator"),
        (("strategy=asal_neighbors", "strategy.first_size=50"), "first_size: asal says itself how many"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_any_work(words, error):
    with pytest.raises(ConfigError, match=error):
        assemble(settings("tracker=none", *words))
