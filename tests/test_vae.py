"""Encoders trained on the pool: the VAE, the autoencoder, and the loop that trains both."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import unlabeled
from interrupted import made_in_two_goes
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from alrun.features.autoencoder import Autoencoder
from alrun.features.encoding import encoded
from alrun.features.keepsakes import read_codes
from alrun.features.vae import Vae
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.canvas import Lifted, canvas_size
from alrun.models.coder import Coding, scale_of, squared_errors
from alrun.models.vae import VaeNetwork, divergence
from alrun.pool import Inputs

SMALL = Vae(
    latent=3,
    architecture="auto",
    width=2,
    epochs=3,
    patience=None,
    beta=1.0,
    reconstruction="sum",
    batch_size=16,
    learning_rate=5e-3,
    mixed_precision=True,
)
PLAIN = Autoencoder(3, "auto", 2, 3, None, "sum", 16, 5e-3, True)


def blobs(n: int = 40, side: int = 8, seed: int = 0) -> np.ndarray:
    """Gray uint8 images of one bright square each, whose place is all there is to know."""
    chance = np.random.default_rng(seed)
    images = chance.integers(0, 20, (n, side, side), dtype=np.uint8)
    for image, (down, right) in zip(images, chance.integers(0, side - 3, (n, 2)), strict=True):
        image[down : down + 3, right : right + 3] = 250
    return images


def vectors(n: int = 60) -> np.ndarray:
    chance = np.random.default_rng(1)
    return (chance.normal(size=(n, 2)) @ chance.normal(size=(2, 12)) * 7 + 100).astype(np.float32)


def built(shape: tuple[int, ...], architecture: str = "auto", kind=VaeNetwork, dtype="uint8"):
    """A network, and a stored batch of five for it."""
    stored = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(dtype)
    inputs = Inputs(stored)
    torch.manual_seed(0)
    return kind(Coding(4, architecture, 2), shape, scale_of(inputs)), inputs.take(np.arange(5))


def table(folder):
    with (folder / "elbo.csv").open() as file:
        return [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        ((28, 28), (32, 32)),
        ((3, 32, 32), (32, 32)),
        ((3, 84, 84), (96, 96)),
        ((8, 8), (32, 32)),
        ((1, 16, 24), (32, 48)),
        ((4, 33, 28), (48, 32)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [VaeNetwork, AutoencoderNetwork])
def test_images_of_any_size_come_back_in_their_own(shape, padded, kind):
    network, x = built(shape, kind=kind)
    assert canvas_size(shape).padded == padded
    assert network.code(x).shape == (5, 4)
    assert network.reconstruct(x).shape == x.shape
    terms = network.terms(x, "sum")
    assert terms.reconstruction.shape == terms.divergence.shape == (5,)
    assert terms.code.shape == (5, 4)


@pytest.mark.parametrize("shape", [(28, 28), (3, 84, 84)], ids=str)
def test_the_residual_encoder_takes_small_and_large_images(shape):
    network, x = built(shape, "resnet18")
    assert network.reconstruct(x).shape == x.shape
    stride = network.coder.encoder.conv1.stride
    assert stride == ((1, 1) if shape == (28, 28) else (2, 2))


@pytest.mark.parametrize("shape", [(12,), (2, 5, 3)], ids=str)
def test_items_that_are_no_images_get_connected_layers(shape):
    network, x = built(shape, dtype="float32")
    assert network.reconstruct(x).shape == x.shape
    with pytest.raises(ValueError, match="architecture cnn encodes images.*use architecture auto"):
        built(shape, "cnn", dtype="float32")


def test_stored_images_lie_unchanged_on_the_canvas():
    images = torch.rand(2, 3, 84, 84)
    canvas = canvas_size((3, 84, 84))
    laid = canvas.laid(images)
    assert torch.equal(Lifted(canvas)(laid), images)
    assert float(laid.sum()) == pytest.approx(float(images.sum()), rel=1e-5)


def test_enlarged_images_come_back_nearly_unchanged():
    smooth = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    canvas = canvas_size((8, 8))
    assert canvas.resized == (32, 32)
    assert torch.allclose(Lifted(canvas)(canvas.laid(smooth)), smooth, atol=0.03)


@pytest.mark.parametrize("shape", [(8, 8), (3, 16, 16), (5, 27), (40, 9)], ids=str)
def test_images_are_lifted_as_torch_resizes_them_with_its_gradients(shape):
    canvas = canvas_size(shape)
    laid = torch.rand(2, 3, *canvas.padded, requires_grad=True)
    weights = torch.rand(2, 3, *canvas.stored)
    lifted = Lifted(canvas)(laid)
    torchs = functional.interpolate(canvas.within(laid), canvas.stored, mode="bilinear", antialias=True)
    assert torch.allclose(lifted, torchs, atol=1e-6)
    own, theirs = (torch.autograd.grad((images * weights).sum(), laid)[0] for images in (lifted, torchs))
    assert torch.allclose(own, theirs, atol=1e-5)


def test_divergence_is_that_of_normal_distributions():
    mu, logvar = torch.randn(2, 7, 5)
    mu[0], logvar[0] = 0, 0
    closed = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mu, logvar), closed, atol=1e-5)
    assert float(divergence(mu, logvar)[0]) == 0


def test_squared_errors_are_summed_or_averaged_over_an_item():
    item, decoded = torch.zeros(2, 1, 2, 3), torch.full((2, 1, 2, 3), 2.0)
    assert squared_errors(item, decoded, "sum").tolist() == [24, 24]
    assert squared_errors(item, decoded, "mean").tolist() == [4, 4]


def test_terms_follow_from_encoder_noise_and_decoder():
    network, x = built((28, 28))
    network.eval()
    torch.manual_seed(5)
    terms = network.terms(x, "sum")
    torch.manual_seed(5)
    mu, logvar = network.encode(x)
    z = mu + torch.randn(5, 4) * torch.exp(logvar / 2)
    decoded = network.decode(z).reshape(5, 28, 28)
    assert torch.allclose(terms.reconstruction, ((x / 255 - decoded) ** 2).sum((1, 2)), rtol=1e-4)
    assert torch.allclose(terms.divergence, divergence(mu, logvar))
    assert torch.equal(terms.code, mu)


def test_padding_is_no_part_of_the_loss():
    network, x = built((28, 28))
    network.eval()
    last = network.coder.decoder[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 1.0)
    white = torch.full_like(x, 255)
    assert network.terms(white, "sum").reconstruction.abs().max() == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_stored_as_bytes_or_as_shares_of_one_give_the_same_bits(make, dtype):
    images = blobs()
    scaled = images.astype(np.float32) / np.float32(255)
    assert np.array_equal(make(SMALL, images), make(SMALL, scaled.astype(dtype)))


def test_images_on_another_scale_are_standardized():
    points = blobs().astype(np.float32) * 3 - 200
    scale = scale_of(Inputs(points))
    assert scale.mean == pytest.approx(points.mean(), rel=1e-4)
    assert scale.std == pytest.approx(points.std(), rel=1e-4)


def test_training_learns_where_the_square_is(make, tmp_path):
    images = blobs(150)
    longer = replace(SMALL, epochs=15, width=3, beta=0.1)
    features = make(longer, images, folder=tmp_path / "run")
    lines = table(tmp_path / "run")
    assert lines[-1]["elbo"] > lines[0]["elbo"]
    assert lines[-1]["reconstruction"] < 0.6 * lines[0]["reconstruction"]
    place = np.array([np.argwhere(image > 100).mean(0) for image in images])
    known = np.column_stack([features, features**2, np.ones(150)])
    residual = place - known @ np.linalg.lstsq(known, place, rcond=None)[0]
    assert residual.var() < 0.3 * place.var()


def test_an_autoencoder_loses_less_than_a_vae(make, tmp_path):
    points = vectors()
    for name, featurizer in (("vae", SMALL), ("plain", PLAIN)):
        make(replace(featurizer, epochs=40, width=8), points, folder=tmp_path / name)
    vae, plain = table(tmp_path / "vae")[-1], table(tmp_path / "plain")[-1]
    assert plain["kl"] == 0
    assert plain["reconstruction"] < vae["reconstruction"] < 12
    assert plain["elbo"] == pytest.approx(-plain["reconstruction"])
    assert vae["elbo"] == pytest.approx(-vae["reconstruction"] - vae["kl"], rel=1e-4)


def test_beta_weighs_the_divergence(make, tmp_path):
    points = vectors()
    for beta in (0.01, 5.0):
        make(replace(SMALL, beta=beta, epochs=30, width=8), points, folder=tmp_path / str(beta))
    loose, tight = (table(tmp_path / str(beta))[-1] for beta in (0.01, 5.0))
    assert loose["kl"] > 2 * tight["kl"]
    assert tight["elbo"] == pytest.approx(-tight["reconstruction"] - 5 * tight["kl"], rel=1e-4)


@pytest.mark.parametrize("featurizer", [SMALL, PLAIN], ids=["vae", "autoencoder"])
def test_seeds_decide_all_and_leave_torch_alone(make, featurizer):
    images = blobs()
    before = torch.get_rng_state()
    first = make(featurizer, images)
    assert first.dtype == np.float32
    assert first.shape == (40, 3)
    torch.manual_seed(123)
    assert np.array_equal(first, make(featurizer, images))
    assert not np.allclose(first, make(featurizer, images, seed=1))
    torch.set_rng_state(before)


@pytest.mark.parametrize("featurizer", [SMALL, PLAIN], ids=["vae", "autoencoder"])
@pytest.mark.parametrize("patience", [None, 2])
def test_a_broken_training_goes_on_to_the_same_bits(make, tmp_path, featurizer, patience):
    featurizer, images = replace(featurizer, epochs=6, patience=patience, learning_rate=0.03), blobs()
    whole = make(featurizer, images, folder=tmp_path / "whole")
    assert np.array_equal(whole, made_in_two_goes(featurizer, unlabeled(images), tmp_path / "broken"))
    lines, unbroken = table(tmp_path / "broken"), table(tmp_path / "whole")
    assert [line["elbo"] for line in lines] == [line["elbo"] for line in unbroken]


def test_training_ends_with_the_best_weights_once_patience_is_over(make, tmp_path):
    wild = replace(SMALL, epochs=60, patience=2, learning_rate=0.05)
    features = make(wild, vectors(), folder=tmp_path / "run")
    elbos = [line["elbo"] for line in table(tmp_path / "run")]
    assert len(elbos) < 60
    best = int(np.argmax(elbos))
    assert best == len(elbos) - 3
    # the weights that a training of so many epochs ends with, not those of the last epoch
    assert np.array_equal(features, make(replace(wild, epochs=best + 1), vectors()))


def test_features_do_not_depend_on_blocks_or_on_the_order_of_rows(monkeypatch):
    images = blobs()
    network, _ = built((8, 8))
    for _ in range(3):
        network.terms(torch.from_numpy(images), "sum")
    whole = encoded(network.encoder(), Inputs(images))
    order = np.random.default_rng(2).permutation(40)
    assert np.allclose(encoded(network.encoder(), Inputs(images[order])), whole[order], atol=1e-6)
    monkeypatch.setattr("alrun.training.parts.CPU_ITEMS", 7)
    assert np.allclose(encoded(network.encoder(), Inputs(images)), whole, atol=1e-6)


def test_a_memory_map_gives_the_same_as_an_array(make, tmp_path):
    np.save(tmp_path / "images.npy", blobs())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.array_equal(make(SMALL, blobs()), make(SMALL, mapped))


@pytest.mark.parametrize("featurizer", [SMALL, PLAIN], ids=["vae", "autoencoder"])
@pytest.mark.parametrize("points", [blobs(), vectors()], ids=["images", "vectors"])
def test_the_encoder_left_behind_gives_the_features(make, tmp_path, featurizer, points):
    features = make(featurizer, points, folder=tmp_path / "run")
    assert np.array_equal(encoded(read_codes(tmp_path / "run").encoder(), Inputs(points)), features)
    lines = table(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(line["seconds"] > 0 and 0 <= line["active"] <= 3 for line in lines)
    pictures = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert pictures == {"elbo.png"} | ({"reconstructions.png"} if points.ndim == 3 else set())


def test_a_collapsed_encoder_is_said_to_be_one(make, caplog):
    collapsed = replace(SMALL, beta=1e4, epochs=20, width=4)
    features = make(collapsed, vectors())
    assert features.var(axis=0).max() < 0.01
    assert "collapsed" in caplog.text
    assert "raise featurizer.epochs, lower featurizer.beta" in caplog.text
    caplog.clear()
    make(replace(SMALL, beta=0.01, epochs=20), vectors())
    assert "collapsed" not in caplog.text


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize("shape", [(8, 8), (3,)], ids=str)
def test_tiny_pools_are_encoded_too(make, n, shape):
    points = np.random.default_rng(0).random((n, *shape), np.float32)
    features = make(SMALL, points)
    assert features.shape == (n, 3)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_no_numbers_are_refused_by_row(make, bad):
    points = vectors()
    points[17, 3] = bad
    with pytest.raises(ValueError, match="row 17"):
        make(SMALL, points)


def test_a_loss_that_is_no_number_is_refused_with_a_remedy(make):
    with pytest.raises(ValueError, match=r"in epoch 1 .* lower featurizer.learning_rate"):
        make(replace(SMALL, learning_rate=1e30), vectors())
