"""Minimum distance: the candidates nearest to the plane between two classes, and nothing for more classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Situation, settings, strategy
from fits import fitted, pool

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.models.linear import Linear
from alrun.pool import Pool
from alrun.strategies.min_distance import MinDistance
from alrun.strategies.two_classes import margins
from alrun.training.model import Model


def linear(seed: int = 0, length: float = 1.0) -> tuple[Situation, np.ndarray]:
    """A round on a linear model of weights so long, and |w.x + b| of all rows in float64."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    at = Situation(points, {0: 0, 1: 1}, classes=2)
    network = Linear(0.0).build(at.inputs.shape, at.inputs.moments, 2).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(length * torch.from_numpy(rng.normal(size=tuple(weight.shape))))
        x = network.fixed(at.inputs.take(np.arange(50))).double().numpy()
    w, b = (weight.detach().double().numpy() for weight in network.parameters())
    at.model = Model(network, at.inputs, {})
    return at, np.abs(x @ (w[1] - w[0]) + b[1] - b[0])


@pytest.mark.parametrize("length", [1.0, 1000.0], ids=["plain", "saturated"])
def test_the_rows_of_the_smallest_distance_are_chosen_also_where_probabilities_say_nothing(length):
    at, distances = linear(length=length)
    who = MinDistance()
    current = at.round(who, 20)
    batch = who.select(current, 20)
    rows = at.pool.unlabeled
    assert batch.rows.tolist() == rows[np.argsort(distances[rows])[:20]].tolist()
    np.testing.assert_allclose(batch.scores, np.sort(distances[rows])[:20], rtol=1e-3, atol=1e-5 * length)
    assert current.work.predicted == len(rows)
    if length > 1:
        probabilities = at.model.predict(rows)
        sure = np.isin(probabilities.max(1), [1.0])
        assert sure.sum() > 40  # by probabilities these are all alike
        chosen = at.model.predict(batch.rows)
        assert np.isin(chosen.max(1), [1.0]).sum() > 10


def test_logits_are_those_of_which_probabilities_are_the_softmax_in_one_pass_with_embeddings():
    at, _ = linear()
    current = at.round(MinDistance(), 5)
    rows = at.pool.unlabeled
    logits = current.logits(rows[:7])
    exps = np.exp(logits.astype(float))
    np.testing.assert_allclose(at.model.predict(rows[:7]), exps / exps.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(logits, at.model.logits(rows[:7]))
    assert current.work.predicted == 7
    current = at.round(MinDistance(), 5)
    current.embeddings(rows)
    np.testing.assert_allclose(current.logits(rows[:7]), logits, rtol=1e-5, atol=1e-6)
    assert current.work.predicted == len(rows)
    with pytest.raises(ValueError, match="logits need a model"):
        at.round(MinDistance(), 5, cold=True).logits(rows)


def test_a_margin_is_positive_where_the_second_class_is_likelier():
    assert margins(np.array([[1.0, 3.5], [2.0, -1.0]], np.float32)).tolist() == [2.5, -3.0]


def test_with_the_hinge_loss_the_nearest_rows_lie_between_the_classes():
    data = pool(n=80, bought=30, classes=2)
    model = fitted(data, Linear(0.0), loss="hinge", epochs=60, optimizer="adam", learning_rate=0.03)
    at = Situation(data.inputs.array, {row: int(data.labels[row]) for row in data.labeled}, classes=2)
    at.model = replace(model, heads=at.model.heads)
    batch = MinDistance().select(at.round(MinDistance(), 50), 50)
    gaps = np.abs(at.model.predict(batch.rows)[:, 0] - 0.5)
    assert (np.diff(gaps) >= -1e-6).all()


@pytest.mark.parametrize("classes", [3, 10])
def test_more_classes_are_a_clear_error_before_any_work(classes, situation):
    at = situation()
    at.pool = Pool(at.inputs, at.pool.labels, classes)
    who = strategy("min_distance")
    with pytest.raises(ValueError, match=f"knows two classes and the data have {classes}; keep two"):
        who.select(at.round(who, 5), 5)
    words = ["strategy=min_distance", "model=linear", "trainer.loss=hinge"]
    with pytest.raises(ConfigError, match="strategy: min_distance knows two classes and the data have 10"):
        assemble(settings(*words)).data()
    assert assemble(settings(*words, "dataset.classes=[3,8]")).data().classes == 2
