"""Synthetic items in the run folder: what is the truth, what is for the eye, and what survives a kill."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alrun.config import ConfigError
from alrun.inputs import Inputs
from alrun.pool import Pool
from alrun.purchase import Purchase
from alrun.synthetic import drop_after, items_file, keep, kept, selected

RNG = np.random.default_rng(0)


class Nobody:
    """Has no opinion."""

    def label(self, items):
        return np.zeros(len(items), np.int64)

    divide = label


def purchase(items: np.ndarray) -> Purchase:
    """Of these items, added to a pool of ten."""
    pool = Pool(Inputs(np.zeros((10, *items.shape[1:]), items.dtype)), np.full(10, -1, np.int64), 2)
    found = Purchase(len(items), lambda rows: np.zeros(len(rows), np.int64), Nobody())
    found.add(pool, items)
    return found


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (3, 4, 6)])
def test_uint8_images_come_back_bit_for_bit_from_both_kinds_of_files(shape, tmp_path):
    items = RNG.integers(0, 256, (3, *shape), dtype=np.uint8)
    mark = keep(tmp_path, 3, purchase(items))
    np.testing.assert_array_equal(kept(tmp_path, 3, mark), items)
    for row, item in zip((10, 11, 12), items, strict=True):
        shown = np.asarray(Image.open(tmp_path / "synthetic" / "round-003" / f"{row}.png"))
        np.testing.assert_array_equal(
            shown, np.moveaxis(item, 0, -1) if shape[0] == 3 else item.reshape(4, 6)
        )


def test_floats_are_kept_exactly_and_shown_in_256_levels(tmp_path):
    items = RNG.random((2, 4, 6)).astype(np.float32)
    mark = keep(tmp_path, 1, purchase(items))
    np.testing.assert_array_equal(kept(tmp_path, 1, mark), items)
    shown = np.asarray(Image.open(tmp_path / "synthetic" / "round-001" / "10.png"))
    np.testing.assert_allclose(shown / 255, items[0], atol=0.5 / 255 + 1e-6)


def test_items_that_are_no_images_have_one_file(tmp_path):
    mark = keep(tmp_path, 1, purchase(RNG.random((2, 5)).astype(np.float32)))
    bought = {"rows": [3, 10, 11], "labels": [0, 1, 1], "scores": [0.0, 1.0, 2.0], "synthetic": mark}
    assert [line["file"] for line in selected(1, bought)] == ["", *["synthetic/round-001.npy"] * 2]
    assert not items_file(tmp_path, 1).with_suffix("").exists()


def test_a_round_that_adds_nothing_leaves_nothing(tmp_path):
    plain = Purchase(2, lambda rows: rows)
    assert keep(tmp_path, 1, plain) == {}
    assert list(tmp_path.iterdir()) == []
    bought = {"rows": [3], "labels": [0], "scores": [""]}
    assert list(selected(0, bought)) == [{"round": 0, "rank": 0, "row": 3, "label": 0, "score": ""}]


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_damaged_items_are_never_learned_from(harm, tmp_path):
    mark = keep(tmp_path, 2, purchase(RNG.random((2, 4, 6)).astype(np.float32)))
    file = items_file(tmp_path, 2)
    if harm == "missing":
        file.unlink()
    else:
        np.save(file, np.load(file) + 1)
    with pytest.raises(ConfigError, match="round-002.npy: cannot be read .* restore it or delete"):
        kept(tmp_path, 2, mark)


def test_what_a_broken_round_left_is_deleted_and_whole_rounds_stay(tmp_path):
    for number in (1, 2, 3):
        keep(tmp_path, number, purchase(RNG.random((2, 4, 6)).astype(np.float32)))
    items_file(tmp_path, 3).unlink()  # killed between the images and the items
    drop_after(tmp_path, 1)
    names = sorted(path.name for path in (tmp_path / "synthetic").iterdir())
    assert names == ["round-001", "round-001.npy"]
    drop_after(tmp_path / "elsewhere", 0)


SMALL = [
    *("tracker=none", "dataset=digits", "dataset.classes=[3,5]", "dataset.pool_size=100"),
    *("generator=dcgan", "generator.iterations=2", "generator.networks.width=4", "oracle.noise=0.2"),
    *("budget.initial=10", "budget.rounds=3", "budget.per_round=3", "trainer.epochs=3", "cache.dir=../cache"),
]
COMMANDS = {
    "gaal": ["strategy=gaal", "strategy.steps=3", "model=linear", *SMALL],
    "adba": ["strategy=adba", "featurizer.epochs=1", "featurizer.width=4", "oracle.model.hidden=[8]", *SMALL],
}
KILLS = {
    "gaal": (
        "deadly(alrun.synthetic.Image.Image, 'save', 2, True)",
        "deadly(alrun.state.RunFolder, 'commit', 2, True)",
    ),
    "adba": ("deadly(alrun.state.RunFolder, 'commit', 3, True)",),
}
LOAD = "import alrun.state, alrun.synthetic\n"


def results(folder: Path) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """The lines of rounds.csv but for seconds and memory, and all other records and images to the byte."""
    (path,) = folder.glob("outputs/digits/*/*")
    with (path / "rounds.csv").open() as file:
        lines = [
            {key: value for key, value in line.items() if not key.endswith(("_seconds", "_mb"))}
            for line in csv.DictReader(file)
        ]
    files = [path / "selections.csv", *path.glob("synthetic/**/*.*")]
    return lines, {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize("strategy", COMMANDS)
def test_a_broken_run_goes_on_as_if_it_never_was_broken(strategy, nursery, tmp_path):
    command = COMMANDS[strategy]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    done = nursery.run(tmp_path / "whole", *command)
    assert done.returncode == 0, done.output
    for kill in KILLS[strategy]:
        ended = nursery.run(tmp_path / "killed", *command, code=LOAD + kill)
        assert ended.returncode == -9, ended.output
    done = nursery.run(tmp_path / "killed", *command)
    assert done.returncode == 0, done.output
    lines, files = results(tmp_path / "whole")
    assert results(tmp_path / "killed") == (lines, files)
    assert [line["labeled"] for line in lines] == ["10", "13", "16", "19"]
    images = [str(10 + 11 * bought) for bought in (3, 6, 9)]
    assert [line.get("images", "") for line in lines] == ["", *(images if strategy == "adba" else [""] * 3)]
    assert all(0.5 <= float(line["oracle_confidence"]) <= 1 for line in lines[1:])
    named = {line["file"] for line in csv.DictReader(files["selections.csv"].decode().splitlines())}
    assert named - {""} == {name for name in files if name.endswith(".png")}
    assert sum(name.endswith(".npy") for name in files) == 3
