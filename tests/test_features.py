from pathlib import Path

import numpy as np
import pytest
from conftest import unlabeled
from hydra.utils import instantiate
from omegaconf import OmegaConf

from alrun.cache import scratch
from alrun.features.featurizer import Featurizer
from alrun.features.simple import Pca, Penultimate, Pixels

CONF = Path(__file__).parent.parent / "conf" / "featurizer"


def refuse(rows: np.ndarray) -> np.ndarray:
    raise AssertionError("asked for embeddings")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def making(tmp_path):
    return lambda: scratch(tmp_path)


def spread(n: int = 60, d: int = 8) -> np.ndarray:
    """Points whose axes differ clearly in width, turned at random."""
    chance = np.random.default_rng(3)
    turn, _ = np.linalg.qr(chance.normal(size=(d, d)))
    return ((chance.normal(size=(n, d)) * 3.0 ** -np.arange(d)) @ turn).astype(np.float32)


def exact(points: np.ndarray, count: int) -> np.ndarray:
    """Projections by a float64 singular value decomposition, largest weight of each component positive."""
    centered = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    components = np.linalg.svd(centered, full_matrices=False)[2][:count]
    largest = np.abs(components).argmax(1)
    components *= np.sign(components[np.arange(count), largest])[:, None]
    return centered @ components.T


PRESETS = ["penultimate", "pixels", "pca", "vae", "autoencoder", "pretrained", "s4_autoencoder"]


@pytest.mark.parametrize("name", [*PRESETS, "discriminator", "gan_inversion"])
def test_every_preset_is_a_featurizer(name):
    featurizer = instantiate(OmegaConf.load(CONF / f"{name}.yaml"), _convert_="all")
    assert isinstance(featurizer, Featurizer)
    assert featurizer.depends_on_model == (name == "penultimate")


def test_penultimate_features_are_the_embeddings_of_all_rows_in_order(making):
    asked = []

    def embed(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return np.stack([rows, -rows], axis=1).astype(np.float32)

    features = Penultimate().make(unlabeled(spread(7)), embed, rng(), making())
    assert features.tolist() == [[row, -row] for row in range(7)]
    assert len(asked) == 1


def test_pixels_are_flat_and_on_the_unit_scale_whatever_the_blocks(monkeypatch, making):
    stored = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5), dtype=np.uint8)
    whole = Pixels().make(unlabeled(stored), refuse, rng(), making())
    assert whole.dtype == np.float32
    assert np.allclose(whole, stored.reshape(9, 60) / 255)
    monkeypatch.setattr("alrun.inputs.BLOCK_BYTES", 100)
    assert np.array_equal(whole, Pixels().make(unlabeled(stored), refuse, rng(), making()))


@pytest.mark.parametrize("shape", [(60, 8), (600, 8), (12, 40)], ids=str)
def test_components_match_an_exact_decomposition(shape, making):
    points = spread(*shape)
    features = Pca(4).make(unlabeled(points), refuse, rng(), making())
    assert features.dtype == np.float32
    assert np.allclose(features, exact(points, 4), atol=1e-3)


def test_the_randomized_solver_finds_the_wide_components_and_repeats_itself(making):
    points = spread(900, 600)
    features = Pca(3).make(unlabeled(points), refuse, rng(), making())
    assert np.allclose(features, exact(points, 3), atol=1e-3)
    assert np.array_equal(features, Pca(3).make(unlabeled(points), refuse, rng(), making()))


def test_pools_that_do_not_fit_are_decomposed_block_by_block(monkeypatch, making):
    points = spread(500)
    monkeypatch.setattr("alrun.features.simple.WHOLE_BYTES", 0)
    monkeypatch.setattr("alrun.features.simple.BLOCK_ROWS", 64)
    features = Pca(3).make(unlabeled(points), refuse, rng(), making())
    assert features.dtype == np.float32
    assert np.allclose(features, exact(points, 3), atol=0.02)


def test_permuted_items_give_permuted_components(making):
    points, order = spread(), np.random.default_rng(1).permutation(60)
    whole, moved = (Pca(3).make(unlabeled(each), refuse, rng(), making()) for each in (points, points[order]))
    assert np.allclose(whole[order], moved, atol=1e-4)


@pytest.mark.parametrize("whole", [True, False])
def test_there_are_never_more_components_than_items_or_pixels(monkeypatch, whole, making):
    monkeypatch.setattr("alrun.features.simple.WHOLE_BYTES", 2**30 if whole else 0)
    assert Pca(50).make(unlabeled(spread(60, 8)), refuse, rng(), making()).shape == (60, 8)
    assert Pca(50).make(unlabeled(spread(5, 8)), refuse, rng(), making()).shape == (5, 5)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_constant_items_have_features_of_zero(n, making):
    features = Pca(3).make(unlabeled(np.full((n, 4), 7, np.uint8)), refuse, rng(), making())
    assert np.allclose(features, 0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("featurizer", [Pixels(), Pca(2)], ids=["pixels", "pca"])
def test_inputs_that_are_no_numbers_are_refused_by_row(featurizer, bad, making):
    points = spread()
    points[17, 3] = bad
    with pytest.raises(ValueError, match="row 17"):
        featurizer.make(unlabeled(points), refuse, rng(), making())


def test_components_leave_the_inputs_as_they_were(making):
    points = spread()
    before = points.copy()
    Pca(2).make(unlabeled(points), refuse, rng(), making())
    assert np.array_equal(points, before)
