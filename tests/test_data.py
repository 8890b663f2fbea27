import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU

from alrun.data import data
from alrun.data.arrays import Arrays
from alrun.data.bundled import Digits
from alrun.data.checkerboard import Checkerboard, fields
from alrun.data.data import Data, Items
from alrun.data.subset import Subset
from alrun.data.torchvision_sets import Torchvision
from alrun.pool import stream

REAL = Path(__file__).parents[1] / "data"
NOWHERE = Path("no/such/folder")


def chance(seed=0):
    return stream(seed, "split")


def load(name, folder, pool_size=None, balanced=False, classes=None, first=None):
    return Torchvision(name, first, classes, pool_size, balanced).load(folder, chance())


def small(inputs=None, labels=(0, 1, 0, 1), test_inputs=None, test_labels=(0, 1)):
    return Data(
        np.zeros((4, 3), np.float32) if inputs is None else inputs,
        np.array(labels, dtype=np.int64),
        np.zeros((2, 3), np.float32) if test_inputs is None else test_inputs,
        np.array(test_labels, dtype=np.int64),
        ("a", "b"),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": (0, 1, 0)}, "the pool needs one label an item, got 4 items and 3 labels"),
        ({"labels": (0, 1, 0, 2)}, "labels of the pool must be in 0..1, got 2 in row 3"),
        ({"test_labels": (-1, 0)}, "labels of the test set must be in 0..1, got -1 in row 0"),
        ({"labels": (1, 1, 1, 1)}, "one class only: all 4 pool labels are 'b'"),
        ({"test_inputs": np.zeros((2, 4), np.float32)}, "must agree in shape and type"),
        ({"test_inputs": np.zeros((2, 3), np.uint8)}, "must agree in shape and type"),
        (
            {"test_inputs": np.zeros((0, 3), np.float32), "test_labels": ()},
            "test set must be .* at least one",
        ),
        ({"inputs": np.zeros((4, 3), np.int32)}, "uint8 or floating, got int32"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        small(**wrong)


def test_the_first_row_that_is_not_finite_is_named_in_any_block(monkeypatch):
    monkeypatch.setattr(data, "BLOCK_BYTES", 24)
    inputs = np.zeros((4, 3), np.float32)
    inputs[3, 1], inputs[2, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="row 2 of the pool"):
        small(inputs)


def test_fingerprints_follow_content_and_not_blocks_labels_or_storage(monkeypatch, tmp_path):
    inputs = np.arange(12, dtype=np.float32).reshape(4, 3)
    whole = small(inputs).fingerprint()
    np.save(tmp_path / "x.npy", inputs)
    monkeypatch.setattr(data, "BLOCK_BYTES", 24)
    assert small(np.load(tmp_path / "x.npy", mmap_mode="r")).fingerprint() == whole
    assert small(np.asfortranarray(inputs)).fingerprint() == whole
    assert small(inputs, labels=(1, 1, 0, 0)).fingerprint() == whole
    assert small(inputs, labels=(1, 1, 0, 0)).label_fingerprint() != small(inputs).label_fingerprint()
    assert small(inputs[::-1]).fingerprint() != whole
    as_float64 = small(inputs.astype(np.float64), test_inputs=np.zeros((2, 3)))
    assert as_float64.fingerprint() != whole


def drawn(labels, classes=None, pool_size=None, balanced=False, seed=0, names=None):
    """A subset of items whose input is their original row."""
    labels = np.array(labels, dtype=np.int64)
    items = Items(np.arange(len(labels), dtype=np.float32)[:, None], labels)
    known = {label: f"class {label}" for label in range(names or int(labels.max()) + 1)}
    return Subset(classes, pool_size, balanced).of(items, items, names=known, chance=chance(seed))


def test_classes_are_kept_in_the_order_given_in_pool_and_test_set():
    part = drawn([0, 1, 2, 0, 2, 1], classes=[2, 0])
    assert part.class_names == ("class 2", "class 0")
    for inputs, labels in ((part.inputs, part.labels), (part.test_inputs, part.test_labels)):
        assert inputs[:, 0].tolist() == [0, 2, 3, 4]
        assert labels.tolist() == [1, 0, 1, 0]


def test_a_pool_size_draws_rows_in_order_and_leaves_the_test_set_whole():
    labels = np.arange(100) % 5
    part, again, other = (drawn(labels, pool_size=40, seed=seed) for seed in (0, 0, 1))
    rows = part.inputs[:, 0].astype(int)
    assert len(rows) == 40
    assert (np.diff(rows) > 0).all()
    assert (part.labels == labels[rows]).all()
    assert len(part.test_inputs) == 100
    assert part.fingerprint() == again.fingerprint() != other.fingerprint()


def test_nothing_is_copied_or_drawn_when_all_is_kept():
    items = Items(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))
    rng = chance()
    before = rng.bit_generator.state
    assert (
        Subset(None, None, False).of(items, items, names={0: "a", 1: "b"}, chance=rng).inputs is items.inputs
    )
    assert rng.bit_generator.state == before


def test_a_balanced_pool_has_equal_counts_and_the_rest_goes_to_random_classes():
    labels = np.repeat(np.arange(4), [10, 30, 50, 12])
    counts = [np.bincount(drawn(labels, None, 30, True, seed).labels) for seed in range(20)]
    assert all(sorted(count) == [7, 7, 8, 8] for count in counts)
    assert len({tuple(count) for count in counts}) > 1
    assert np.bincount(drawn(labels, balanced=True).labels).tolist() == [10] * 4


def test_the_rest_of_a_balanced_pool_comes_from_classes_that_have_it():
    labels = np.repeat(np.arange(3), [4, 9, 9])
    assert np.bincount(drawn(labels, None, 14, True).labels).tolist() == [4, 5, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 9}, "pool_size wants 9 items but there are 8"),
        ({"pool_size": 8, "classes": [1, 2]}, "pool_size wants 8 items but there are 5"),
        ({"pool_size": 8, "balanced": True}, "wants 2 of class 'class 2', which has 1; .*pool_size to 3 "),
        ({"pool_size": 4, "balanced": True, "classes": [1, 2]}, "wants 2 of class 'class 2', which has 1"),
        ({"balanced": True, "classes": [1, 3]}, "needs items of every class, 'class 3' has none"),
        ({"classes": [1, 1]}, r"each once, got \[1, 1\]"),
        ({"classes": [0, 7]}, "classes names 7, which is no label; there are 0, 1, 2, 3, 4"),
        ({"pool_size": 1}, "one class only"),
    ],
)
def test_a_subset_that_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        drawn([0, 0, 0, 1, 1, 1, 1, 2], names=5 if "classes" in options else 3, **options)


