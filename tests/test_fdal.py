"""f-DAL: its discrepancies, the reversed gradient, and features that adapt."""

import csv
import math

import numpy as np
import pytest
import torch
from adaptation import fdal, made, turned
from conftest import CPU, part, unlabeled
from interrupted import made_in_two_goes

from alrun.features.encoding import encoded
from alrun.forecast import forecast
from alrun.models.fdal import discrepancy, reversed_gradient
from alrun.pool import stream
from alrun.training.seeding import seeded


@pytest.mark.parametrize("divergence", ["pearson", "jensen_shannon"])
def test_nothing_tells_domains_apart_where_all_is_zero(divergence):
    assert discrepancy(divergence, torch.zeros(4), torch.zeros(7)).item() == pytest.approx(0, abs=1e-7)


def test_discrepancies_reach_the_divergence_at_their_best_witness():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    # each value as often as it is likely: means over ten items are expectations
    pearson, jensen = 2 * (p / q - 1), np.log(p / q)
    mean = (p + q) / 2
    divergences = {
        "pearson": (((p - q) ** 2 / q).sum(), pearson),
        "jensen_shannon": ((p * np.log(p / mean)).sum() + (q * np.log(q / mean)).sum(), jensen),
    }
    for name, (divergence, best) in divergences.items():
        source, target = (torch.tensor(np.repeat(best, (10 * share).round().astype(int))) for share in (p, q))
        found = discrepancy(name, source, target).item()
        assert found == pytest.approx(divergence)
        for change in (0.1, -0.1):
            assert discrepancy(name, source + change, target + change).item() < found
            assert discrepancy(name, source * (1 + change), target * (1 + change)).item() < found


def test_the_reversal_keeps_numbers_and_turns_gradients():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def loss(x):
        return (x**3).sum()

    reversed_gradient(x, 0.3).pow(3).sum().backward()
    step, numeric = 1e-6, torch.zeros_like(x)
    for place in np.ndindex(4, 3):
        more = torch.zeros_like(x)
        more[place] = step
        with torch.no_grad():
            numeric[place] = (loss(x + more) - loss(x - more)) / (2 * step)
    assert torch.allclose(x.grad, -0.3 * numeric, atol=1e-6)


@pytest.mark.parametrize("head", ["plain", "spectral"])
def test_the_auxiliary_head_climbs_the_discrepancy_and_the_encoder_descends_it(head):
    pool, _ = turned()
    with seeded(stream(0, "weights"), CPU):
        network = fdal(f"head={head}", "dropout=0.0").network(pool.inputs, 3, filled=True)
    x = torch.cat([pool.source.inputs.take(np.arange(60)), pool.inputs.take(np.arange(60))])

    def told() -> torch.Tensor:
        _, entries = network(x, 1.0)
        return discrepancy("pearson", entries[:60], entries[60:])

    before = told()
    (-before).backward()
    for group, sign in ((network.auxiliary, 1), (network.bottleneck, -1)):
        kept = {name: weight.detach().clone() for name, weight in group.named_parameters()}
        with torch.no_grad():
            for weight in group.parameters():
                weight -= 1e-3 * weight.grad / max(float(weight.grad.norm()), 1e-9)
        assert sign * (told() - before) > 0
        with torch.no_grad():
            for name, weight in group.named_parameters():
                weight.copy_(kept[name])
    assert all(weight.grad is None for weight in network.head.parameters())


def test_the_heads_begin_apart_and_spectral_ones_have_norm_one():
    pool, _ = turned()
    with seeded(stream(0, "weights"), CPU):
        network = fdal("head=spectral").network(pool.inputs, 3, filled=True)
    for _ in range(30):
        network(pool.inputs.take(np.arange(60)), 0.0)
    for head in (network.head, network.auxiliary):
        for layer in (head[0], head[-1]):
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.05)
    assert not torch.allclose(network.head[0].weight, network.auxiliary[0].weight)


def test_rates_and_coefficients_follow_the_public_demo():
    featurizer = part("featurizer", "featurizer=fdal")
    assert [featurizer.rate(step) for step in (0, 5000)] == pytest.approx([0.004, 0.004 * 2**-0.75])
    assert featurizer.coefficient(0) == 0
    assert featurizer.coefficient(1000) == pytest.approx(0.1 * (2 / (1 + math.exp(-1)) - 1))
    assert featurizer.coefficient(10**6) == pytest.approx(0.1)


def test_adapted_features_let_a_head_of_the_source_serve_the_target(tmp_path):
    pool, truth = turned(120)
    words = ("epochs=2", "steps=100", "learning_rate=0.01", "backbone_rate=1.0", "dropout=0.0")
    words += ("backbone.hidden=[32]", "bottleneck=32", "reversal=0.3", "reversal_steps=50")
    scores = {}
    for weight in (0.0, 1.0):
        featurizer, folder = fdal(*words, f"weight={weight}"), tmp_path / str(weight)
        target = made(featurizer, pool, folder)
        source = encoded(featurizer.encoder(folder, pool.inputs), pool.source.inputs)
        centers = np.stack([source[pool.source.labels == label].mean(0) for label in range(3)])
        nearest = ((target[:, None] - centers) ** 2).sum(2).argmin(1)
        scores[weight] = (nearest == truth).mean()
    assert scores[1.0] > scores[0.0] + 0.1
    assert scores[1.0] > 0.85


def test_a_training_broken_off_ends_with_the_same_bits(tmp_path):
    pool, _ = turned()
    featurizer = fdal("epochs=4")
    whole = made(featurizer, pool, tmp_path / "whole")
    assert np.array_equal(made_in_two_goes(featurizer, pool, tmp_path / "broken"), whole)
    assert not np.array_equal(made(featurizer, pool, tmp_path / "other", seed=1), whole)


def test_the_encoder_is_read_back_and_gives_the_features(tmp_path):
    pool, _ = turned()
    featurizer = fdal("head=spectral")
    features = made(featurizer, pool, tmp_path)
    assert features.shape == (60, 8)
    encoder = featurizer.encoder(tmp_path, pool.inputs)
    assert np.array_equal(encoded(encoder, pool.inputs), features)
    assert not any(weight.requires_grad for weight in encoder.parameters())
    with (tmp_path / "fdal.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert 0 <= float(lines[-1]["source_accuracy"]) <= 1
    assert (tmp_path / "fdal.png").exists()


def test_a_pool_without_a_source_is_refused(tmp_path):
    pool, _ = turned()
    with pytest.raises(ValueError, match="adapts from a labeled source .* has none"):
        made(fdal(), unlabeled(pool.inputs.array, 3), tmp_path)


def test_a_training_that_leaves_the_numbers_is_named(tmp_path):
    pool, _ = turned()
    with pytest.raises(ValueError, match="must stay finite, got .*; lower featurizer.learning_rate"):
        made(fdal("learning_rate=1e30", "clip=1e30"), pool, tmp_path)


def test_an_encoder_that_learned_nothing_is_said(tmp_path, caplog):
    pool, _ = turned()
    made(fdal("epochs=1", "steps=40", "learning_rate=1e-9"), pool, tmp_path)
    assert "hardly learned the source's classes" in caplog.text


def test_a_forecast_counts_steps_and_epochs_and_not_rows(monkeypatch):
    pool, _ = turned()
    monkeypatch.setattr("alrun.forecast.seconds_a_step", lambda fit: fit(1) or 0.5)
    experiment = part("trainer"), part("model")
    found = forecast(*experiment, fdal("epochs=3", "steps=7"), pool, [], 10)
    assert found.features == pytest.approx(0.5 * 3 * 7)
