"""Random views of images: each change against torchvision's, and how often each comes."""

from dataclasses import replace

import pytest
import torch
from torchvision.transforms import functional as torchvisions

from alrun.training.views import (
    Views,
    brightened,
    contrasted,
    hue_shifted,
    luma,
    saturated,
    unit,
)

STILL = Views(1.0, False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def colors(n: int = 6, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("own", "theirs", "factors"),
    [
        (brightened, torchvisions.adjust_brightness, [0.0, 0.3, 0.9, 1.0, 1.3, 3.0]),
        (contrasted, torchvisions.adjust_contrast, [0.0, 0.3, 0.9, 1.0, 1.3, 3.0]),
        (saturated, torchvisions.adjust_saturation, [0.0, 0.3, 0.9, 1.0, 1.3, 3.0]),
        (hue_shifted, torchvisions.adjust_hue, [-0.5, -0.2, 0.0, 0.05, 0.3, 0.5]),
    ],
)
def test_colors_change_as_torchvision_changes_them_each_image_by_its_own_amount(own, theirs, factors):
    images = colors()
    images[0], images[1, :, :2] = 0.4, 0.0  # grays have no hue
    changed = own(images, torch.tensor(factors))
    one_by_one = torch.stack([theirs(image, by) for image, by in zip(images, factors, strict=True)])
    # its weights of red, green and blue add up to 0.9999
    assert torch.allclose(changed, one_by_one, atol=5e-4)


def test_views_that_change_nothing_leave_images_as_they_are():
    images = colors()
    assert torch.allclose(STILL.of(images), images, atol=1e-6)


def test_flips_mirror_about_half_of_the_images():
    images = colors(200)
    views = replace(STILL, flip=True).of(images)
    same = torch.isclose(views, images, atol=1e-5).flatten(1).all(1)
    mirrored = torch.isclose(views, images.flip(-1), atol=1e-5).flatten(1).all(1)
    assert torch.equal(~same, mirrored)
    assert 70 < int(same.sum()) < 130


def test_crops_have_the_shares_and_ratios_asked_for_and_lie_anywhere_within():
    height, width = 30, 36
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([down + 0.5, across + 0.5])[None].float()
    crops = replace(STILL, smallest_crop=0.2)._cropped(image.expand(2000, -1, -1, -1))
    # what one pixel of a crop spans of the image, away from the border
    tall = (crops[:, 0, 15, 18] - crops[:, 0, 14, 18]) * height
    wide = (crops[:, 1, 15, 18] - crops[:, 1, 15, 17]) * width
    share, ratio = tall * wide / (height * width), wide / tall
    assert share.min() >= 0.2 - 1e-3
    assert torch.histc(share, 4, 0.2, 1.0).min() > 50
    assert ratio.min() >= 3 / 4 - 1e-3
    assert ratio.max() <= 4 / 3 + 1e-3
    middle_down, middle_across = crops[:, 0, 14:16, 18].mean(1), crops[:, 1, 15, 17:19].mean(1)
    for middle, span, side in ((middle_down, tall, height), (middle_across, wide, width)):
        assert (middle - span / 2).min() > -0.6
        assert (middle + span / 2).max() < side + 0.6
        place = (middle - span / 2)[span < side - 5] / (side - span)[span < side - 5]
        assert torch.histc(place, 4, 0, 1).min() > 0.15 * len(place)


def test_jitter_and_gray_come_as_often_as_asked_for_and_to_each_image_alone():
    images = colors(1)[0].expand(600, -1, -1, -1)
    jittered = replace(STILL, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter=0.8).of(images)
    changed = ~torch.isclose(jittered, images, atol=1e-4).flatten(1).all(1)
    assert 0.74 < float(changed.float().mean()) < 0.86
    assert len(jittered[changed].sum((1, 2, 3)).unique()) > 0.9 * int(changed.sum())
    assert jittered.min() >= 0
    assert jittered.max() <= 1
    grayed = replace(STILL, gray=0.2).of(images)
    gray = (grayed.amax(1) - grayed.amin(1)).flatten(1).amax(1) < 1e-5
    assert 0.14 < float(gray.float().mean()) < 0.26
    assert torch.allclose(grayed[gray], luma(images[gray]).expand(-1, 3, -1, -1), atol=1e-5)


def test_stored_images_of_every_kind_are_seen_in_the_unit_range():
    stored = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    assert torch.allclose(unit(stored), torch.tensor([[[[0, 1], [0.2, 0.4]]]]))
    assert torch.equal(unit(colors().double()), colors())
