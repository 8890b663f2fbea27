"""Mini-ImageNet from small folders of real JPEG and PNG files, in each layout."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import chance

from alrun.config import content_digest
from alrun.data import image_files
from alrun.data.bundled import Digits
from alrun.data.data import Data
from alrun.data.mini_imagenet import MiniImagenet
from alrun.data.split import write_split

SIDE = 12
NAMES = ("n01", "n02", "n03")


def picture(path: Path, seed: int, size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folders(root: Path, each: int = 6, parts: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """Three classes, one under each part; JPEG and PNG files."""
    for c, name in enumerate(NAMES):
        for i in range(each):
            picture(root / parts[c] / name / f"{name}_{i}.{'png' if i % 2 else 'jpg'}", 100 * c + i)
    return root


def tables(root: Path, each: int = 6) -> Path:
    """The same images as `folders` makes, by lists."""
    for c, (name, part) in enumerate(zip(NAMES, ("train", "val", "test"), strict=True)):
        files = [f"{name}_{i}.{'png' if i % 2 else 'jpg'}" for i in range(each)]
        for i, file in enumerate(files):
            picture(root / "images" / file, 100 * c + i)
        with (root / f"{part}.csv").open("w", newline="") as text:
            csv.writer(text).writerows([("filename", "label"), *((file, name) for file in files)])
    return root


def mini(path: Path | None, **settings) -> MiniImagenet:
    given = {"image_size": SIDE, "train_per_class": 4, "test_per_class": None, "split_seed": 0}
    rest = {"classes": None, "pool_size": None, "balanced": False}
    return MiniImagenet(None if path is None else str(path), **{**given, **rest, **settings})


def loaded(path: Path | None, data_dir: Path, **settings) -> Data:
    return mini(path, **settings).load(data_dir, chance())


def test_every_row_is_the_image_of_its_file_and_carries_its_class(tmp_path):
    data = loaded(folders(tmp_path / "mini"), tmp_path)
    assert (data.inputs.shape, data.test_inputs.shape) == ((12, 3, SIDE, SIDE), (6, 3, SIDE, SIDE))
    assert data.inputs.dtype == np.uint8
    for inputs, labels, files in (
        (data.inputs, data.labels, data.files),
        (data.test_inputs, data.test_labels, data.test_files),
    ):
        for image, label, file in zip(inputs, labels, files, strict=True):
            with Image.open(tmp_path / "mini" / file) as stored:
                expected = np.asarray(stored.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            assert np.array_equal(image, expected.transpose(2, 0, 1))
            assert Path(file).parent.name == data.class_names[label]


def test_each_class_is_divided_into_pool_and_test_without_a_file_in_both(tmp_path):
    data = loaded(folders(tmp_path / "mini"), tmp_path)
    assert np.bincount(data.labels).tolist() == [4, 4, 4]
    assert np.bincount(data.test_labels).tolist() == [2, 2, 2]
    assert len(np.union1d(data.files, data.test_files)) == 18


@pytest.mark.parametrize("make", [lambda root: folders(root, parts=("", "", "")), tables])
def test_all_layouts_give_the_same_rows(make, tmp_path):
    one = loaded(folders(tmp_path / "one"), tmp_path / "data")
    other = loaded(make(tmp_path / "other"), tmp_path / "data")
    assert [Path(file).name for file in one.files] == [Path(file).name for file in other.files]
    assert np.array_equal(one.inputs, other.inputs)
    assert np.array_equal(one.test_labels, other.test_labels)


def test_the_split_follows_its_own_seed_and_a_smaller_test_set_leaves_the_pool_alone(tmp_path):
    root = folders(tmp_path / "mini")
    data = loaded(root, tmp_path)
    other_run = mini(root).load(tmp_path, chance(5))
    assert np.array_equal(data.files, other_run.files)
    assert set(loaded(root, tmp_path, split_seed=1).test_files) != set(data.test_files)
    less = loaded(root, tmp_path, test_per_class=1)
    assert np.array_equal(less.files, data.files)
    assert np.bincount(less.test_labels).tolist() == [1, 1, 1]
    assert set(less.test_files) < set(data.test_files)


def test_rows_are_not_in_the_order_of_classes(tmp_path):
    data = loaded(folders(tmp_path / "mini"), tmp_path)
    turns = np.arange(12) % 3
    assert not np.array_equal(data.labels, np.sort(data.labels))
    assert not np.array_equal(data.labels, turns)


def test_the_middle_square_is_taken_and_odd_color_modes_become_rgb(tmp_path):
    root = folders(tmp_path / "mini")
    wide = np.zeros((12, 36, 3), np.uint8)
    wide[:, 12:24] = 200
    Image.fromarray(wide).save(root / "train/n01/n01_1.png")
    Image.fromarray(np.full((20, 20), 9, np.uint8)).save(root / "train/n01/n01_3.png")
    Image.fromarray(np.full((20, 20, 4), 77, np.uint8)).save(root / "train/n01/n01_5.png")
    images = image_files.decoded(root, [f"train/n01/n01_{i}.png" for i in (1, 3, 5)], SIDE, tmp_path / "kept")
    assert [np.unique(image).tolist() for image in images] == [[200], [9], [77]]


def test_images_are_decoded_once_and_nothing_is_written_beside_them(tmp_path, monkeypatch):
    root, kept = folders(tmp_path / "mini"), tmp_path / "data" / "mini-imagenet" / ".alrun"
    before = sorted(root.rglob("*"))
    first = loaded(root, tmp_path / "data")
    monkeypatch.setattr(image_files, "_write", lambda *_: pytest.fail("decoded again"))
    assert loaded(root, tmp_path / "data", split_seed=3).inputs.shape == first.inputs.shape
    assert sorted(root.rglob("*")) == before
    assert len(list(kept.glob("*.npy"))) == 1
    assert not list(kept.glob(".*.part"))


def test_changed_files_and_damaged_arrays_are_decoded_anew(tmp_path, caplog):
    root, kept = folders(tmp_path / "mini"), tmp_path / "mini-imagenet" / ".alrun"
    data = loaded(root, tmp_path)
    array = next(kept.glob("*.npy"))
    content = array.read_bytes()
    for wrong in (content[:-1000], content[:-5000] + bytes(5000), b"no array"):
        array.write_bytes(wrong)
        assert np.array_equal(loaded(root, tmp_path).inputs, data.inputs)
        assert array.read_bytes() == content
    assert "damaged" in caplog.text
    assert "does not agree" in caplog.text
    changed = root / str(data.files[0])
    picture(changed, 999)
    os.utime(changed, ns=(1, 1))
    assert not np.array_equal(loaded(root, tmp_path).inputs[0], data.inputs[0])


def test_an_array_of_changed_files_takes_the_place_of_the_one_before(tmp_path):
    root, kept = folders(tmp_path / "mini"), tmp_path / "mini-imagenet" / ".alrun"
    data = loaded(root, tmp_path)
    (first,) = kept.glob("*.npy")
    loaded(root, tmp_path, image_size=SIDE + 1)
    loaded(folders(tmp_path / "other"), tmp_path)
    image_files.decoded(root, ["val/n02/n02_0.jpg"], SIDE, kept)
    (kept / "mine.npy").write_bytes(b"")
    others = {*kept.glob("*.npy")} - {first}
    assert len(others) == 4
    os.utime(root / str(data.files[0]), ns=(1, 1))
    assert np.array_equal(loaded(root, tmp_path).inputs, data.inputs)
    found = {*kept.glob("*.npy")}
    assert others < found
    assert first not in found
    assert len(found) == 5


def test_another_folder_of_images_is_another_run(tmp_path):
    folders(tmp_path / "one")
    folders(tmp_path / "copy")
    same = [content_digest(tmp_path / name) for name in ("one", "copy")]
    assert same[0] == same[1]
    (tmp_path / "copy" / "train" / "n01" / "n01_0.jpg").rename(
        tmp_path / "copy" / "train" / "n01" / "more.jpg"
    )
    assert content_digest(tmp_path / "copy") != same[0]
    with (tmp_path / "one/train/n01/n01_1.png").open("ab") as file:
        file.write(b"more")
    assert content_digest(tmp_path / "one") != same[0]


def test_without_a_path_the_images_lie_in_the_data_folder(tmp_path):
    folders(tmp_path / "mini-imagenet", parts=("", "", ""))
    again = [loaded(None, tmp_path) for _ in range(2)]  # the second sees what the first one kept there
    assert all(data.class_names == NAMES for data in again)


def test_classes_and_pool_size_choose_among_the_pool_with_their_files(tmp_path):
    data = loaded(folders(tmp_path / "mini"), tmp_path, classes=[2, 0], pool_size=4, balanced=True)
    assert data.class_names == ("n03", "n01")
    assert np.bincount(data.labels).tolist() == [2, 2]
    assert all(data.class_names[y] in file for y, file in zip(data.labels, data.files, strict=True))


def test_the_split_is_written_as_a_table(tmp_path):
    data = loaded(folders(tmp_path / "mini"), tmp_path)
    write_split(tmp_path / "split.csv", data)
    lines = list(csv.DictReader((tmp_path / "split.csv").open()))
    assert [line["part"] for line in lines] == ["pool"] * 12 + ["test"] * 6
    assert [int(line["row"]) for line in lines] == [*range(12), *range(6)]
    assert [line["file"] for line in lines] == [*data.files, *data.test_files]
    assert all(line["class"] == Path(line["file"]).parent.name for line in lines)
    write_split(tmp_path / "none.csv", Digits(None, None, False).load(tmp_path, chance()))
    assert not (tmp_path / "none.csv").exists()


def test_other_counts_than_the_known_ones_are_said(tmp_path, caplog):
    loaded(folders(tmp_path / "mini", each=7), tmp_path)
    assert "100 classes of 600 images, found 3 classes of 7 to 7" in caplog.text


def short_class(root):
    (root / "images" / "n02_0.jpg").unlink()
    lines = (root / "val.csv").read_text().splitlines()
    (root / "val.csv").write_text("\n".join(line for line in lines if "n02_0" not in line))


def no_such_file(root):
    (root / "images" / "n03_1.png").unlink()


def outside(root):
    (root / "test.csv").write_text("filename,label\n../train.csv,n03\n")


def other_columns(root):
    (root / "train.csv").write_text("file,label\na.jpg,n01\n")


def twice(root):
    with (root / "test.csv").open("a") as text:
        text.write("n01_0.jpg,n03\n")


def no_image(root):
    (root / "images" / "n01_0.jpg").write_bytes(b"text")


def cut_off(root):
    content = (root / "images" / "n01_0.jpg").read_bytes()
    (root / "images" / "n01_0.jpg").write_bytes(content[:200])


def no_lists(root):
    for part in ("train", "val", "test"):
        (root / f"{part}.csv").unlink()


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (short_class, "class n02 has 5 images but 6 are needed, .*train_per_class=4 and 2 to test"),
        (no_such_file, r"test.csv, line 3: no file 'n03_1.png' in .*images"),
        (outside, r"test.csv, line 2: no file '../train.csv'"),
        (other_columns, "train.csv needs the columns filename,label, has file,label; add filename"),
        (twice, r"test.csv, line 8: n01_0.jpg is listed twice"),
        (no_image, "n01_0.jpg is no readable image"),
        (cut_off, "n01_0.jpg is no readable image"),
        (no_lists, "1 class.* of images in .*; put there class folders .* or images/ with train.csv"),
    ],
)
def test_wrong_folders_are_refused_by_what_is_wrong(breaks, message, tmp_path):
    root = tables(tmp_path / "mini")
    breaks(root)
    with pytest.raises(ValueError, match=f"data set mini_imagenet: .*{message}"):
        loaded(root, tmp_path, test_per_class=2)
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob(".*.part"))


def test_a_missing_folder_is_told_with_both_layouts_and_a_source(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        loaded(None, tmp_path)
    told = str(caught.value)
    for word in (str(tmp_path / "mini-imagenet"), "class folders", "train.csv", "filename,label", "https://"):
        assert word in told


def test_a_data_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "data").write_text("a file in the place of a folder")
    with pytest.raises(OSError, match=r"cannot keep 18 decoded images .* choose another data_dir"):
        loaded(folders(tmp_path / "mini"), tmp_path / "data")


def test_a_write_that_fails_is_told_with_its_reason(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("9216 requested and 0 written")

    monkeypatch.setattr(image_files, "_write", full)
    with pytest.raises(OSError, match=r"cannot keep .* \(9216 requested and 0 written\); make room"):
        loaded(folders(tmp_path / "mini"), tmp_path)
