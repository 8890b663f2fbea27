"""A head on a featurizer's frozen encoder: its network and its training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, settings
from torch import nn

from alrun.assembly import assemble
from alrun.data.bundled import Digits
from alrun.features.encoding import encoded
from alrun.lifetime import Lifetime
from alrun.models.encoded import Encoder, FrozenHead
from alrun.models.network import Adapt
from alrun.pool import Inputs, Pool, stream
from alrun.training.model import remember
from alrun.training.progress import Silent

ENCODED = ["trainer=frozen_head", "featurizer=vae"]


class Counting(nn.Module):
    """Image to numbers, by weights of its own; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 6)
        self.norm = nn.BatchNorm1d(6)
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x)
        return self.norm(self.linear(x.flatten(1)))


class Broken(Silent):
    """Keeps every state, and dies at the end of an epoch once."""

    def __init__(self, dies: int) -> None:
        self.dies, self.state = dies, None

    def epoch(self, done, total):
        if done == self.dies:
            self.dies = 0
            raise KeyboardInterrupt

    def keep(self, epoch, make):
        self.state = torch.save(make(), "state.pt")

    def load(self):
        return torch.load("state.pt") if Path("state.pt").exists() else None


@pytest.fixture
def pool() -> Pool:
    """Sixty digits, thirty of them labeled."""
    data = Digits(None, None, False).load(Path(), stream(0, "split"))
    labels = np.where(np.arange(60) % 2, data.labels[:60], -1)
    return Pool(Inputs(data.inputs[:60]), labels, 10)


def encoder(pool: Pool) -> tuple[Encoder, Counting]:
    torch.manual_seed(0)
    layers = Counting()
    layers.norm.running_mean.normal_()
    adapt = Adapt(pool.inputs.shape, pool.inputs.moments, (1, 8, 8))
    return Encoder(adapt, layers, width=6, widest=64), layers


def fitted(pool: Pool, architecture, *words: str, progress=None, **fields):
    trainer = replace(assemble(settings(*ENCODED, "trainer.epochs=3", *words)).trainer, **fields)
    return trainer.fit(
        architecture,
        pool,
        chance=lambda *names: stream(0, *names),
        start=None,
        progress=progress or Silent(),
    )


def kinds(body: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in body.children()]


def test_the_head_is_the_one_of_s2_for_images_and_for_office(pool):
    base, _ = encoder(pool)
    images = FrozenHead(4, True, 0.0).on(base).build(pool.inputs.shape, pool.inputs.moments, 10)
    assert kinds(images.body) == ["Linear", "BatchNorm1d", "ReLU"]
    office = FrozenHead(4, False, 0.5).on(base).build(pool.inputs.shape, pool.inputs.moments, 10)
    assert kinds(office.body) == ["Linear", "ReLU", "Dropout"]
    assert (images.body[0].in_features, images.head.in_features, images.head.out_features) == (6, 4, 10)


def test_training_moves_the_head_and_nothing_of_the_encoder(pool):
    base, _ = encoder(pool)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = fitted(pool, FrozenHead(4, True, 0.0).on(base))
    after = base.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not base.layers.training
    rows = np.arange(60)
    assert model.embed(rows).shape == (60, 4)
    by_hand = model.network.body(torch.from_numpy(encoded(base, pool.inputs)))
    assert np.allclose(model.embed(rows), by_hand.detach().numpy(), atol=1e-5)
    longer = fitted(pool, FrozenHead(64, True, 0.0).on(base), epochs=60, learning_rate=0.03)
    known = pool.labeled
    assert (longer.predict(known).argmax(1) == pool.labels[known]).mean() > 0.6


def test_a_state_leaves_the_encoder_out_and_loading_one_leaves_it_alone(pool):
    base, layers = encoder(pool)
    model = fitted(pool, FrozenHead(4, True, 0.0).on(base))
    assert {name.split(".")[0] for name in model.weights} == {"body", "head"}
    trainer = assemble(settings(*ENCODED)).trainer
    weights = layers.linear.weight.clone()
    again = trainer.restored(FrozenHead(4, True, 0.0).on(base), pool, model.weights, {})
    assert torch.equal(layers.linear.weight, weights)
    assert np.array_equal(again.predict(np.arange(60)), model.predict(np.arange(60)))
    network = again.network
    with pytest.raises(RuntimeError, match="Missing"):
        network.load_state_dict({name: value for name, value in model.weights.items() if "body" not in name})


