"""Label propagation as a trainer: its steps, its losses and its edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import NORMED, chance, pool
from fits import fitted_by as fitted
from pool_fits import KINDS, Seen, begun, some_bought, trainer
from torch.nn import functional

from alrun.graph.pseudo_labels import PseudoLabels
from alrun.pool import Inputs, Pool
from alrun.training.pool_fit import PoolFit


@pytest.mark.parametrize(("bought", "steps"), [(30, 2), (2, 8), (27, 3), (39, 1)])
def test_an_epoch_reads_unlabeled_rows_once_and_cycles_the_bought_ones(bought, steps, monkeypatch):
    data, seen = pool(bought=bought), []
    fit = begun(trainer(), data)
    fit.state["turn"] = 0
    monkeypatch.setattr(fit, "looks", lambda order: seen.append(order) or type(fit).looks(fit, order))
    _, sizes = fit.steps(chance("order", 0))
    (order,) = seen
    parts = np.split(order, np.cumsum(sizes)[:-1])
    assert len(parts) == steps
    assert max(sizes) <= 8
    assert max(sizes) - min(sizes) <= 1
    for step in parts:
        assert (data.labels[step[:3]] >= 0).all()
        assert (data.labels[step[3:]] < 0).all()
        assert len(step) > 3
    own = np.concatenate([step[:3] for step in parts])
    others = np.concatenate([step[3:] for step in parts])
    assert sorted(others) == data.unlabeled.tolist()
    times = np.bincount(own, minlength=len(data))[data.labeled]
    assert times.max() - times.min() <= 1
    assert times.sum() == 3 * steps


def test_a_step_follows_the_gradient_of_the_weighted_loss():
    data = pool()
    fit = begun(
        trainer(optimizer="sgd", momentum=0.0, nesterov=False, learning_rate=0.1, weight_decay=0.0), data
    )
    rows, omegas = np.r_[data.labeled[:3], data.unlabeled[:5]], torch.linspace(0.1, 2.0, 8)
    x, y = data.inputs.take(rows), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    x = fit.network.fixed(x)
    fit.pace(0.0)
    loss = (omegas * functional.cross_entropy(fit.network.trainable(x), y, reduction="none")).sum() / 8
    expected = torch.autograd.grad(loss, list(fit.network.parameters()))
    before = {name: value.detach().clone() for name, value in fit.network.named_parameters()}
    told = fit.learn(x, x, y, omegas)
    assert told[0] == pytest.approx(loss.item(), rel=1e-6)
    assert told[0] == pytest.approx((told[1] + told[2]).item(), rel=1e-6)
    for (name, weight), gradient in zip(fit.network.named_parameters(), expected, strict=True):
        assert torch.allclose(before[name] - 0.1 * gradient, weight, rtol=1e-4, atol=1e-6)


def test_a_row_weighs_by_its_certainty_and_its_class(monkeypatch):
    data, lessons = pool(), []
    plain = PoolFit.learn

    def spied(self, x, twin, y, weight):
        lessons.append((y.clone(), weight.clone()))
        return plain(self, x, twin, y, weight)

    monkeypatch.setattr(PoolFit, "learn", spied)
    seen, orders = Seen(), []
    monkeypatch.setattr(PoolFit, "looks", _spying_looks(orders, PoolFit.looks))
    fitted(trainer(propagation_epochs=1), data, progress=seen)
    made = seen.sights[2].pseudo
    y, weight = (torch.cat(each).numpy() for each in zip(*lessons, strict=True))
    assert np.array_equal(y, made.labels[orders[0]])
    np.testing.assert_allclose(weight, made.weights[orders[0]] * made.class_weights[y], rtol=1e-6)
    bought = data.labels[orders[0]] >= 0
    assert np.array_equal(y[bought], data.labels[orders[0]][bought])
    assert np.allclose(weight[bought], made.class_weights[y[bought]])


def _spying_looks(orders, plain):
    def looks(self, order):
        orders.append(order)
        return plain(self, order)

    return looks


@pytest.mark.parametrize("changes", [{"certainty_weights": False}, {"class_weights": False}])
def test_each_weight_can_be_switched_off(changes):
    seen = Seen()
    fitted(trainer(**changes), pool(), progress=seen)
    made = seen.sights[2].pseudo
    if "certainty_weights" in changes:
        assert np.array_equal(made.weights, np.where(made.zero, 0, 1))
    else:
        assert np.array_equal(made.class_weights, np.ones(3))


def test_a_solve_that_was_cut_off_stands_in_the_facts():
    cut = fitted(trainer(iterations=1, tolerance=1e-12), pool()).facts
    assert cut["pseudo_unconverged"] > 0
    assert cut["pseudo_unconverged_epochs"] == 3
    whole = fitted(trainer(iterations=500, tolerance=1e-3, alpha=0.5), pool()).facts
    assert whole["pseudo_unconverged"] == whole["pseudo_unconverged_epochs"] == 0
    assert whole["train_steps_seconds"] > 0
    assert whole["train_graph_seconds"] > 0


def test_weights_that_are_no_numbers_never_reach_the_loss(monkeypatch):
    plain = PseudoLabels.of

    def poisoned(self, *everything):
        made = plain(self, *everything)
        made.weights[7] = np.nan
        return made

    monkeypatch.setattr(PseudoLabels, "of", poisoned)
    with pytest.raises(ValueError, match="weights of pseudo-labels must be finite, got nan after epoch 3"):
        fitted(trainer(), pool())


def test_a_fit_that_diverges_says_so():
    with pytest.raises(ValueError, match="lower trainer.learning_rate"):
        fitted(trainer(learning_rate=1e30), pool())


EDGES = {
    "nothing unlabeled": pool(20, 20),
    "a single label": pool(20, 1),
    "one row": pool(1, 1),
    "two rows": pool(2, 1),
    "one unlabeled": pool(20, 19),
    "less than a step": pool(5, 2),
    "one class bought": replace(pool(), labels=np.where(pool().labels == 1, 1, -1)),
    "one class known": Pool(pool().inputs, np.where(np.arange(40) < 9, 0, -1), 1),
    "duplicates": Pool(
        Inputs(np.ones((20, 5), np.float32)), np.where(np.arange(20) < 4, np.arange(20) % 3, -1), 3
    ),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", KINDS)
def test_edges_end_in_weights_that_are_numbers(edge, kind):
    data, more = EDGES[edge], {"k": 50} if "label" in kind else {}
    model = fitted(trainer(kind, epochs=2, **more), data, NORMED)
    assert all(bool(value.isfinite().all()) for value in model.weights.values())
    probabilities = model.predict(np.arange(len(data)))
    assert np.isfinite(probabilities).all()
    assert all(np.isfinite(value) for value in model.facts.values())


@pytest.mark.parametrize("pseudo_labels", ["diffusion", "network", "gtg"])
@pytest.mark.parametrize("variant", ["paper", "repo"])
def test_the_rest_of_the_pool_teaches_more_than_the_labels_alone(pseudo_labels, variant):
    data, seen = pool(90, 90), Seen()
    truth = data.labels
    apart = Inputs((data.inputs.array + 3 * np.eye(5)[truth]).astype(np.float32))
    few = some_bought(replace(data, inputs=apart), 9)
    sizes = {"epochs": 40, "propagation_epochs": 15, "batch_size": 20, "labeled_batch_size": 9}
    fitted(trainer(pseudo_labels=pseudo_labels, variant=variant, **sizes), few, progress=seen)
    right = [(found == truth)[few.unlabeled].mean() for found in seen.accuracy]
    assert right[-1] > 0.85
    assert right[-1] > right[39] + 0.15


def test_without_labels_there_is_no_fit():
    with pytest.raises(ValueError, match="none was bought"):
        fitted(trainer(), pool(bought=0))
