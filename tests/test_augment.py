import numpy as np
import pytest
import torch
from conftest import CPU
from fits import Broken, equal, fitted, images, weights
from torch.nn import functional

from alrun.models.cnn import S0Cnn
from alrun.training.augment import UNTOUCHED, Augmentation, rotated
from alrun.training.seeding import seeded

SHAPES = [(9, 7), (3, 9, 7)]


def augmented(originals: torch.Tensor, seed: int = 0, **changes) -> torch.Tensor:
    fields = {name: getattr(UNTOUCHED, name) for name in UNTOUCHED.__dataclass_fields__}
    with seeded(np.random.default_rng(seed), CPU):
        return Augmentation(**{**fields, **changes}).of(originals)


def whole(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(1, 256, (n, *shape), dtype=np.uint8))


def moved(image: torch.Tensor, border: torch.Tensor, crop: int) -> list[tuple[int, int]]:
    """Where in its border an image lies."""
    height, width = image.shape[-2:]
    steps = range(2 * crop + 1)
    places = [(i, j) for i in steps for j in steps]
    return [(i, j) for i, j in places if torch.equal(image, border[..., i : i + height, j : j + width])]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_image_is_moved_within_its_zero_border_by_chance_of_its_own(shape):
    originals = whole(40, shape)
    crops = augmented(originals, crop=2)
    assert crops.shape == originals.shape
    assert crops.dtype == torch.uint8
    borders = functional.pad(originals, (2, 2, 2, 2))
    found = [moved(image, border, 2) for image, border in zip(crops, borders, strict=True)]
    assert {len(places) for places in found} == {1}
    assert len({places[0] for places in found}) > 10


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("crop", "different"), [(1, 9), (6, 40)])
def test_a_reflecting_border_is_that_of_numpy(shape, crop, different):
    originals = whole(60, shape)
    crops = augmented(originals, crop=crop, border="reflection")
    around = [(0, 0)] * (originals.ndim - 2) + [(crop, crop)] * 2
    borders = torch.from_numpy(np.pad(originals.numpy(), around, mode="reflect"))
    found = [moved(image, border, crop) for image, border in zip(crops, borders, strict=True)]
    assert all(found)
    assert len({places[0] for places in found}) >= different


def test_images_move_by_every_step_up_to_the_crop_about_as_often():
    place = torch.arange(81, dtype=torch.uint8).reshape(1, 9, 9).expand(5000, 9, 9)
    middle = augmented(place, crop=2, border="reflection")[:, 4, 4].long()
    down, right = middle // 9 - 4, middle % 9 - 4
    for steps in (down, right):
        assert torch.bincount(steps + 2, minlength=5).tolist() == pytest.approx([1000] * 5, rel=0.15)
    assert abs(float(torch.corrcoef(torch.stack([down, right]).float())[0, 1])) < 0.05


def test_about_half_of_the_images_are_mirrored_and_the_others_untouched():
    originals = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3, 4, 5)).astype(np.float32))
    flipped = augmented(originals, flip=True)
    mirrored = (flipped == originals.flip(-1)).flatten(1).all(1)
    same = (flipped == originals).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 60 < int(mirrored.sum()) < 140


@pytest.mark.parametrize("border", ["zeros", "reflection"])
@pytest.mark.parametrize("shape", [(8, 8), (3, 9, 9)])
def test_turns_by_right_angles_are_those_of_numpy_and_no_turn_changes_nothing(shape, border):
    originals = whole(6, shape)
    assert torch.equal(rotated(originals, torch.zeros(6), border), originals)
    quarters = torch.tensor([0.0, 90.0, 180.0, 270.0, -90.0, 360.0])
    turned = rotated(originals, quarters, border)
    for image, original, angle in zip(turned, originals, quarters, strict=True):
        wanted = np.rot90(original.numpy(), int(angle) // 90, axes=(-2, -1))
        assert np.array_equal(image.numpy(), wanted)


def test_a_small_turn_moves_pixels_along_circles_about_the_middle():
    down, right = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(31.0) - 15, indexing="ij")
    angles = torch.tensor([7.0, -10.0])
    turned = rotated(torch.stack([down, right]).expand(2, 2, 21, 31), angles, "zeros")
    inner = (slice(5, 16), slice(5, 26))
    for image, angle in zip(turned, angles.deg2rad(), strict=True):
        # a plane stays one under straight lines between pixels
        wanted = angle.sin() * right + angle.cos() * down, angle.cos() * right - angle.sin() * down
        assert torch.allclose(image[0][inner], wanted[0][inner], atol=1e-4)
        assert torch.allclose(image[1][inner], wanted[1][inner], atol=1e-4)