def test_augmented_images_go_through_the_encoder_anew_in_each_step(pool):
    base, layers = encoder(pool)
    architecture = FrozenHead(4, True, 0.0).on(base)
    remember(base, pool.inputs, encoded(base, pool.inputs))
    layers.seen.clear()
    plain = fitted(pool, architecture, crop=0, flip=False, batch_size=10)
    assert not layers.seen
    fitted(pool, architecture, crop=2, flip=False, batch_size=10, epochs=2)
    assert [len(x) for x in layers.seen] == [10] * 6
    stored = base.adapt(pool.inputs.take(np.arange(60)))
    moved = [not any(torch.allclose(image, other) for other in stored) for x in layers.seen for image in x]
    assert sum(moved) > 40
    layers.seen.clear()
    plain.predict(np.arange(60))
    assert not layers.seen


def test_no_more_items_enter_the_encoder_at_once_than_where_it_is_widest(pool, monkeypatch):
    monkeypatch.setattr("alrun.training.parts.CPU_NUMBERS", 700)
    base, layers = encoder(pool)
    base.widest = 100
    plain = fitted(pool, FrozenHead(4, True, 0.0).on(base), crop=0, flip=False)
    plain.predict(np.arange(60))
    assert [len(x) for x in layers.seen] == [7] * 8 + [4]


def test_encoding_leaves_inputs_fit_for_training(pool):
    encoded(encoder(pool)[0], pool.inputs)
    assert not pool.inputs._resident.is_inference()


def test_outputs_are_remembered_for_the_encoder_they_are_of_alone(pool):
    base, _ = encoder(pool)
    architecture = FrozenHead(4, True, 0.0).on(base)
    remember(base, pool.inputs, np.ones((60, 6), np.float32))
    model = fitted(pool, architecture, crop=0, flip=False)
    assert np.ptp(model.embed(np.arange(60)), axis=0).max() < 1e-5
    assert len(np.unique(model.on(Inputs(pool.inputs.array)).embed(np.arange(60)), axis=0)) > 50
    with torch.no_grad():
        base.layers.linear.bias += 1
    assert len(np.unique(fitted(pool, architecture, crop=0, flip=False).embed(np.arange(60)), axis=0)) > 50


@pytest.mark.parametrize("crop", [0, 1])
def test_a_broken_fit_goes_on_to_the_same_bits(pool, crop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    architecture = FrozenHead(4, True, 0.3).on(encoder(pool)[0])
    fit = dict(crop=crop, flip=bool(crop), epochs=5, patience=4)
    whole = fitted(pool, architecture, **fit)
    broken = Broken(3)
    with pytest.raises(KeyboardInterrupt):
        fitted(pool, architecture, progress=broken, **fit)
    again = fitted(pool, architecture, progress=broken, **fit)
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())


def test_vectors_take_a_head_but_neither_crops_nor_flips():
    points = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    pool = Pool(Inputs(points), np.arange(20) % 2, 2)
    adapt = Adapt((5,), pool.inputs.moments, (5,))
    architecture = FrozenHead(4, True, 0.0).on(Encoder(adapt, nn.Linear(5, 3), width=3, widest=5))
    assert fitted(pool, architecture, crop=0, flip=False).predict(np.arange(20)).shape == (20, 2)
    with pytest.raises(ValueError, match=r"trainer\.rotation and trainer\.flip need images"):
        fitted(pool, architecture, crop=4, flip=False)


@pytest.mark.parametrize("featurizer", ["simclr", "vae", "autoencoder"])
def test_what_featurizers_leave_behind_encodes_as_they_did(pool, featurizer):
    words = ["dataset=digits", f"featurizer={featurizer}", "featurizer.width=2", "featurizer.epochs=1"]
    life = Lifetime(lambda *names: stream(0, *names), assemble(settings(*words)).featurizer, None, CPU)
    found = life.encoder(pool)
    assert np.array_equal(encoded(found, pool.inputs), life.features(pool))
    assert found.width == life.features(pool).shape[1]
