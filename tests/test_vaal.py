"""VAAL: its losses and steps, what it learns, and the head it leaves to strategies."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from adversaries import clusters, gone_on, state
from conftest import CPU, part, settings
from fits import NORMED, PLAIN, Broken, chance, equal, images, pool
from fits import fitted_by as fitted
from torch import nn
from torch.nn import functional

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.models.coder import Coding, scale_of
from alrun.models.discriminator import Discriminator, Familiarity
from alrun.models.vae import VaeNetwork
from alrun.pool import Pool
from alrun.rounds import needed_heads, needs_model
from alrun.strategies.vaal import Vaal as Strategy
from alrun.training.adversary import Adversary, Game, batches
from alrun.training.model import Model, restored
from alrun.training.progress import Silent
from alrun.training.seeding import seeded
from alrun.training.supervised import Supervised
from alrun.training.vaal import Vaal

SMALL = ["width=2", "latent=2", "hidden=[8]", "epochs=3", "steps=null", "batch_size=8"]


def trainer(*changes: str) -> Vaal:
    words = [f"trainer.adversary.{each}" for each in SMALL]
    return part("trainer", "trainer=vaal", "trainer.epochs=3", "trainer.batch_size=8", *words, *changes)


def adversary(**changes) -> Adversary:
    return replace(trainer().adversary, **changes)


def game(data: Pool, **changes) -> Game:
    return Game(adversary(**changes), data, False, chance)


def by_hand(play: Game, x: torch.Tensor) -> list[torch.Tensor]:
    """Squared errors, KL and -log D(mu), each a mean over the batch, by their formulas."""
    mu, logvar = play.vae.encode(x)
    decoded = play.vae.decode(mu + torch.randn_like(mu) * torch.sqrt(logvar.exp()))
    errors = sum((play.vae.coder.scaled(x)[:, j] - decoded[:, j]) ** 2 for j in range(x.shape[1]))
    divergence = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1)
    return [errors.mean(), divergence.mean(), -torch.sigmoid(play.discriminator(mu)).log().mean()]  # type: ignore[union-attr]


def two_batches(data: Pool) -> tuple[torch.Tensor, torch.Tensor]:
    return data.inputs.take(data.labeled[:5]), data.inputs.take(data.unlabeled[:7])


@contextmanager
def moves(one: nn.Module, other: nn.Module, gradients: Sequence[torch.Tensor]) -> Iterator[None]:
    """What happens inside moves all of one module by these gradients, and nothing of the other."""
    before, rival = state(one), state(other)
    yield
    for weight, gradient in zip(one.parameters(), gradients, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, rtol=1e-3, atol=1e-5)
    assert not any(torch.equal(before[name], value) for name, value in one.named_parameters())
    assert equal(rival, state(other))


def test_a_step_of_the_vae_follows_the_gradient_of_the_written_loss_and_moves_the_vae_alone():
    data = pool()
    play = game(data, beta=0.5, weight=3.0)
    labeled, unlabeled = two_batches(data)
    with seeded(np.random.default_rng(1), CPU):
        hand = torch.stack(by_hand(play, labeled)) + torch.stack(by_hand(play, unlabeled))
    expected = torch.autograd.grad(hand[0] + 0.5 * hand[1] + 3.0 * hand[2], list(play.vae.parameters()))
    with seeded(np.random.default_rng(1), CPU), moves(play.vae, play.discriminator, expected):
        terms = play.vae_step(labeled, unlabeled)
    assert torch.allclose(terms, hand, rtol=1e-5)


def test_a_step_of_the_discriminator_moves_it_alone_by_its_own_gradient_only():
    data = pool()
    play = game(data)
    labeled, unlabeled = two_batches(data)
    play.vae_step(labeled, unlabeled)  # leaves gradients in the discriminator, which must not count
    told = [torch.sigmoid(play.discriminator(play.vae.code(x).detach())) for x in (labeled, unlabeled)]
    hand = -told[0].log().mean() - (1 - told[1]).log().mean()
    expected = torch.autograd.grad(hand, list(play.discriminator.parameters()))
    with moves(play.discriminator, play.vae, expected):
        loss = play.discriminator_step(labeled, unlabeled)
    assert torch.allclose(loss, hand, rtol=1e-5)


def test_a_step_is_several_of_the_vae_on_new_batches_and_one_of_the_discriminator_on_the_last(monkeypatch):
    seen: list[tuple[str, list[float], list[float]]] = []
    for kind in ("vae_step", "discriminator_step"):
        plain = getattr(Game, kind)

        def spied(self, labeled, unlabeled, kind=kind, plain=plain):
            seen.append((kind, labeled[:, 0].tolist(), unlabeled[:, 0].tolist()))
            return plain(self, labeled, unlabeled)

        monkeypatch.setattr(Game, kind, spied)
    data = pool()
    facts = game(data, vae_steps=3, steps=4).run(chance, Silent())
    assert facts["train_adversary_steps"] == 4
    assert [kind for kind, *_ in seen] == ["vae_step", "vae_step", "vae_step", "discriminator_step"] * 4
    for start in range(0, 16, 4):
        assert seen[start + 3][1:] == seen[start + 2][1:]
        assert len({tuple(each[2]) for each in seen[start : start + 3]}) == 3
    first = data.inputs.array[:, 0]
    for _, labeled, unlabeled in seen:
        assert set(labeled) <= set(first[data.labeled].tolist())
        assert set(unlabeled) <= set(first[data.unlabeled].tolist())


@pytest.mark.parametrize(("m", "count", "size"), [(10, 7, 4), (3, 5, 8), (1, 4, 2), (8, 2, 4)])
def test_batches_are_full_and_use_each_row_equally_often(m, count, size):
    rows = np.arange(m) * 3
    drawn = batches(rows, count, size, np.random.default_rng(0))
    assert drawn.shape == (count, min(size, m))
    _, times = np.unique(drawn, return_counts=True)
    assert times.sum() == drawn.size
    assert times.max() - (times.min() if len(times) == m else 0) <= 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, (15, 5, 3)), ({"steps": 7}, (7, 5, 2)), ({"batch_size": 100, "epochs": 4}, (4, 1, 4))],
)
def test_an_epoch_is_as_many_steps_as_batches_fit_into_the_pool(changes, expected):
    assert adversary(**changes).plan(pool()) == expected
    assert game(pool(), **changes).run(chance, Silent())["train_adversary_steps"] == expected[0]


def test_the_discriminator_tells_an_unlabeled_cluster_and_the_strategy_takes_it_first(situation):
    data = clusters()
    play = adversary(steps=300, learning_rate=3e-3, latent=4, width=8, batch_size=32)
    head, facts = play.fit(data, mixed_precision=False, chance=chance, progress=Silent())
    assert facts["train_discriminator_loss"] < 1.2 < 2 * np.log(2)
    at = situation()
    at.pool = data
    at.model = Model(at.model.network, data.inputs, {}, nn.ModuleDict({"discriminator": head}))
    who = Strategy()
    batch = who.select(at.round(who, 60), 60)
    assert (batch.rows % 2 == 1).all()
    assert (np.diff(batch.scores) >= 0).all()
    assert batch.scores[0] < 0.5
    scores = at.model.head("discriminator", data.unlabeled)[:, 0]
    assert batch.scores.tolist() == np.sort(scores)[:60].tolist()
    assert scores.max() < 1


def test_the_network_is_that_of_supervised_training_bit_for_bit():
    data = pool()
    who = trainer("trainer.patience=2", "trainer.validation=0.2")
    plain = Supervised(**{name: getattr(who, name) for name in Supervised.__dataclass_fields__})
    model, alone = fitted(who, data, NORMED), fitted(plain, data, NORMED)
    assert equal(state(model.network), state(alone.network))
    assert alone.facts.items() < model.facts.items()
    assert model.facts["train_adversary_steps"] == 15


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 6])
def test_a_fit_broken_off_in_either_part_continues_to_the_same_bits(stop):
    data, who = pool(), trainer()
    whole = fitted(who, data, NORMED)
    broken = Broken(stop)
    with pytest.raises(KeyboardInterrupt):
        fitted(who, data, NORMED, broken)
    broken.stop = -1
    calls = []
    broken.epoch = lambda done, total: calls.append((done, total))
    continued = fitted(who, data, NORMED, broken)
    assert calls == [(done, 6) for done in range(stop + 1, 7)]
    assert equal(whole.weights, continued.weights)
    assert whole.facts == continued.facts


@pytest.mark.parametrize("make", [pool, lambda: images(shape=(8, 8)), images])
def test_a_restored_model_has_the_same_bits_and_no_decoder(make):
    data, who = make(), trainer("trainer.adversary.steps=2")
    data = Pool(data.inputs, np.where(np.arange(len(data)) < 12, data.labels, -1), 3)
    model = fitted(who, data)
    chance_before = torch.get_rng_state()
    weights = {name: each.clone() for name, each in model.weights.items()}
    again = who.restored(PLAIN, data, weights, model.facts)
    assert torch.equal(chance_before, torch.get_rng_state())
    assert not any("decoder" in name for name in model.weights)
    rows = np.arange(len(data))
    np.testing.assert_array_equal(model.head("discriminator", rows), again.head("discriminator", rows))
    np.testing.assert_array_equal(model.predict(rows), again.predict(rows))
    assert equal(model.weights, again.weights)


def test_weights_of_another_trainer_are_refused():
    data = pool()
    with pytest.raises(RuntimeError, match="discriminator"):
        restored(PLAIN, data, fitted(trainer("trainer.adversary.steps=1"), data).weights, {})


def test_one_label_is_enough_and_without_unlabeled_rows_nothing_is_fitted():
    who = trainer()
    one = pool(bought=1)
    assert fitted(who, one).facts["train_adversary_steps"] == 15
    assert np.isfinite(fitted(who, one).head("discriminator", np.arange(40))).all()
    lonely = images(shape=(8, 8))
    lonely = Pool(lonely.inputs, np.where(np.arange(24) < 1, lonely.labels, -1), 3)
    assert np.isfinite(fitted(who, lonely).head("discriminator", np.arange(24))).all()
    every = fitted(who, pool(bought=40))
    assert every.facts["train_adversary_steps"] == 0
    assert "train_discriminator_loss" not in every.facts
    assert every.head("discriminator", np.arange(40)).shape == (40, 1)


def test_no_label_inputs_that_are_no_numbers_and_a_loss_out_of_bounds_are_clear_errors():
    with pytest.raises(ValueError, match="none was bought"):
        fitted(trainer(), pool(bought=0))
    data = pool()
    data.inputs.array[35, 0] = np.nan  # an unlabeled row: the network's own training stays finite
    with pytest.raises(ValueError, match=r"(?i)nan"):
        adversary().fit(data, mixed_precision=False, chance=chance, progress=Silent())
    with pytest.raises(ValueError, match=r"epoch 1 at learning rate 1e\+20; lower trainer.adversary"):
        adversary(learning_rate=1e20).fit(pool(), mixed_precision=False, chance=chance, progress=Silent())


def test_the_head_gives_probabilities_row_by_row_whatever_the_mini_batch(monkeypatch):
    data = images()
    with seeded(np.random.default_rng(0), CPU):
        vae = VaeNetwork(Coding(2, "cnn", 2), data.inputs.shape, scale_of(data.inputs))
        model = fitted(trainer("trainer.adversary.steps=1"), data)
        head = Familiarity(vae, Discriminator(2, [8]))
        model = replace(model, heads=nn.ModuleDict({"discriminator": head}))
    whole = model.head("discriminator", np.arange(24))
    assert 0 <= whole.min() < whole.max() <= 1
    monkeypatch.setattr("alrun.training.parts.CPU_ITEMS", 5)
    np.testing.assert_allclose(model.head("discriminator", np.arange(24)), whole, rtol=1e-5)
    code = vae.eval().code(data.inputs.take(np.arange(24)))
    logits = head.discriminator(code)
    np.testing.assert_allclose(functional.sigmoid(logits).detach().numpy(), whole[:, 0], rtol=1e-5)


def test_a_strategy_that_needs_a_head_needs_a_model_and_a_trainer_that_fits_it():
    who = Strategy()
    assert needed_heads(who) == {"discriminator"}
    assert needs_model(who, None)
    words = ["trainer._target_=alrun.training.supervised.Supervised", "~trainer.adversary"]
    with pytest.raises(ConfigError) as caught:
        assemble(settings("strategy=vaal", *words))
    assert caught.value.problems == [
        "trainer: vaal needs a trainer with the head 'discriminator' and got supervised; choose trainer=vaal"
    ]
    for words in (["strategy=vaal", "strategy@budget.first=vaal"], ["strategy@budget.first=vaal"]):
        with pytest.raises(ConfigError) as caught:
            assemble(settings(*words))
        (line,) = caught.value.problems
        assert line.startswith("budget.first: chooses before there is a model, which vaal needs")


def test_the_strategy_keeps_the_trainer_of_data_set_and_experiment():
    for words in (["dataset=cifar10"], ["+experiment=s0_mnist_fc"], ["trainer.epochs=7", "dataset=svhn"]):
        plain = settings(*words, "strategy=margin")["trainer"]
        found = settings(*words, "strategy=vaal")["trainer"]
        assert {**found, "_target_": plain["_target_"]} == {**plain, "adversary": found["adversary"]}
        assert settings(*words, "strategy=margin", "+needs@_global_=vaal")["trainer"] == found
    experiment = assemble(settings("strategy=margin", "trainer=vaal", "trainer.adversary.steps=4"))
    assert isinstance(experiment.trainer, Vaal)
    assert experiment.trainer.adversary.steps == 4


def test_a_run_that_goes_on_with_restored_heads_chooses_the_same(tmp_path):
    words = [f"trainer.adversary.{each}" for each in SMALL]
    words += ["tracker=none", "budget.rounds=3", "trainer.epochs=2", "dataset.pool_size=120"]
    words += ["trainer.adversary.epochs=1"]
    found = {**settings("strategy=vaal", *words), "choices": {"dataset": "digits", "strategy": "vaal"}}
    whole, again = gone_on(found, tmp_path)
    for one, other in zip(again.records, whole.records, strict=True):
        assert one["train_discriminator_loss"] == other["train_discriminator_loss"]
    assert {record["train_adversary_steps"] for record in whole.records} == {15}
