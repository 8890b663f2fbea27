"""Features that stand on a generator: its critic's, and latents that draw an image again."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, part, settings, unlabeled
from generators import gan, squares, untrained
from interrupted import made_in_two_goes
from torch import nn

from alrun.assembly import assemble
from alrun.cache import Cache
from alrun.features.discriminator import Discriminator
from alrun.features.encoding import encoded
from alrun.features.featurizer import Encoding
from alrun.features.gan_inversion import GanInversion
from alrun.features.on_generator import OnGenerator
from alrun.generative.generator import Generator
from alrun.lifetime import Lifetime
from alrun.models.inverse import inverse
from alrun.pool import Inputs, stream
from alrun.shelf import Deaf, Shelf

INVERSION = GanInversion(4, 10.0, 4, None, 16, 5e-3, True)
BOTH = [Discriminator(), INVERSION]
NAMES = ["discriminator", "gan_inversion"]


def shares(images: np.ndarray) -> np.ndarray:
    """Stored images as unit images."""
    return images.astype(np.float32) / np.float32(255)


def drawing(pattern: torch.Tensor) -> Generator:
    """A generator whose images are mixtures of patterns (l, h, w), in gray: nearly linear in z."""
    latent, *size = pattern.shape
    linear = nn.Linear(latent, pattern[0].numel())
    with torch.no_grad():
        linear.weight.copy_(pattern.flatten(1).T)
        linear.bias.zero_()
    network = nn.Sequential(linear, nn.Unflatten(1, (1, *size)), nn.Sigmoid()).requires_grad_(False)
    critic = untrained(Inputs(squares())).critic
    return Generator(latent, tuple(size), critic, network, 0.0, CPU)


@pytest.mark.parametrize(
    ("shape", "width"), [((28, 28), 4096), ((3, 32, 32), 8192), ((3, 64, 64), 8192)], ids=str
)
def test_critics_of_the_paper_give_as_many_numbers_as_its_tables_say(make, shape, width):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    generator = part("generator", "generator=wgan_gp", "dataset=mnist").untrained(Inputs(images))
    assert make(Discriminator().on(generator), images).shape == (2, width)


def test_features_of_the_critic_are_what_its_last_layer_reads():
    images = squares(6)
    pair = gan().networks.build((8, 8))
    generator = Generator.of(pair, gan().latent, (8, 8), CPU)
    features = torch.from_numpy(encoded(generator.critic, Inputs(images)))
    on_scale = torch.from_numpy(shares(images))[:, None]
    assert pair.darkest == 0
    assert torch.allclose(pair.critic.last(features)[:, 0], pair.critic.eval()(on_scale), atol=1e-5)


@pytest.mark.parametrize("featurizer", BOTH, ids=NAMES)
def test_features_of_stored_and_of_unit_images_are_the_same(make, tmp_path, featurizer):
    images = squares(20)
    bound = featurizer.on(untrained(Inputs(images)))
    features = make(bound, images, folder=tmp_path / "run")
    encoder = bound.encoder(tmp_path / "run", Inputs(images))
    assert np.array_equal(encoded(encoder, Inputs(images)), features)
    assert np.array_equal(encoded(encoder, Inputs(shares(images))), features)
    assert features.dtype == np.float32
    assert features.std(axis=0).max() > 0


@pytest.mark.parametrize("size", [8, 11, 28, 33])
def test_encoders_of_latents_halve_images_until_they_are_small(size):
    inputs = Inputs(np.random.default_rng(0).random((3, size, size), np.float32))
    encoder = inverse((size, size), inputs.moments, 2, 7).frozen()
    assert encoder(inputs.take(np.arange(3))).shape == (3, 7)
    last = next(layer for layer in encoder.modules() if isinstance(layer, nn.Linear))
    assert last.in_features <= 4 * 2 * 16


def test_latents_are_found_of_a_generator_that_is_nearly_linear(make, tmp_path):
    up, across = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    generator = drawing(torch.stack([up, across]))
    z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    images = (generator.images(z) * 255).round().byte().numpy()
    bound = replace(INVERSION, epochs=25, width=8).on(generator)
    found = make(bound, images, folder=tmp_path / "run")
    assert np.square(found - z.numpy()).mean() < 0.1
    with (tmp_path / "run" / "inversion.csv").open() as file:
        lines = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    assert lines[-1]["latents"] < 0.1
    assert lines[-1]["pixels"] < 0.01
    assert lines[-1]["spread"] == pytest.approx(1, abs=0.3)
    drawn = generator.images(torch.from_numpy(found)).numpy()
    assert np.abs(drawn - shares(images)).mean() < 0.05


def test_the_pixels_bring_latents_of_the_pool_to_what_was_drawn_with_them(make, tmp_path):
    generator = drawing(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1)))
    z = 3 + torch.randn(80, 3, generator=torch.Generator().manual_seed(0))  # where hardly any is drawn
    images = generator.images(z).numpy()
    errors = {}
    for weight in (0.0, 100.0):
        bound = replace(INVERSION, epochs=10, pixel_weight=weight).on(generator)
        found = make(bound, images, folder=tmp_path / str(weight))
        errors[weight] = np.square(generator.images(torch.from_numpy(found)).numpy() - images).mean()
    assert errors[100.0] < 0.7 * errors[0.0]


def test_the_generator_stays_as_it_is_and_pictures_are_left(make, tmp_path):
    images = squares(20)
    generator = untrained(Inputs(images))
    before = {name: value.clone() for name, value in generator.network.state_dict().items()}
    make(INVERSION.on(generator), images, folder=tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in generator.network.state_dict().items())
    assert all(weight.grad is None for weight in generator.network.parameters())
    names = {path.name for path in (tmp_path / "run").iterdir()} - {"state.pt"}
    assert names == {"encoder.pt", "inversion.csv", "inversion.png", "reconstructions.png"}


def test_a_broken_training_goes_on_to_the_same_bits(make, tmp_path):
    images = squares(40)
    bound = INVERSION.on(untrained(Inputs(images)))
    before = torch.get_rng_state()
    whole = make(bound, images)
    assert np.array_equal(whole, made_in_two_goes(bound, unlabeled(images), tmp_path / "broken"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.allclose(whole, make(bound, images, seed=1))


def test_an_encoder_that_finds_nothing_is_said_to_be_one(make, caplog):
    images = squares(20)
    make(replace(INVERSION, epochs=1, learning_rate=1e-9).on(untrained(Inputs(images))), images)
    assert "does not find the generator's latents" in caplog.text


@pytest.mark.parametrize("featurizer", BOTH, ids=NAMES)
def test_another_generator_gives_other_features_under_another_key(tmp_path, featurizer):
    images = squares()
    shelf = Shelf(Cache(str(tmp_path)), "f" * 64, None, Deaf(), lambda kind, folder: None)
    lives = [
        Lifetime(lambda *names: stream(0, *names), featurizer, None, CPU, shelf, gan(iterations=count))
        for count in (1, 2, 2)
    ]
    first, second, third = (life.features(unlabeled(images)) for life in lives)
    assert not np.allclose(first, second)
    assert np.array_equal(second, third)
    assert lives[0]._features_key() != lives[1]._features_key() == lives[2]._features_key()
    assert lives[0]._features_key()["generator"] == lives[0].once["generator_digest"]
    assert len([each for each in shelf.cache.artifacts() if each.listing["kind"] == "features"]) == 2
    encoder = lives[2].encoder(unlabeled(images))
    assert np.array_equal(encoded(encoder, Inputs(images)), third)


@pytest.mark.parametrize("featurizer", BOTH, ids=NAMES)
def test_what_it_cannot_stand_on_is_refused(make, featurizer):
    name = NAMES[BOTH.index(featurizer)]
    bound = featurizer.on(untrained(Inputs(squares())))
    with pytest.raises(ValueError, match=f"featurizer={name} .* got none; choose generator=wgan_gp"):
        make(featurizer, squares())
    with pytest.raises(ValueError, match=r"of shape \(9, 8\), got one of shape \(8, 8\)"):
        make(bound, np.zeros((5, 9, 8), np.uint8))
    with pytest.raises(ValueError, match=r"of shape \(12,\), got one"):
        make(bound, np.zeros((5, 12), np.float32))
    with pytest.raises(ValueError, match=r"wants pixels in \[0, 1\], got numbers from 7 to 7"):
        make(bound, np.full((5, 8, 8), 7, np.float32))


def test_a_loss_that_is_no_number_is_refused_with_a_remedy(make):
    bound = replace(INVERSION, learning_rate=1e30).on(untrained(Inputs(squares())))
    with pytest.raises(ValueError, match=r"in epoch \d .* lower featurizer.learning_rate"):
        make(bound, squares())


@pytest.mark.parametrize("name", NAMES)
def test_choices_are_made_from_settings_and_bring_a_head_its_encoder(name):
    words = (f"featurizer={name}", "generator=wgan_gp", "model=frozen_head", "trainer=frozen_head")
    found = assemble(settings(*words, "dataset=mnist")).featurizer
    assert isinstance(found, OnGenerator)
    assert isinstance(found, Encoding)
    assert found.generator is None
    assert "generator" not in found.identity
