"""S4's autoencoders: the shapes of its tables, and features learned by them."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import part, unlabeled
from interrupted import made_in_two_goes
from torch import nn

from alrun.features.encoding import encoded
from alrun.features.s4_autoencoder import S4Autoencoder
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.coder import scale_of
from alrun.models.s4_coder import S4Coding, begin_at
from alrun.models.stacks import halvings
from alrun.pool import Inputs

SMALL = S4Autoencoder("auto", [2, 4, 6], 4, None, 16, 5e-3, True)


def bars(n: int = 40, shape: tuple[int, ...] = (12, 12)) -> np.ndarray:
    """uint8 images of a bright upright bar each, whose place is all there is to know."""
    chance = np.random.default_rng(0)
    images = chance.integers(0, 20, (n, *shape), dtype=np.uint8)
    for image, place in zip(images, chance.integers(0, shape[-1] - 2, n), strict=True):
        image[..., place : place + 2] = 240
    return images


def built(shape: tuple[int, ...], architecture: str = "auto", channels=None) -> AutoencoderNetwork:
    inputs = Inputs(np.zeros((1, *shape), np.uint8))
    torch.manual_seed(0)
    return AutoencoderNetwork(S4Coding(architecture, channels), shape, scale_of(inputs)).eval()


def stages(layers: nn.Module, x: torch.Tensor, kind: type[nn.Module]) -> list[tuple[int, ...]]:
    """Shapes (c, h, w) of what layers of this kind give."""
    seen: list[tuple[int, ...]] = []
    for layer in layers.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda layer, given, out: seen.append(tuple(out.shape[1:])))
    layers(x)
    return seen


@pytest.mark.parametrize(
    ("shape", "channels", "latent", "down", "up"),
    [
        ((28, 28), None, 192, [(3, 14, 14), (6, 7, 7), (12, 4, 4)], [(6, 8, 8), (3, 14, 14), (1, 28, 28)]),
        (
            (1, 28, 28),
            [1, 2, 4],
            64,
            [(1, 14, 14), (2, 7, 7), (4, 4, 4)],
            [(2, 8, 8), (1, 14, 14), (1, 28, 28)],
        ),
        (
            (3, 32, 32),
            None,
            256,
            [(64, 32, 32), (32, 16, 16), (16, 8, 8)],
            [(32, 8, 8), (64, 16, 16), (3, 32, 32)],
        ),
        (
            (3, 64, 64),
            None,
            256,
            [(128, 32, 32), (64, 16, 16), (32, 8, 8), (16, 4, 4)],
            [(32, 8, 8), (64, 16, 16), (128, 32, 32), (3, 64, 64)],
        ),
    ],
    ids=["table 4", "table 4, a third", "table 6", "table 9"],
)
def test_layers_have_the_shapes_of_the_tables(shape, channels, latent, down, up):
    network = built(shape, channels=channels)
    assert network.latent == network.encoder().width == latent
    x = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    coder = network.coder
    assert stages(coder.encoder, coder.scaled(x), nn.Conv2d) == down
    assert stages(coder.decoder, torch.zeros(2, latent), nn.ConvTranspose2d) == up
    assert network.code(x).shape == (2, latent)
    assert network.reconstruct(x).shape == x.shape


@pytest.mark.parametrize(
    ("shape", "norms", "pools", "leaky", "end"),
    [
        ((28, 28), 0, 0, 3, nn.Sigmoid),
        ((3, 32, 32), 6, 3, 0, nn.Sigmoid),
        ((3, 64, 64), 7, 0, 0, nn.Tanh),
    ],
    ids=["table 4", "table 6", "table 9"],
)
def test_layers_are_of_the_kinds_of_the_tables(shape, norms, pools, leaky, end):
    kinds = [type(layer) for layer in built(shape).coder.modules()]
    counted = tuple(kinds.count(kind) for kind in (nn.BatchNorm2d, nn.MaxPool2d, nn.LeakyReLU))
    assert counted == (norms, pools, leaky)
    assert kinds.count(end) == 1


def test_tanh_is_brought_to_the_scale_of_the_images():
    coder = built((3, 64, 64)).coder
    last = [layer for layer in coder.decoder if isinstance(layer, nn.ConvTranspose2d)][-1]
    nn.init.zeros_(last.weight)
    for bias, gray in ((-50.0, 0.0), (0.0, 0.5), (50.0, 1.0)):
        nn.init.constant_(last.bias, bias)
        assert coder.decode(torch.randn(2, coder.latent)).detach() == pytest.approx(gray)
    seen: list[torch.Tensor] = []
    first = next(layer for layer in coder.encoder if isinstance(layer, nn.Conv2d))
    first.register_forward_hook(lambda layer, given, out: seen.append(given[0]))
    coder.encode(torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)]))
    assert seen[0][0].unique().tolist() == [-1]
    assert seen[0][1].unique().tolist() == [1]


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (3, 20, 33), (3, 65, 31), (1, 2, 3)], ids=str)
def test_images_of_any_size_come_back_in_their_own(shape):
    network = built(shape, channels=[2, 3, 4])
    x = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    height, width = halvings((shape[-2], shape[-1]), 3)[-1]
    assert network.code(x).shape == (3, 4 * height * width)
    back = network.reconstruct(x)
    assert back.shape == x.shape
    assert back.min() >= 0
    assert back.max() <= 1


@pytest.mark.parametrize("shape", [(28, 28), (3, 32, 32), (3, 64, 64)], ids=str)
def test_decoders_begin_at_the_shades_they_are_told(shape):
    coder = built(shape).coder
    shades = np.array([0.3, 0.0, 0.9][: 1 if len(shape) == 2 else 3], np.float32)
    begin_at(coder, shades)
    drawn = coder.decode(torch.zeros(2, coder.latent)).detach().mean((0, 2, 3))
    assert drawn.numpy() == pytest.approx(np.maximum(shades, 0.01), abs=1e-3)


def test_a_network_of_one_table_can_be_asked_for():
    assert any(isinstance(layer, nn.LeakyReLU) for layer in built((3, 32, 32), "mnist").modules())
    assert any(isinstance(layer, nn.MaxPool2d) for layer in built((28, 28), "cifar").modules())


def test_training_lowers_the_loss_and_learns_where_the_bar_is(make, tmp_path):
    images = bars(120)
    features = make(replace(SMALL, epochs=25), images, folder=tmp_path / "run")
    with (tmp_path / "run" / "elbo.csv").open() as file:
        losses = [float(line["loss"]) for line in csv.DictReader(file)]
    assert losses[-1] < 0.5 * losses[0]
    place = (images > 100).argmax(2).mean(1)
    known = np.column_stack([features, np.ones(120)])
    residual = place - known @ np.linalg.lstsq(known, place, rcond=None)[0]
    assert residual.var() < 0.2 * place.var()
    assert (tmp_path / "run" / "reconstructions.png").exists()


@pytest.mark.parametrize("shape", [(12, 12), (3, 12, 12), (3, 36, 36)], ids=str)
def test_the_encoder_left_behind_gives_the_features_of_bytes_and_of_shares_of_one(make, tmp_path, shape):
    images = bars(20, shape)
    features = make(replace(SMALL, epochs=1), images, folder=tmp_path / "run")
    assert features.dtype == np.float32
    encoder = SMALL.encoder(tmp_path / "run", Inputs(images))
    assert np.array_equal(encoded(encoder, Inputs(images)), features)
    scaled = images.astype(np.float32) / np.float32(255)
    assert np.array_equal(encoded(encoder, Inputs(scaled)), features)


def test_a_broken_training_goes_on_to_the_same_bits(make, tmp_path):
    whole = make(SMALL, bars())
    assert np.array_equal(whole, made_in_two_goes(SMALL, unlabeled(bars()), tmp_path / "broken"))
    assert not np.allclose(whole, make(SMALL, bars(), seed=1))


def test_an_epoch_of_some_steps_shows_part_of_the_pool(make, monkeypatch):
    seen: list[int] = []
    step = AutoencoderNetwork.terms

    def terms(network, x, reduction):
        seen.append(len(x))
        return step(network, x, reduction)

    monkeypatch.setattr(AutoencoderNetwork, "terms", terms)
    make(replace(SMALL, epochs=2, steps=1), bars())
    assert seen == [14, 14]
    seen.clear()
    make(replace(SMALL, epochs=1, steps=100), bars())
    assert seen == [14, 13, 13]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 12), np.float32), r"featurizer=s4_autoencoder needs images"),
        (np.full((5, 8, 8), 7.0, np.float32), r"wants pixels in \[0, 1\], got numbers from 7 to 7"),
    ],
    ids=["vectors", "another scale"],
)
def test_items_that_are_no_images_are_refused(make, points, message):
    with pytest.raises(ValueError, match=message):
        make(SMALL, points)


def test_presets_say_layers_and_training():
    words = ("channels=[1,2,4]", "epochs=40", "batch_size=100", "learning_rate=1e-4", "steps=1000")
    found = part("featurizer", "featurizer=s4_autoencoder", *(f"+preset.ae_{word}" for word in words))
    assert found == S4Autoencoder("auto", [1, 2, 4], 40, 1000, 100, 1e-4, True)
    assert part("featurizer", "featurizer=s4_autoencoder").channels is None