def test_what_a_turn_brings_into_sight_is_zero_or_the_image_reflected():
    bright = torch.full((4, 12, 12), 200, dtype=torch.uint8)
    angles = torch.full((4,), 45.0)
    assert (rotated(bright, angles, "zeros")[:, 0, 0] == 0).all()
    assert (rotated(bright, angles, "reflection") == 200).all()


def test_images_turn_by_angles_of_their_own_evenly_up_to_the_most():
    right = (torch.arange(21.0) - 10).expand(2000, 21, 21)
    turned = augmented(right, rotation=30.0)
    # of a plane that rises to the right by one a pixel, one pixel below and beside the middle
    across, along = turned[:, 10, 11] - turned[:, 10, 10], turned[:, 11, 10] - turned[:, 10, 10]
    degrees = torch.atan2(-along, across).rad2deg()
    assert float(degrees.abs().max()) <= 30 + 1e-3
    counts = torch.histc(degrees, 6, -30, 30)
    assert counts.tolist() == pytest.approx([2000 / 6] * 6, rel=0.2)


@pytest.mark.parametrize("changes", [{"crop": 2}, {"rotation": 20.0}, {"flip": True}])
def test_the_same_chance_changes_images_the_same_way_and_other_chance_another(changes):
    originals = whole(30, (3, 9, 7))
    before = originals.clone()
    first = augmented(originals, 1, border="reflection", **changes)
    assert torch.equal(first, augmented(originals, 1, border="reflection", **changes))
    assert not torch.equal(first, augmented(originals, 2, border="reflection", **changes))
    assert torch.equal(originals, before)


def test_nothing_wanted_is_nothing_drawn():
    assert not UNTOUCHED
    originals = whole(5, (4, 4))
    with seeded(np.random.default_rng(0), CPU):
        state = torch.get_rng_state()
        assert UNTOUCHED.of(originals) is originals
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("changes", [{"crop": 1}, {"rotation": 5.0}, {"flip": True}])
def test_items_that_are_no_images_are_refused_before_training(changes):
    data = images(shape=(7,))
    with pytest.raises(ValueError, match=r"trainer\.rotation and trainer\.flip need images, got .*\(7,\)"):
        fitted(data, S0Cnn(0.0), **changes)


def test_more_pixels_than_can_be_reflected_are_refused_before_training():
    with pytest.raises(ValueError, match=r"at most side - 1 pixels .* trainer\.crop=8 .*\(3, 8, 9\)"):
        fitted(images(shape=(3, 8, 9)), S0Cnn(0.0), crop=8, border="reflection")
    fitted(images(shape=(3, 8, 9)), S0Cnn(0.0), crop=7, border="reflection", epochs=1)


def test_a_fit_with_all_of_it_goes_on_to_the_same_bits():
    changes = {"crop": 2, "border": "reflection", "rotation": 10.0, "flip": True}
    changes |= {"schedule": "cosine", "horizon": 6, "renewed": "step"}
    data = images()
    unbroken = fitted(data, S0Cnn(0.5), **changes)
    broken = Broken(2)
    with pytest.raises(KeyboardInterrupt):
        fitted(data, S0Cnn(0.5), progress=broken, **changes)
    broken.stop = -1
    again = fitted(data, S0Cnn(0.5), progress=broken, **changes)
    assert equal(weights(unbroken), weights(again))
    assert not equal(weights(unbroken), weights(fitted(data, S0Cnn(0.5), **{**changes, "rotation": 0.0})))