def test_digits_keep_their_split_and_all_gray_levels():
    digits = Digits(None, None, False).load(NOWHERE, chance())
    assert (digits.inputs.shape, digits.test_inputs.shape) == ((1400, 8, 8), (397, 8, 8))
    assert np.unique(digits.inputs).tolist() == [round(level * 255 / 16) for level in range(17)]
    assert digits.labels[:10].tolist() == list(range(10))
    assert np.bincount(Digits([3, 8], 100, True).load(NOWHERE, chance()).labels).tolist() == [50, 50]


def test_a_checkerboard_alternates_between_neighboring_fields():
    board = Checkerboard(2000, 200, 4).load(NOWHERE, chance())
    assert board.inputs.dtype == np.float32
    assert np.abs(board.inputs).max() <= 1
    assert abs(board.labels.mean() - 0.5) < 0.05
    inner = board.inputs[(board.inputs < 0.5).all(axis=1)]
    field = fields(inner, 4)
    assert (fields(inner + np.float32([0.5, 0]), 4) == 1 - field).all()
    assert (fields(inner + np.float32([0.5, 0.5]), 4) == field).all()
    corners = np.array([[-1, -1], [1, 1], [1, -1]], np.float32)
    assert fields(corners, 4).tolist() == [0, 0, 1]


def test_the_checkerboard_test_set_is_the_same_for_every_pool_size():
    one, two = (Checkerboard(size, 50, 4).load(NOWHERE, chance()) for size in (100, 300))
    assert (one.test_inputs == two.test_inputs).all()


def arrays(path, **options):
    settings = {"classes": None, "pool_size": None, "balanced": False} | options
    return Arrays(str(path), **settings).load(NOWHERE, chance())


def content(**changed):
    whole = {
        "x_train": np.arange(24, dtype=np.float32).reshape(8, 3),
        "y_train": np.arange(8, dtype=np.uint8)[:, None] % 2,
        "x_test": np.zeros((2, 3), np.float32),
        "y_test": np.array([0, 1]),
    } | changed
    return {name: array for name, array in whole.items() if array is not None}


