"""WAAL's trainer: losses and steps, what network and critic learn, how long a fit takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from adversaries import state
from conftest import CPU, part
from fits import DROPPED, NORMED, PLAIN, Broken, Frozen, chance, equal, images, pool
from fits import fitted_by as fitted
from torch import nn

from alrun.models.cnn import Lenet, S0Cnn
from alrun.models.critic import Critic
from alrun.models.linear import Linear
from alrun.models.resnet import Resnet
from alrun.models.vgg import Vgg16
from alrun.pool import Pool
from alrun.training.model import Model
from alrun.training.seeding import seeded
from alrun.training.supervised import Supervised
from alrun.training.waal import Game, Waal, gradient_penalty

SMALL = {"epochs": 3, "steps": None, "batch_size": 8, "critic_hidden": [6]}


def trainer(**changes) -> Waal:
    return replace(part("trainer", "trainer=waal"), **{**SMALL, **changes})


def game(data: Pool, architecture: Any = PLAIN, **changes) -> Game:
    with seeded(np.random.default_rng(3), CPU):
        network = architecture.build(data.inputs.shape, data.inputs.moments, data.classes)
    settings = {"critic_dropout": 0.0, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1}
    begun = trainer(**settings, **changes).begun(network, data, data.labeled, np.empty(0, np.int64), chance)
    assert isinstance(begun, Game)
    return begun


def two_batches(play: Game, data: Pool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, others = (
        play.network.fixed(data.inputs.take(rows)) for rows in (data.labeled[:5], data.unlabeled[:7])
    )
    return x, torch.from_numpy(data.labels[data.labeled[:5]]), others


def gap_by_hand(play: Game, labeled: torch.Tensor, unlabeled: torch.Tensor) -> torch.Tensor:
    ratio = 30 / 10  # labeled over unlabeled items of `pool()`
    return play.critic(unlabeled).mean() - ratio * play.critic(labeled).mean()


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope():
    weights = torch.tensor([[3.0, 4.0]])
    for labeled, unlabeled in ((5, 5), (1, 7), (6, 2)):
        points = [torch.randn(count, 2) for count in (labeled, unlabeled)]
        assert gradient_penalty(lambda z: z @ weights.T, *points).item() == pytest.approx(16.0, rel=1e-5)
        unit = gradient_penalty(lambda z: z @ weights.T / 5 + 7, *points)
        assert unit.item() == pytest.approx(0.0, abs=1e-6)


def test_the_penalty_is_taken_at_all_features_and_between_pairs_and_is_finite_where_a_critic_is_flat():
    seen = []

    def bowl(z):
        seen.append(z.detach())
        return (z**2).sum(1, keepdim=True) / 2  # its slope at z is z

    labeled, unlabeled = torch.zeros(2, 3), torch.arange(1.0, 6.0)[:, None] * torch.tensor([[1.0, 2.0, 2.0]])
    found = gradient_penalty(bowl, labeled, unlabeled)
    points = seen[0]
    shares = points[:5] / unlabeled
    assert torch.allclose(shares, shares[:, :1].expand(-1, 3))
    assert ((shares > 0) & (shares < 1)).all()
    assert len(set(shares[:, 0].tolist())) == 5
    assert {tuple(each) for each in points[5:].tolist()} == {
        tuple(each) for each in [*unlabeled.tolist(), *labeled.tolist()]
    }
    assert found.item() == pytest.approx(((points.norm(dim=1) - 1) ** 2).mean().item(), rel=1e-5)
    flat = nn.Linear(3, 1)
    nn.init.zeros_(flat.weight)
    gradient_penalty(flat, labeled, unlabeled).backward()
    assert flat.weight.grad is not None
    assert flat.weight.grad.isfinite().all()


def test_a_step_of_the_network_follows_the_gradient_of_the_written_loss_and_moves_it_alone():
    data = pool()
    play = game(data, alpha=0.5)
    x, y, others = two_batches(play, data)
    loss = nn.functional.cross_entropy(play.network.trainable(x), y)
    whole = loss + 0.5 * gap_by_hand(play, play.network.body(x), play.network.body(others))
    expected = torch.autograd.grad(whole, list(play.network.parameters()))
    before, rival = state(play.network), state(play.critic)
    assert play.network_step(x, y, others) == loss
    for (name, weight), gradient in zip(play.network.named_parameters(), expected, strict=True):
        assert torch.allclose(before[name] - 0.1 * gradient, weight, rtol=1e-4, atol=1e-6)
    assert equal(rival, state(play.critic))


@pytest.mark.parametrize("repo_sign", [False, True])
def test_a_step_of_the_critic_moves_it_alone_and_its_penalty_can_have_the_sign_of_the_published_code(
    repo_sign,
):
    data = pool()
    play = game(data, alpha=0.5, penalty=3.0, repo_sign=repo_sign)
    x, y, others = two_batches(play, data)
    play.network_step(x, y, others)  # leaves gradients in the critic, which must not count
    near, far = play.network.body(x).detach(), play.network.body(others).detach()
    gap = gap_by_hand(play, near, far)
    with seeded(np.random.default_rng(1), CPU):
        penalty = gradient_penalty(play.critic, near, far)
    whole = 0.5 * ((-3.0 if repo_sign else 3.0) * penalty - gap)
    expected = torch.autograd.grad(whole, list(play.critic.parameters()))
    before, rival = state(play.critic), state(play.network)
    with seeded(np.random.default_rng(1), CPU):
        told = play.critic_step(x, others)
    assert torch.allclose(told, torch.stack([gap, penalty]), rtol=1e-5)
    for (name, weight), gradient in zip(play.critic.named_parameters(), expected, strict=True):
        assert torch.allclose(before[name] - 0.1 * gradient, weight, rtol=1e-4, atol=1e-6)
    assert equal(rival, state(play.network))


@pytest.mark.parametrize(
    ("changes", "bought", "expected"),
    [
        ({}, 30, (12, 4, 3)),
        ({}, 5, (15, 5, 3)),
        ({"steps": 7}, 5, (7, 5, 2)),
        ({"batch_size": 64}, 5, (3, 1, 3)),
    ],
)
def test_both_streams_are_cycled_to_the_longer_one(changes, bought, expected, monkeypatch):
    data, seen = pool(bought=bought), []
    plain = Game.network_step

    def spied(self, x, y, others):
        seen.append((x[:, 0].tolist(), others[:, 0].tolist()))
        return plain(self, x, y, others)

    monkeypatch.setattr(Game, "network_step", spied)
    who = trainer(**changes)
    facts = fitted(who, data).facts
    assert (facts["train_critic_steps"], facts["train_epochs"], len(seen)) == (
        expected[0],
        expected[2],
        expected[0],
    )
    assert facts["train_images"] == sum(len(x) + len(others) for x, others in seen)
    for batches, rows in zip(zip(*seen, strict=True), (data.labeled, data.unlabeled), strict=True):
        assert {len(batch) for batch in batches} == {min(who.batch_size, len(rows))}
        items, times = np.unique(np.concatenate(batches[: expected[1]]), return_counts=True)
        assert len(items) == len(rows)
        assert times.max() - times.min() <= 1


@pytest.mark.parametrize(
    ("architecture", "shape", "width", "hidden"),
    [
        (PLAIN, (5,), 6, 0),
        (NORMED, (5,), 6, 0),
        (Linear(0.0), (5,), 5, 0),
        (Lenet([], 0.3), (28, 28), 400, 2),
        (S0Cnn(0.0), (28, 28), 3136, 2),
        (Resnet(18, "small", [7], 0.5, False, False, False, None), (3, 8, 8), 512, 1),
        (Resnet(18, "small", [], 0.5, False, False, False, None), (3, 8, 8), 512, 0),
        (Vgg16(True, [50], 0.5, False, False, None), (3, 32, 32), 512, 1),
        (Vgg16(False, [50], 0.5, False, True, None), (3, 32, 32), 512, 1),
        (Frozen(), (5,), 6, 1),
    ],
)
def test_the_critic_reads_what_the_hidden_layers_receive(architecture, shape, width, hidden):
    data = images(8, shape) if len(shape) > 1 else pool(8, 4)
    with seeded(np.random.default_rng(0), CPU):
        network = architecture.build(shape, data.inputs.moments, 3).eval()
        critic = Critic(width, [4], 0.5)
    extract, rest = network.stages()
    f = network.fixed(data.inputs.take(np.arange(8)))
    assert extract(f).flatten(1).shape == (8, width)
    assert torch.equal(rest(extract(f)), network.body(f))
    assert sum(isinstance(each, nn.Linear) for each in rest.modules()) == hidden
    assert not any(isinstance(each, nn.Dropout) for each in extract.modules())
    model = Model(network, data.inputs, {}, nn.ModuleDict({"critic": critic}))
    told = model.head("critic", np.arange(8))
    expected = torch.sigmoid(critic.layers(extract(f).flatten(1)))
    np.testing.assert_allclose(told, expected.detach().numpy(), rtol=1e-5)
    assert ((told > 0) & (told < 1)).all()


def test_against_frozen_features_the_gap_moves_no_weight_of_the_network():
    data = pool(bought=12)
    plain, pushed = (fitted(trainer(alpha=alpha), data, Frozen()) for alpha in (1e-6, 0.5))
    assert equal(state(plain.network), state(pushed.network))
    assert not equal(state(plain.heads), state(pushed.heads))
    with seeded(chance("weights"), CPU):
        fresh = Frozen().build((5,), data.inputs.moments, 3)
    assert equal(state(fresh.frozen), state(pushed.network.frozen))
    plain, pushed = (fitted(trainer(alpha=alpha), data) for alpha in (1e-6, 0.5))
    assert not equal(state(plain.network), state(pushed.network))


@pytest.mark.parametrize("architecture", [DROPPED, NORMED, Frozen()])
def test_a_fit_broken_off_continues_to_the_same_bits(architecture):
    data = pool(bought=12)
    who = trainer(steps=13, patience=2, momentum=0.5, optimizer="sgd", schedule="cosine")
    whole = fitted(who, data, architecture)
    assert whole.facts["train_epochs"] == 4
    for stop in (1, 2, 3):
        broken = Broken(stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(who, data, architecture, broken)
        broken.stop = -1
        continued = fitted(who, data, architecture, broken)
        assert equal(whole.weights, continued.weights)
        assert whole.facts == continued.facts


def test_the_best_network_is_given_with_its_own_critic():
    data = pool(bought=12)
    last = trainer(optimizer="sgd", learning_rate=3.0, momentum=0.9, epochs=6, patience=6)
    model = fitted(last, data)
    kept = [fitted(replace(last, epochs=epochs, patience=None), data) for epochs in range(1, 7)]
    same = [equal(model.weights, each.weights) for each in kept]
    assert sum(same) == 1
    assert not same[-1]


@pytest.mark.parametrize("make", [lambda: pool(bought=12), lambda: images(shape=(8, 8))])
def test_a_restored_model_has_the_same_bits(make):
    data = make()
    data = Pool(data.inputs, np.where(np.arange(len(data)) < 12, data.labels, -1), 3)
    architecture, who = Lenet([], 0.0) if data.inputs.is_image else NORMED, trainer(steps=2)
    model = fitted(who, data, architecture)
    chance_before = torch.get_rng_state()
    again = who.restored(architecture, data, state_of(model), model.facts)
    assert torch.equal(chance_before, torch.get_rng_state())
    rows = np.arange(len(data))
    np.testing.assert_array_equal(model.head("critic", rows), again.head("critic", rows))
    np.testing.assert_array_equal(model.predict(rows), again.predict(rows))
    assert equal(model.weights, again.weights)


def state_of(model: Model) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in model.weights.items()}


def test_without_unlabeled_rows_the_network_is_that_of_supervised_training():
    data, who = pool(bought=40), trainer()
    plain = Supervised(**{name: getattr(who, name) for name in Supervised.__dataclass_fields__})
    model, alone = fitted(who, data, NORMED), fitted(plain, data, NORMED)
    assert equal(state(model.network), state(alone.network))
    assert model.facts == alone.facts
    assert model.head("critic", np.arange(40)).shape == (40, 1)


@pytest.mark.parametrize("bought", [1, 39])
def test_one_label_and_one_unlabeled_row_are_enough(bought):
    model = fitted(trainer(), pool(bought=bought), NORMED)
    assert np.isfinite(model.head("critic", np.arange(40))).all()
    assert np.isfinite(model.predict(np.arange(40))).all()
    assert np.isfinite(list(model.facts.values())).all()


def test_no_label_inputs_that_are_no_numbers_and_a_loss_out_of_bounds_are_clear_errors():
    with pytest.raises(ValueError, match="none was bought"):
        fitted(trainer(), pool(bought=0))
    data = pool()
    data.inputs.array[35, 0] = np.nan  # an unlabeled row
    with pytest.raises(ValueError, match=r"(?i)nan"):
        fitted(trainer(), data)
    with pytest.raises(ValueError, match="WAAL's critic must stay finite.*in epoch 1"):
        fitted(trainer(), data, Frozen())
    with pytest.raises(ValueError, match="lower trainer.learning_rate"):
        fitted(trainer(learning_rate=1e20, optimizer="sgd"), pool())


def test_a_forecast_counts_all_steps_of_a_pool_without_labels(monkeypatch):
    tried = []

    def seconds(fit):
        tried.append(fit(2))
        return 2.0

    monkeypatch.setattr("alrun.training.waal.seconds_a_step", seconds)
    assert trainer(patience=1).seconds_beside(PLAIN, pool(), chance) == 2.0 * 15
    assert trainer(steps=7).seconds_beside(NORMED, pool(n=3), chance) == 2.0 * 7
    assert len(tried) == 2
