"""Learning loss: what its module learns beside a network, how long it moves it, what the strategy takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from adversaries import gone_on, state
from conftest import CPU, part, settings
from fits import NORMED, PLAIN, Broken, Frozen, chance, equal, fitted_by, images, pool

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.models.cnn import AllCnn, Lenet
from alrun.models.cnn13 import Cnn13
from alrun.models.linear import Linear
from alrun.models.loss_predictor import LossPredictor
from alrun.models.maps import mapped
from alrun.pool import Inputs, Pool
from alrun.rounds import needed_heads, needs_model
from alrun.strategies.learning_loss import LearningLoss as Strategy
from alrun.training.learning_loss import LearningLoss, RankedFit, ranking_loss
from alrun.training.seeding import seeded
from alrun.training.supervised import Supervised

SMALL = {"epochs": 4, "batch_size": 8, "module_hidden": 3, "joint_epochs": 2, "learning_rate": 0.02}


def trainer(**changes) -> LearningLoss:
    return replace(part("trainer", "trainer=learning_loss"), **{**SMALL, **changes})


def begun(data: Pool, architecture: Any = PLAIN, **changes) -> RankedFit:
    with seeded(np.random.default_rng(3), CPU):
        network = architecture.build(data.inputs.shape, data.inputs.moments, data.classes)
    plain = {"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1}
    return trainer(**plain, **changes).begun(network, data, data.labeled, np.empty(0, np.int64), chance)


def by_hand(predicted: list[float], losses: list[float], margin: float) -> float:
    """Item i and item B + 1 - i are a pair, counted from one."""
    costs, b = [], len(losses)
    for i in range(1, b // 2 + 1):
        j = b + 1 - i
        sign = 1 if losses[i - 1] > losses[j - 1] else -1
        costs.append(max(0.0, margin - sign * (predicted[i - 1] - predicted[j - 1])))
    return sum(costs) / len(costs) if costs else 0.0


@pytest.mark.parametrize("b", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5])
def test_the_ranking_loss_is_that_of_its_formula_pair_by_pair(b, margin):
    rng = np.random.default_rng(b)
    predicted, losses = rng.normal(size=(2, b)).astype(np.float32)
    losses[: b // 3] = losses[-1]  # equal losses among them
    found = ranking_loss(torch.from_numpy(predicted), torch.from_numpy(losses), margin)
    assert found.item() == pytest.approx(by_hand(predicted.tolist(), losses.tolist(), margin), abs=1e-6)


def test_pairs_in_the_right_order_by_the_margin_cost_nothing_and_others_pull_apart():
    losses = torch.tensor([3.0, 1.0, 0.5, 0.2])
    right = torch.tensor([2.0, 1.0, 0.0, 0.9])
    assert ranking_loss(right, losses, 1.0) == 0
    wrong = torch.tensor([0.0, 0.0, 0.0, 0.0], requires_grad=True)
    loss = ranking_loss(wrong, losses, 1.0)
    loss.backward()
    assert loss.item() == 1
    assert wrong.grad is not None
    assert wrong.grad.tolist() == [-0.5, -0.5, 0.5, 0.5]
    equal_losses = ranking_loss(right, torch.ones(4), 1.0)  # an equal pair counts as the other way round
    assert equal_losses.item() == pytest.approx(((1 + 1.1) + (1 + 1.0)) / 2)


def test_the_module_narrows_each_map_and_joins_them():
    with seeded(np.random.default_rng(0), CPU):
        predictor = LossPredictor([2, 5, 1], 4)
        averages = torch.randn(6, 8)
    parts = averages[:, :2], averages[:, 2:7], averages[:, 7:]
    narrow = [layer(part).clamp(min=0) for layer, part in zip(predictor.narrow, parts, strict=True)]
    wanted = torch.cat(narrow, 1) @ predictor.last.weight.T + predictor.last.bias
    torch.testing.assert_close(predictor(averages), wanted)
    paper = LossPredictor([64, 128, 256, 512], 128)
    assert [layer.out_features for layer in paper.narrow] == [128] * 4
    assert (paper.last.in_features, paper.last.out_features) == (512, 1)


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_a_step_descends_both_losses_and_after_the_joint_epochs_the_network_sees_its_own_alone(epoch, loss):
    data = pool()
    fit = begun(data, weight=3.0, margin=0.7, joint_epochs=2, loss=loss)
    fit.state["epoch"] = epoch
    x, y = data.inputs.take(data.labeled[:8]), torch.from_numpy(data.labels[data.labeled[:8]])
    x = fit.network.fixed(x)
    embeddings, averages = mapped(fit.network, x)
    losses = fit.each_loss(fit.network.head(embeddings), y)
    predicted = fit.predictor(averages)[:, 0]
    pairs = [(i, 7 - i) for i in range(4)]
    signs = [1.0 if losses[i] > losses[j] else -1.0 for i, j in pairs]
    terms = [0.7 - s * (predicted[i] - predicted[j]) for s, (i, j) in zip(signs, pairs, strict=True)]
    ranking = torch.stack(terms).clamp(min=0).mean()
    own = losses.mean()
    network, module = list(fit.network.parameters()), list(fit.predictor.parameters())
    for_network = own + 3.0 * ranking if epoch < 2 else own
    expected = torch.autograd.grad(for_network, network, retain_graph=True)
    expected += torch.autograd.grad(3.0 * ranking, module)
    before = [each.detach().clone() for each in network + module]
    assert fit._step(x, y) == own.detach()
    for old, gradient, weight in zip(before, expected, network + module, strict=True):
        torch.testing.assert_close(old - 0.1 * gradient, weight.detach(), rtol=1e-4, atol=1e-6)


def test_without_weight_the_network_is_that_of_supervised_training():
    data = pool()
    who = trainer(weight=0.0)
    plain = Supervised(**{name: getattr(who, name) for name in Supervised.__dataclass_fields__})
    model, alone = fitted_by(who, data, NORMED), fitted_by(plain, data, NORMED)
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, alone.network.state_dict()[name])
    assert alone.facts["train_loss"] == pytest.approx(model.facts["train_loss"], rel=1e-5)
    moved = fitted_by(trainer(), data, NORMED)
    assert not torch.allclose(moved.network.head.weight, alone.network.head.weight)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (NORMED, {}),
        (NORMED, {"patience": 1, "validation": 0.3, "epochs": 8, "learning_rate": 0.3, "optimizer": "adam"}),
        (AllCnn(2, 0.5), {"crop": 1, "flip": True}),
    ],
    ids=["sgd", "patience", "images"],
)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_fit_broken_off_continues_to_the_same_bits(architecture, changes, stop):
    data, who = images() if isinstance(architecture, AllCnn) else pool(), trainer(**changes)
    whole = fitted_by(who, data, architecture)
    broken = Broken(stop)
    with pytest.raises(KeyboardInterrupt):
        fitted_by(who, data, architecture, broken)
    broken.stop = -1
    continued = fitted_by(who, data, architecture, broken)
    assert equal(whole.weights, continued.weights)
    assert whole.facts == continued.facts
    assert whole.facts["train_ranking_loss"] > 0


def test_patience_goes_back_to_the_best_module_too():
    data = pool()
    fit = begun(data, patience=3)
    fit._watch(1.0)
    best = state(fit.predictor), state(fit.network)
    with torch.no_grad():
        for weight in (*fit.predictor.parameters(), *fit.network.parameters()):
            weight += 1
    fit._watch(2.0)
    fit.take_best()
    assert equal(best[0], state(fit.predictor))
    assert equal(best[1], state(fit.network))


@pytest.mark.parametrize(
    "architecture", [AllCnn(2, 0.0), Cnn13(2, 0.0, True), Lenet([], 0.0), NORMED, Frozen()]
)
def test_the_head_gives_what_the_module_makes_of_the_maps_and_is_restored_to_the_same_bits(architecture):
    data, who = images(), trainer(epochs=1)
    model = fitted_by(who, data, architecture)
    rows = np.array([5, 3, 3, 17])
    found = model.head("learning_loss", rows)
    network = model.network.eval()
    with torch.no_grad():
        averages = mapped(network, network.fixed(data.inputs.take(rows)))[1]
        wanted = model.heads["learning_loss"](averages)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    probabilities, again = model.predict_with("learning_loss", rows)
    np.testing.assert_array_equal(again, found)
    np.testing.assert_allclose(probabilities, model.predict(rows), atol=1e-6)
    before = torch.get_rng_state()
    restored = who.restored(architecture, data, model.weights, model.facts)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(restored.head("learning_loss", rows), found)


def test_one_label_or_an_odd_step_is_no_trouble_and_a_linear_model_is_a_clear_error():
    one = fitted_by(trainer(), pool(bought=1), PLAIN)
    assert one.facts["train_ranking_loss"] == 0
    assert np.isfinite(one.head("learning_loss", np.arange(40))).all()
    odd = fitted_by(trainer(), pool(bought=17), NORMED)
    assert np.isfinite(odd.head("learning_loss", np.arange(40))).all()
    with pytest.raises(ValueError, match="this network has none; choose e.g. model=all_cnn"):
        fitted_by(trainer(), pool(), Linear(0.0))


def test_items_that_are_hard_to_learn_are_predicted_to_have_the_larger_loss():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 4)).astype(np.float32)
    noisy = points[:, 0] > 0  # there labels are chance
    labels = np.where(noisy, rng.integers(0, 2, 300), points[:, 1] > 0)
    bought = np.where(np.arange(300) < 200, labels, -1).astype(np.int64)
    data = Pool(Inputs(points), bought, 2)
    model = fitted_by(trainer(epochs=30, module_hidden=8, batch_size=20, joint_epochs=None), data)
    predicted = model.head("learning_loss", data.unlabeled)[:, 0]
    right = (predicted[noisy[200:]][:, None] > predicted[~noisy[200:]][None]).mean()
    assert right > 0.8


def test_the_largest_predictions_are_chosen_among_the_candidates_drawn(situation):
    at = situation()
    rows = at.pool.unlabeled
    whole = at.model.head("learning_loss", rows)[:, 0].astype(float)
    everything = Strategy(None)
    current = at.round(everything, 7)
    batch = everything.select(current, 7)
    assert batch.rows.tolist() == rows[np.argsort(-whole, kind="stable")[:7]].tolist()
    np.testing.assert_allclose(batch.scores, np.sort(whole)[::-1][:7], rtol=1e-6)
    assert batch.notes["candidates"] == current.work.predicted == len(rows)
    some = Strategy(20)
    drawn = set()
    for seed in range(20):
        current = at.round(some, 7, seed=seed)
        batch = some.select(current, 7)
        known = np.flatnonzero(current.work.known["heads.learning_loss"])
        assert len(known) == current.work.predicted == batch.notes["candidates"] == 20
        scores = at.model.head("learning_loss", known)[:, 0]
        assert batch.rows.tolist() == known[np.argsort(-scores, kind="stable")[:7]].tolist()
        drawn |= set(known.tolist())
    assert drawn == set(rows.tolist())
    few = Strategy(3)
    assert len(few.select(at.round(few, 9), 9).rows) == 9


def test_the_strategy_brings_its_module_and_keeps_the_recipe_of_the_data_set():
    who = Strategy(None)
    assert needed_heads(who) == {"learning_loss"}
    assert needs_model(who, None)
    own = {"weight", "margin", "module_hidden", "joint_epochs"}
    for words in (["dataset=cifar10"], ["trainer.optimizer=sgd", "dataset=svhn"]):
        plain = settings(*words, "strategy=margin")["trainer"]
        found = settings(*words, "strategy=learning_loss")["trainer"]
        assert found.keys() - plain.keys() == own
        assert {name for name in plain if found[name] != plain[name]} == {"_target_"}
    found = {**settings("strategy=learning_loss"), "trainer": settings("strategy=margin")["trainer"]}
    with pytest.raises(ConfigError, match="'learning_loss' and got supervised; choose trainer=learning_loss"):
        assemble(found)


def test_the_trainer_by_name_is_that_of_the_paper():
    found = part("trainer", "trainer=learning_loss", "strategy=margin")
    assert isinstance(found, LearningLoss)
    assert (found.weight, found.margin, found.module_hidden, found.joint_epochs) == (1, 1, 128, 120)
    recipe = found.optimizer, found.momentum, found.weight_decay, found.epochs, found.batch_size
    assert recipe == ("sgd", 0.9, 5e-4, 200, 128)
    assert [found.rate(epoch) for epoch in (0, 159, 160, 199)] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert assemble(settings("strategy=learning_loss")).strategy == Strategy(10000)


def test_a_run_that_goes_on_with_a_restored_module_chooses_the_same(tmp_path):
    words = ["tracker=none", "budget.rounds=3", "trainer.epochs=3", "dataset.pool_size=120"]
    names = {"dataset": "digits", "strategy": "learning_loss"}
    whole, again = gone_on({**settings("strategy=learning_loss", *words), "choices": names}, tmp_path)
    for one, other in zip(whole.records, again.records, strict=True):
        assert one["train_ranking_loss"] == other["train_ranking_loss"]
