"""Models by row: predictions, frozen parts, augmentation, dropout passes, evaluation."""

import numpy as np
import pytest
import torch
from fits import DROPPED, NORMED, PLAIN, Frozen, equal, fitted, images, pool, weights
from torch import nn

from alrun.models.cnn import S0Cnn
from alrun.models.cnn13 import Cnn13
from alrun.models.linear import Linear
from alrun.models.mlp import Mlp
from alrun.models.network import Adapt, Network
from alrun.pool import Inputs, Moments, Pool
from alrun.training.augment import UNTOUCHED
from alrun.training.batches import Batches
from alrun.training.dropout import dropout_passes
from alrun.training.evaluate import calibration_error, evaluate, negative_log_likelihood
from alrun.training.model import Model, restored
from alrun.training.parts import parts, widest


@pytest.mark.parametrize(
    "architecture", [PLAIN, NORMED, DROPPED, Linear(0.0)], ids=lambda each: repr(each)[:20]
)
def test_probabilities_sum_to_one_and_follow_from_the_embedding(architecture):
    data = pool()
    model = fitted(data, architecture)
    rows = np.array([7, 3, 3, 39])
    probabilities, embedded = model.predict(rows), model.embed(rows)
    assert probabilities.dtype == embedded.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, atol=1e-6)
    assert np.allclose(model.classify(embedded), probabilities, atol=1e-6)
    assert np.array_equal(probabilities[1], probabilities[2])
    assert model.predict(np.empty(0, np.int64)).shape == (0, 3)
    assert model.embed(np.empty(0, np.int64)).shape == (0, model.network.head.in_features)


def test_predictions_do_not_depend_on_the_mini_batch(monkeypatch):
    data = images()
    model = fitted(data, S0Cnn(0.0))
    whole = model.predict(np.arange(24))
    monkeypatch.setattr("alrun.training.parts.CPU_ITEMS", 5)
    assert np.allclose(whole, model.predict(np.arange(24)), atol=1e-6)


def test_on_a_gpu_the_widest_layer_bounds_how_many_items_go_through_at_once():
    cuda, image = torch.device("cuda"), (3, 16, 16)
    network = Cnn13(128, 0.5, True).build(image, Moments((0.5,) * 3, (0.5,) * 3), 10).eval()
    assert widest(network, torch.zeros(1, *image)) == 128 * 16 * 16
    assert widest(network.body[-1], torch.zeros(2, 7)) == 7
    assert not any(each._forward_hooks for each in network.modules())
    numbers = 128 * 32 * 32  # of a CIFAR image: 50,000 items need 512 MiB a layer, not 26 GB
    assert {part.stop - part.start for part in parts(50_000, numbers, cuda)[:-1]} == {512}
    assert parts(300, 5, cuda) == [slice(0, 300)]


def test_a_model_on_other_inputs_keeps_its_network():
    data, other = pool(), pool(n=10, bought=10)
    model = fitted(data)
    moved = model.on(other.inputs)
    assert moved.network is model.network
    assert np.allclose(
        moved.predict(np.arange(3)), model.on(Inputs(other.inputs.array[:3])).predict(np.arange(3))
    )


def test_a_restored_model_predicts_the_same_bits():
    data = pool()
    model = fitted(data, NORMED)
    again = restored(NORMED, data, weights(model), model.facts)
    assert np.array_equal(model.predict(np.arange(40)), again.predict(np.arange(40)))


def test_prediction_before_training_leaves_inputs_fit_to_train_on():
    data = pool()
    model = fitted(data)
    fresh = Pool(Inputs(data.inputs.array), data.labels, 3)
    model.on(fresh.inputs).predict(np.arange(40))
    assert equal(weights(fitted(fresh)), weights(model))


def test_a_frozen_part_never_changes_and_runs_once_over_each_inputs():
    data, architecture = images(), Frozen()
    first = fitted(data, architecture, epochs=3)
    first.predict(np.arange(24))
    second = fitted(data, architecture, epochs=5)
    second.embed(np.arange(24))
    assert architecture.seen == 24
    assert torch.equal(first.network.frozen.weight, torch.eye(6, 192))
    assert not first.network.frozen.weight.requires_grad
    assert not torch.equal(first.network.head.weight, second.network.head.weight)
    second.on(images(7).inputs).predict(np.arange(7))
    assert architecture.seen == 31


def test_a_frozen_network_trains_on_the_very_outputs_it_predicts_from():
    data = images()
    model = fitted(data, Frozen())
    batches = Batches(model.network, data, data.labeled, UNTOUCHED)
    x, _ = next(batches.each(np.arange(24), 24))
    with torch.inference_mode():
        assert np.array_equal(model.network.body(x).numpy(), model.embed(data.labeled))


# --- dropout ----------------------------------------------------------------------------------------------


