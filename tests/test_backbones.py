"""Residual backbones, what they see of images, and how wide they are."""

import numpy as np
import pytest
import torch
from adaptation import fdal, made, turned
from conftest import CPU, settings
from torch.nn import functional

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.features.encoding import encoded
from alrun.models.resnet import residual, widest
from alrun.models.view import View, _sides, middles, resized_parts
from alrun.pool import Inputs, Pool, Source
from alrun.training.seeding import seeded


def test_images_go_through_a_residual_network_that_sees_parts_of_them(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, 3, 40, 40), dtype=np.uint8)
    known = np.arange(6) % 2
    pool = Pool(Inputs(images[0]), np.full(6, -1), 2, Source(Inputs(images[1]), known))
    words = ("backbone.kind=resnet18", "backbone.crop=32", "epochs=1", "steps=1", "batch_size=2")
    featurizer = fdal(*words)
    features = made(featurizer, pool, tmp_path)
    encoder = featurizer.encoder(tmp_path, pool.inputs)
    assert np.array_equal(encoded(encoder, pool.inputs), features)
    framed = images[0].copy()
    framed[:, :, :4] = framed[:, :, 36:] = framed[:, :, :, :4] = framed[:, :, :, 36:] = 0
    assert np.array_equal(encoder(torch.from_numpy(framed)).numpy(), features)
    with pytest.raises(ValueError, match=r"featurizer\.backbone\.crop=64 .* side of 40"):
        made(fdal("backbone.kind=resnet18", "backbone.crop=64"), pool, tmp_path)


def test_random_parts_lie_within_the_image_and_middles_are_exact():
    steps = torch.arange(40, dtype=torch.float32)
    images = torch.stack([steps.expand(40, 40), steps[:, None].expand(40, 40)]).expand(64, 2, 40, 40)
    with seeded(np.random.default_rng(0), CPU):
        parts = resized_parts(images, (16, 24), 0.25)
    assert parts.shape == (64, 2, 16, 24)
    assert parts.min() >= 0
    assert parts.max() <= 39
    wide, tall = ((parts[:, i].amax((1, 2)) - parts[:, i].amin((1, 2))) / 40 for i in (0, 1))
    share = wide / (23 / 24) * tall / (15 / 16)
    assert share.min() > 0.24
    assert share.max() < 1.01
    assert share.std() > 0.1
    assert torch.equal(middles(images, (2, 4))[0, 0, 0], torch.tensor([18.0, 19, 20, 21]))
    view = View(None, flip=True)
    assert torch.equal(view.eval()(images), images)
    assert set(view.train()(images)[:, 0, 0, 0].tolist()) == {0.0, 39.0}


@pytest.mark.parametrize("mixed", [False, True])
def test_random_parts_lie_where_an_affine_grid_puts_them_also_in_mixed_precision(mixed):
    images = torch.rand(5, 3, 30, 40, generator=torch.Generator().manual_seed(1))
    with seeded(np.random.default_rng(0), CPU):
        tall, wide = _sides(images, 0.08)
        down, right = torch.rand(2, 5)
    zero = torch.zeros(5)
    across = torch.stack([wide, zero, (1 - wide) * (2 * right - 1)], 1)
    along = torch.stack([zero, tall, (1 - tall) * (2 * down - 1)], 1)
    grid = functional.affine_grid(torch.stack([across, along], 1), [5, 3, 16, 24], align_corners=False)
    expected = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    with seeded(np.random.default_rng(0), CPU), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        parts = resized_parts(images, (16, 24), 0.08)
    assert parts.dtype == torch.float32
    torch.testing.assert_close(parts, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("depth", "size", "small"),
    [(18, (32, 40), True), (50, (32, 32), True), (34, (96, 64), False), (50, (66, 97), False)],
)
def test_residual_networks_are_as_wide_as_they_say(depth, size, small):
    network, _ = residual(depth, small_stem=small)
    seen = []
    for layer in network.modules():
        layer.register_forward_hook(lambda layer, x, out: seen.append(out.numel()))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *size))
    assert max(seen) == widest(depth, size, small_stem=small)


def test_a_backbone_is_as_wide_as_its_network_or_as_the_images_it_is_cut_from():
    def wide(side: int, *words: str) -> int:
        inputs = Inputs(np.random.default_rng(0).random((2, side, side)).astype(np.float32))
        return fdal(*words).network(inputs, 2, filled=False).widest

    assert wide(40, "backbone.kind=resnet18", "backbone.crop=32") == 64 * 32**2
    assert wide(200, "backbone.kind=resnet18", "backbone.crop=32") == 3 * 200**2
    assert wide(40, "backbone.kind=resnet18", "backbone.pretrained=true") == 64 * 20**2


def test_pretrained_weights_that_nothing_would_read_are_refused():
    remedy = r"set featurizer\.backbone\.pretrained=false"
    found = settings("featurizer=fdal", "featurizer.backbone.kind=mlp", "featurizer.backbone.pretrained=true")
    with pytest.raises(ConfigError, match=rf"backbone\.pretrained=True .*backbone\.kind=mlp .*{remedy}"):
        assemble(found)
    pool, _ = turned()
    with pytest.raises(ValueError, match=rf"backbone\.pretrained=True .* shape \(4,\).*{remedy}"):
        fdal("backbone.pretrained=true").network(pool.inputs, 3, filled=False)


@pytest.mark.parametrize("bad", [0, 1])
def test_pretrained_backbones_want_pixels_between_zero_and_one_of_pool_and_source(bad, tmp_path):
    images = [np.random.default_rng(0).random((4, 32, 32)).astype(np.float32) for _ in range(2)]
    images[bad] *= 255
    pool = Pool(Inputs(images[0]), np.full(4, -1), 2, Source(Inputs(images[1]), np.arange(4) % 2))
    with pytest.raises(ValueError, match=r"featurizer=fdal wants pixels in \[0, 1\]"):
        made(fdal("backbone.kind=resnet18", "backbone.pretrained=true"), pool, tmp_path)