def test_an_archive_and_a_folder_of_the_same_arrays_are_the_same_data(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", **content())
    for name, array in content().items():
        np.save(tmp_path / f"{name}.npy", array)
    packed, folder = arrays(tmp_path / "own.npz"), arrays(tmp_path)
    assert packed.fingerprint() == folder.fingerprint()
    assert packed.label_fingerprint() == folder.label_fingerprint()
    assert packed.class_names == ("0", "1")
    assert isinstance(folder.inputs, np.memmap)
    part = arrays(tmp_path, pool_size=4, balanced=True)
    assert part.inputs.shape == (4, 3)
    assert not isinstance(part.inputs, np.memmap)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": None}, "needs the arrays .*; x_test missing, the file has x_train, y_train, y_test"),
        (
            {"y_train": np.array([0, 1])},
            r"x_train and y_train must have the same length, got shape \(8, 3\) and 2",
        ),
        ({"x_train": np.full((8, 3), np.nan, np.float32)}, "row 0 of the pool holds NaN"),
        ({"y_train": np.array([0.0, 1] * 4)}, "y_train must be whole numbers, got float64"),
        ({"y_train": np.zeros((8, 2), int)}, r"y_train must be \(n,\) or \(n, 1\), got shape \(8, 2\)"),
        ({"y_test": np.array([0, -1])}, "y_test must be 0..c-1, got -1 in row 1"),
        (
            {"y_train": np.array([3, 7] * 4)},
            r"without gaps, got 0, 1, 3, 7; give dataset.classes=\[0,1,3,7\]",
        ),
        ({"y_train": np.zeros(8, int)}, "one class only"),
        (
            {"y_train": np.array(["a", "b"] * 4, dtype=object)},
            "y_train cannot be read .*pickled Python objects",
        ),
        (
            {"x_train": np.zeros((8, 6, 5, 3), np.uint8)},
            r"channel-last .* numpy.transpose\(x_train, \(0, 3, 1, 2\)",
        ),
        ({"x_train": np.zeros((8, 3), np.int64)}, "uint8 or floating, got int64"),
        ({"x_train": np.float32(1)}, "x_train and y_train must have the same length"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused_in_one_line(tmp_path, changed, message):
    np.savez(tmp_path / "own.npz", **content(**changed))
    with pytest.raises(ValueError, match=message) as raised:
        arrays(tmp_path / "own.npz")
    assert str(tmp_path / "own.npz") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_labels_with_gaps_are_taken_when_the_classes_are_named(tmp_path):
    np.savez(tmp_path / "own.npz", **content(y_train=np.array([3, 7] * 4), y_test=np.array([7, 10**12])))
    own = arrays(tmp_path / "own.npz", classes=[3, 7])
    assert own.class_names == ("3", "7")
    assert own.test_labels.tolist() == [1]


def test_damaged_files_are_named_and_never_unpickled(tmp_path):
    file = tmp_path / "own.npz"
    np.savez(file, **content(x_train=np.zeros((5000, 3), np.float32)))
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[9000] ^= 255
    harmful = pickle.dumps({"x_train": 1})
    for broken in (b"", whole[: len(whole) // 2], bytes(flipped), b"no archive at all", harmful):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"own\.npz: (not an \.npz|x_train cannot be read)"):
            arrays(file)
    with pytest.raises(ValueError, match="no such file or folder"):
        arrays(tmp_path / "other.npz")
    for name, array in content().items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "x_test.npy").write_bytes((tmp_path / "x_test.npy").read_bytes()[:-5])
    with pytest.raises(ValueError, match="x_test cannot be read"):
        arrays(tmp_path)


def test_a_mapped_pool_is_digested_and_read_without_being_in_memory(tmp_path):
    """A sparse file of 192 MiB, of which never more than 16 MiB are copied."""
    shape = (16_384, 3, 64, 64)
    with (tmp_path / "x_train.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)))
    np.save(tmp_path / "y_train.npy", np.arange(shape[0]) % 2)
    np.save(tmp_path / "x_test.npy", np.zeros((2, 3, 64, 64), np.uint8))
    np.save(tmp_path / "y_test.npy", np.arange(2))
    tracemalloc.start()
    found = Arrays(str(tmp_path), None, None, False).load(NOWHERE, chance())
    digest = found.fingerprint()
    rows = found.pool(np.full(shape[0], -1), CPU).inputs.take(np.array([16_383, 5]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found.inputs, np.memmap)
    assert len(digest) == 64
    assert (rows.shape, int(rows.sum())) == ((2, 3, 64, 64), 0)
    assert peak < 16 * 2**20
