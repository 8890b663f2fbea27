"""Contrastive learning: its loss, the training loop and what is left of it."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import settings, unlabeled
from interrupted import made_in_two_goes
from torch.nn import functional

from alrun.assembly import assemble
from alrun.features.encoding import encoded
from alrun.features.simclr import Simclr, nt_xent
from alrun.models.trunk import Trunks
from alrun.pool import Inputs
from alrun.training.views import Views

SMALL = Simclr(
    architecture="cnn",
    width=2,
    hidden=16,
    projection=8,
    epochs=3,
    batch_size=16,
    learning_rate=5e-3,
    final_rate=1e-4,
    temperature=0.5,
    views=Views(0.5, False, 0.4, 0.4, 0.4, 0.1, 0.8, 0.2),
    mixed_precision=True,
)


def shapes(n: int = 60, side: int = 8) -> np.ndarray:
    """Gray uint8 images of four kinds: a bar, a square, a frame or a cross, on noise."""
    chance = np.random.default_rng(0)
    images = chance.integers(0, 40, (n, side, side), dtype=np.uint8)
    for row, image in enumerate(images):
        kind = row % 4
        if kind == 0:
            image[2:4] = 250
        if kind == 1:
            image[2:6, 2:6] = 250
        if kind == 2:
            image[[0, -1]] = image[:, [0, -1]] = 250
        if kind == 3:
            image[4], image[:, 4] = 250, 250
    return images


def unit_vectors(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_identical_pairs_among_orthogonal_others_lose_what_the_closed_form_says(temperature):
    vectors = torch.eye(6)
    loss = nt_xent(vectors, vectors, temperature)
    assert float(loss) == pytest.approx(math.log(1 + 10 * math.exp(-1 / temperature)), rel=1e-5, abs=2e-6)


def test_the_loss_of_random_vectors_is_about_that_of_a_guess():
    first, second = unit_vectors(200, 64), unit_vectors(200, 64, seed=1)
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(math.log(399), abs=0.1)


def test_the_loss_of_vectors_that_are_all_the_same_is_that_of_a_guess():
    same = torch.ones(8, 4) / 2
    assert float(nt_xent(same, same, 0.07)) == pytest.approx(math.log(15), rel=1e-6)
    assert float(nt_xent(same[:1], same[:1], 0.5)) == 0


def test_the_loss_is_that_of_a_loop_over_its_definition():
    first, second = unit_vectors(5, 3), unit_vectors(5, 3, seed=1)
    both, losses = torch.cat([first, second]).double(), []
    for i in range(10):
        terms = [math.exp(float(both[i] @ both[k]) / 0.3) for k in range(10)]
        losses.append(-math.log(terms[(i + 5) % 10] / (sum(terms) - terms[i])))
    assert float(nt_xent(first, second, 0.3)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_loss_stays_finite_at_small_temperatures_and_so_do_its_gradients():
    first = unit_vectors(4, 3).requires_grad_()
    loss = nt_xent(first, unit_vectors(4, 3, seed=1), 1e-3)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("architecture", ["cnn", "mlp", "resnet18", "resnet34"])
@pytest.mark.parametrize("shape", [(8, 8), (3, 12, 10)], ids=str)
def test_trunks_take_gray_and_color_images_and_keep_their_width(architecture, shape):
    stored = np.random.default_rng(0).random((3, *shape), np.float32)
    inputs = Inputs(stored)
    trunk = Trunks(architecture, 4).build(shape, inputs.moments)
    encoder = trunk.frozen()
    assert encoder(inputs.take(np.arange(3))).shape == (3, encoder.width)
    assert encoder.width == (512 if "resnet" in architecture else 32)
    assert not encoder.train().training
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_training_brings_images_of_a_kind_together(make, tmp_path):
    images = shapes(120)
    longer = replace(SMALL, epochs=25, width=4, batch_size=40, views=replace(SMALL.views, contrast=0.8))
    features = make(longer, images, folder=tmp_path / "run")
    vectors = features / np.linalg.norm(features, axis=1, keepdims=True)
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:6]
    assert (nearest % 4 == np.arange(120)[:, None] % 4).mean() > 0.9
    with (tmp_path / "run" / "simclr.csv").open() as file:
        lines = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
    assert len(lines) == 25
    assert lines[-1]["loss"] < lines[0]["loss"] < math.log(79) + 0.2
    assert lines[-1]["positive"] > lines[0]["positive"]
    assert lines[0]["rate"] == 5e-3 > lines[12]["rate"] > lines[-1]["rate"] > 1e-4


def test_a_folder_holds_table_pictures_and_an_encoder_that_gives_the_same_features(make, tmp_path):
    images = shapes()
    features = make(SMALL, images, folder=tmp_path / "run")
    assert features.dtype == np.float32
    names = {path.name for path in (tmp_path / "run").iterdir()} - {"state.pt"}
    assert names == {"encoder.pt", "simclr.csv", "simclr.png", "views.png"}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    encoder = SMALL.encoder(tmp_path / "run", Inputs(images))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(encoded(encoder, Inputs(images)), features)


def test_seeds_decide_all_and_leave_torch_alone(make):
    images, before = shapes(), torch.get_rng_state()
    first = make(SMALL, images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert np.array_equal(first, make(SMALL, images))
    assert not np.allclose(first, make(SMALL, images, seed=1))
    torch.set_rng_state(before)


def test_a_broken_training_goes_on_to_the_same_bits(make, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    longer = replace(SMALL, epochs=5)
    again = made_in_two_goes(longer, unlabeled(images), tmp_path / "broken")
    assert np.array_equal(make(longer, images), again)


@pytest.mark.parametrize("n", [1, 2, 17, 33])
def test_tiny_pools_and_pools_of_no_whole_batches_are_encoded(make, n):
    features = make(replace(SMALL, epochs=1), shapes(n))
    assert features.shape == (n, 16)
    assert np.isfinite(features).all()


def test_an_encoder_that_learned_nothing_is_said_to_be_one(make, caplog):
    make(replace(SMALL, epochs=1, learning_rate=1e-9, temperature=100.0), shapes())
    assert "collapsed or learned nothing" in caplog.text
    caplog.clear()
    make(SMALL, shapes())
    assert "collapsed" not in caplog.text


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 12), np.float32), r"featurizer=simclr needs images .* got items of shape \(12,\)"),
        (np.zeros((5, 4, 8, 8), np.uint8), r"c in \(1, 3\), got items of shape \(4, 8, 8\)"),
        (np.full((5, 8, 8), 7.0, np.float32), r"wants pixels in \[0, 1\], got numbers from 7 to 7"),
        (np.full((5, 8, 8), np.nan, np.float32), "row 0"),
    ],
    ids=["vectors", "four channels", "another scale", "no numbers"],
)
def test_items_it_cannot_view_are_refused(make, points, message):
    with pytest.raises(ValueError, match=message):
        make(SMALL, points)


def test_a_loss_that_is_no_number_is_refused_with_a_remedy(make):
    with pytest.raises(ValueError, match=r"in epoch \d .* lower featurizer.learning_rate"):
        make(replace(SMALL, learning_rate=1e30), shapes())


@pytest.mark.parametrize(
    ("dataset", "values"),
    [
        ("stl10", ("resnet18", 128, 0.08, True)),
        ("cifar10", ("resnet34", 512, 0.08, True)),
        ("svhn", ("resnet34", 512, 0.5, False)),
    ],
)
def test_data_sets_of_s2_bring_its_encoder_batch_and_views(dataset, values):
    found = assemble(settings(f"dataset={dataset}", "featurizer=simclr")).featurizer
    assert values == (found.architecture, found.batch_size, found.views.smallest_crop, found.views.flip)
    assert (found.epochs, found.learning_rate, found.final_rate, found.temperature) == (500, 1e-3, 1e-5, 0.5)
