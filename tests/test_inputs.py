"""Synthetic items behind those of a data set: the same as one array, but never copied into one."""

import numpy as np
import pytest
import torch

from alrun.inputs import Inputs
from alrun.pool import Pool

RNG = np.random.default_rng(0)


def images(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)


@pytest.fixture(params=["memory", "mapped"])
def parts(request, tmp_path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The data set's items, in memory or in a file, and two lots of synthetic ones."""
    own = images(7)
    if request.param == "mapped":
        np.save(tmp_path / "x.npy", own)
        own = np.load(tmp_path / "x.npy", mmap_mode="r")
    return own, images(2), images(3)


def test_extended_inputs_are_those_of_the_joined_array(parts):
    own, first, second = parts
    inputs, whole = Inputs(own).extended(first).extended(second), Inputs(np.concatenate(parts))
    rows = np.array([11, 0, 7, 6, 8, 8, 3])
    assert len(inputs) == len(whole) == 12
    assert torch.equal(inputs.take(rows), whole.take(rows))
    assert torch.equal(inputs.take(torch.from_numpy(rows)), whole.take(rows))
    np.testing.assert_array_equal(inputs.pixels(rows), whole.pixels(rows))
    np.testing.assert_array_equal(inputs.read(rows), whole.array[rows])
    np.testing.assert_array_equal(np.concatenate(inputs.blocks()), np.arange(12))


def test_what_follows_from_the_data_set_stays_and_is_made_once(parts):
    own, first, second = parts
    plain = Inputs(own)
    inputs = plain.extended(first).extended(second)
    assert inputs.array is own
    assert inputs.originals is plain
    assert inputs._resident is None or inputs.originals._resident is plain._resident
    for found, expected in zip(inputs.moments, Inputs(own).moments, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_is_made_of_the_data_set_s_items_is_not_made_again(parts):
    own, first, second = parts
    seen = []

    def made(part: Inputs) -> np.ndarray:
        seen.append(len(part))
        return part.pixels(np.arange(len(part)))

    plain = Inputs(own)
    plain.mapped("pixels", made)
    once = plain.extended(first)
    for inputs in (once, once, once.extended(second)):
        found = inputs.mapped("pixels", made)
        np.testing.assert_array_equal(
            found.read(np.arange(len(inputs))), inputs.pixels(np.arange(len(inputs)))
        )
    assert seen == [7, 2, 5]


def test_later_changes_of_the_items_given_are_not_seen(parts):
    own, first, _ = parts
    inputs, before = Inputs(own).extended(first), first.copy()
    first[:] = 0
    np.testing.assert_array_equal(inputs.read(np.array([7, 8])), before)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (np.zeros((2, 3, 4, 5), np.float32), "type uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"shape \(3, 4, 5\)"),
        (np.zeros((0, 3, 4, 5), np.uint8), "m > 0"),
    ],
)
def test_items_that_are_stored_otherwise_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        Inputs(images(2)).extended(items)


def test_synthetic_items_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Inputs(np.zeros((2, 3), np.float32)).extended(np.full((1, 3), np.nan, np.float32))


def test_unit_images_are_stored_by_rounding_and_mean_the_same():
    inputs = Inputs(np.zeros((1, 2, 2), np.uint8))
    unit = torch.tensor([[[0.0, 1.0], [0.4999 / 255, 0.5001 / 255]]])
    assert inputs.stored(unit).tolist() == [[[0, 255], [0, 1]]]
    levels = torch.arange(256).reshape(1, 16, 16)
    again = Inputs(np.zeros((1, 16, 16), np.uint8)).stored(levels.float() / 255)
    np.testing.assert_array_equal(again, levels.numpy().astype(np.uint8))


def test_floats_are_stored_as_they_are():
    unit = torch.rand(3, 2, 2)
    for kind in (np.float32, np.float64):
        stored = Inputs(np.zeros((1, 2, 2), kind)).stored(unit)
        assert stored.dtype == kind
        np.testing.assert_array_equal(stored, unit.numpy())


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan])
def test_what_is_no_unit_image_is_refused(wrong):
    inputs = Inputs(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        inputs.stored(torch.full((1, 2, 2), wrong))
    with pytest.raises(ValueError, match="shape"):
        inputs.stored(torch.zeros(1, 4))


def test_a_pool_learns_from_synthetic_rows_and_offers_them_to_nobody():
    labels = np.array([-1, 1, -1, -1])
    before = Pool(Inputs(images(4)), labels, 3)
    made = before.add(images(2))
    bought = made.reveal(np.array([4, 5, 0]), np.array([2, 0, 1]))
    assert (before.real, made.real, len(made)) == (4, 4, 6)
    assert made.unlabeled.tolist() == before.unlabeled.tolist() == [0, 2, 3]
    assert made.labeled.tolist() == [1]
    assert bought.labeled.tolist() == [0, 1, 4, 5]
    assert bought.unlabeled.tolist() == [2, 3]
    assert len(bought.blank) == 4
    assert bought.blank.inputs is before.inputs
    assert len(before) == 4


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (6,)])
def test_moments_of_bytes_are_those_of_the_numbers_they_stand_for(shape, monkeypatch):
    monkeypatch.setattr("alrun.inputs.BLOCK_BYTES", 100)  # several blocks
    own = RNG.integers(0, 256, (50, *shape), dtype=np.uint8)
    own[:, 0] = 7  # a channel, row or feature that is constant
    mean, std = Inputs(own).moments
    axes = (0,) if len(shape) == 1 else (0, *range(len(shape) - 1, len(shape) + 1))
    whole = own.astype(np.float64) / 255
    np.testing.assert_allclose(mean, np.atleast_1d(whole.mean(axis=axes)), rtol=1e-6)
    expected = np.atleast_1d(whole.std(axis=axes))
    np.testing.assert_allclose(std, np.where(expected < 1e-6, 1, expected), rtol=1e-6)
