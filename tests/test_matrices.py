"""Feature matrices that are too large for memory, read and written in their file."""

import numpy as np
import pytest
import torch
from conftest import CPU, unlabeled

from alrun.cache import Cache, scratch
from alrun.features import matrices
from alrun.features.encoding import encoded
from alrun.features.fitting import diverged
from alrun.features.vae import Vae
from alrun.lifetime import Lifetime
from alrun.models.encoded import Encoder
from alrun.models.network import Adapt
from alrun.pool import Inputs, Moments, stream
from alrun.shelf import Deaf, Shelf

VAE = Vae(3, "mlp", 2, 1, None, 1.0, "sum", 16, 1e-3, True)


@pytest.fixture
def narrow(monkeypatch) -> None:
    """Matrices of more than 500 bytes count as large, and blocks hold two rows of ten numbers."""
    monkeypatch.setattr(matrices, "MAPPED_BYTES", 500)
    monkeypatch.setattr(matrices, "BLOCK_BYTES", 80)


def points(n: int = 30) -> np.ndarray:
    return np.random.default_rng(0).random((n, 10), np.float32)


def squaring() -> Encoder:
    class Squares(torch.nn.Module):
        def forward(self, x):
            return x**2

    adapt = Adapt((10,), Moments(np.zeros(10, np.float32), np.ones(10, np.float32)), (10,))
    return Encoder(adapt, Squares(), width=10, widest=10)


def test_small_matrices_are_in_memory_and_large_ones_in_their_file(tmp_path, narrow):
    assert not isinstance(matrices.room(2, 10, tmp_path), np.memmap)
    assert not isinstance(matrices.room(30, 10, None), np.memmap)
    large = matrices.room(30, 10, tmp_path)
    assert isinstance(large, np.memmap)
    large[:] = points()
    matrices.keep(tmp_path, large)
    assert np.array_equal(np.load(tmp_path / "features.npy"), points())


def test_what_is_kept_is_read_whichever_way(tmp_path, narrow):
    for count in (2, 30):
        matrices.keep(tmp_path, points(count))
        found = matrices.read(tmp_path)
        assert isinstance(found, np.memmap) == (count == 30)
        assert np.array_equal(found, points(count))
        found[0] = 7  # in memory alone
        assert np.array_equal(matrices.read(tmp_path), points(count))


def test_a_map_of_another_file_is_copied(tmp_path, narrow):
    np.save(tmp_path / "other.npy", points())
    (tmp_path / "kept").mkdir()
    matrices.keep(tmp_path / "kept", np.load(tmp_path / "other.npy", mmap_mode="r"))
    assert np.array_equal(np.load(tmp_path / "kept" / "features.npy"), points())


def test_an_encoder_fills_the_file_block_by_block(tmp_path, narrow, monkeypatch):
    monkeypatch.setattr("alrun.training.parts.CPU_ITEMS", 7)
    written = encoded(squaring(), Inputs(points()), folder=tmp_path)
    assert isinstance(written, np.memmap)
    assert np.array_equal(written, points() ** 2)
    assert np.array_equal(written, encoded(squaring(), Inputs(points())))


def test_moments_and_numbers_are_seen_in_every_block(narrow):
    features = points() * np.arange(10, dtype=np.float32) + 1000
    assert matrices.variances(features) == pytest.approx(features.astype(np.float64).var(axis=0))
    assert matrices.is_finite(features)
    for row in (0, 14, 29):
        broken = features.copy()
        broken[row, 3] = np.nan
        assert not matrices.is_finite(broken)
    assert "in epoch 3 at learning rate 0.1" in str(diverged("nothing", 3, 0.1))


def test_a_run_reads_large_features_from_the_shelf_as_it_made_them(tmp_path, narrow):
    shelf = Shelf(Cache(str(tmp_path)), "f" * 64, None, Deaf(), lambda kind, folder: None)
    pool = unlabeled(points(60))
    lives = [Lifetime(lambda *names: stream(0, *names), VAE, None, CPU, shelf) for _ in range(2)]
    made, read = (life.features(pool) for life in lives)
    assert isinstance(made, np.memmap)
    assert isinstance(read, np.memmap)
    assert np.array_equal(made, read)
    plain = VAE.make(pool, lambda rows: 1 / 0, lives[0]._chance("features", VAE), scratch(tmp_path / "plain"))
    assert np.array_equal(made, plain)
    assert np.array_equal(lives[1].encoded(pool, Inputs(points(12))), made[:12])