def test_passes_differ_and_share_their_masks_over_rows_and_batches(monkeypatch):
    model = fitted(pool(), DROPPED)
    rows = np.array([0, 5, 5, 0, 12, 5])
    passes = list(dropout_passes(model, rows, 5, np.random.default_rng(0)))
    assert not np.allclose(passes[0], passes[1])
    assert all(np.allclose(each.sum(1), 1, atol=1e-6) for each in passes)
    assert all(np.allclose(each[1], each[5], atol=1e-6) and np.allclose(each[0], each[3]) for each in passes)
    monkeypatch.setattr("alrun.training.parts.CPU_ITEMS", 2)
    split = list(dropout_passes(model, rows, 5, np.random.default_rng(0)))
    assert np.allclose(passes, split, atol=1e-6)


def test_a_mask_drops_at_the_rate_and_scales_what_it_keeps():
    width = 4000
    adapt = Adapt((width,), Moments(np.zeros(width, np.float32), np.ones(width, np.float32)), (width,))
    network = Network(adapt, nn.Identity(), nn.Dropout(0.25), nn.Linear(width, 2))
    network.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
    seen: list[torch.Tensor] = []
    model = Model(network, Inputs(np.ones((2, width), np.float32)), {})
    next(dropout_passes(model, np.arange(2), 1, np.random.default_rng(0)))
    assert torch.equal(seen[0][0], seen[0][1])
    assert np.unique(seen[0].numpy()) == pytest.approx([0, 4 / 3])
    assert float((seen[0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_dropout_of_rate_zero_gives_the_prediction_and_hooks_are_gone_between_passes():
    model = fitted(pool(), DROPPED)
    rows = np.arange(6)
    plain = model.predict(rows)
    for _ in dropout_passes(model, rows, 2, np.random.default_rng(0)):
        assert np.array_equal(plain, model.predict(rows))
    for part in model.network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    assert all(
        np.array_equal(plain, each) for each in dropout_passes(model, rows, 2, np.random.default_rng(0))
    )


def test_hooks_are_removed_after_an_error_and_batch_norm_stays_as_it_was():
    model = fitted(pool(), Mlp([12], True, 0.5))
    before = weights(model)
    with pytest.raises(IndexError):
        list(dropout_passes(model, np.array([999]), 1, np.random.default_rng(0)))
    list(dropout_passes(model, np.arange(9), 2, np.random.default_rng(0)))
    assert not any(part._forward_hooks for part in model.network.modules())
    assert equal(before, weights(model))


def test_passes_without_a_dropout_layer_are_refused_at_once():
    with pytest.raises(ValueError, match="model.dropout"):
        dropout_passes(fitted(pool()), np.arange(2), 3, np.random.default_rng(0))


# --- evaluation -------------------------------------------------------------------------------------------


def sure(probabilities: np.ndarray) -> Model:
    """A model that predicts just these probabilities, one row an item."""
    logits = np.log(np.maximum(probabilities, 1e-38)).astype(np.float32)
    classes = logits.shape[1]
    moments = Moments(np.zeros(classes, np.float32), np.ones(classes, np.float32))
    head = nn.Linear(classes, classes)
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    network = Network(Adapt((classes,), moments, (classes,)), nn.Identity(), nn.Identity(), head)
    return Model(network, Inputs(logits), {})


def test_evaluation_matches_values_found_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.85, 0.15], [0.7, 0.3], [0.3, 0.7]])
    result = evaluate(sure(probabilities), np.array([0, 1, 0, 1]))
    assert set(result) == {"accuracy", "nll", "ece"}
    assert result["accuracy"] == 0.75
    assert result["nll"] == pytest.approx(-np.log([0.95, 0.15, 0.7, 0.7]).mean(), abs=1e-5)
    # bins of 0.95, of 0.85, and of both 0.7: gaps 0.05, 0.85 and 0.3, weighted 1/4, 1/4, 2/4
    assert result["ece"] == pytest.approx(0.25 * 0.05 + 0.25 * 0.85 + 0.5 * 0.3, abs=1e-5)


def test_a_class_held_impossible_costs_a_finite_loss_and_sure_right_answers_cost_nothing():
    certain = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    lost = negative_log_likelihood(certain, np.array([0, 1]))
    assert lost == pytest.approx(-np.log(np.finfo(np.float32).tiny) / 2)
    assert calibration_error(certain, np.array([0, 0])) == 0
    assert calibration_error(certain, np.array([1, 1])) == 1


def test_equal_probabilities_count_for_the_smaller_class():
    result = evaluate(sure(np.full((12, 12), 1 / 12)), np.arange(12))
    assert result["accuracy"] == pytest.approx(1 / 12)
    assert result["top5_accuracy"] == pytest.approx(5 / 12)


def test_labels_of_another_number_than_inputs_are_refused():
    with pytest.raises(ValueError, match="a label an item"):
        evaluate(sure(np.eye(3)), np.array([0, 1]))
