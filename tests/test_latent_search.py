"""The latent search of ASAL: images that a model is unsure of."""

from math import log

import numpy as np
import pytest
import torch
from conftest import CPU
from torch import nn

from alrun.generative.search import LatentSearch
from alrun.training.seeding import seeded

LATENT, WIDTH, CLASSES = 4, 6, 3


def search(**changes) -> LatentSearch:
    settings = {"score": "entropy", "steps": 30, "learning_rate": 0.05, "latents": 100, **changes}
    return LatentSearch(**settings)


def networks(classes: int = CLASSES) -> tuple[nn.Module, nn.Module]:
    """A smooth generator, and a model with dropout and BatchNorm, in evaluation mode."""
    with seeded(np.random.default_rng(0), CPU):
        generator = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.Sigmoid())
        last = nn.Linear(8, classes)
        nn.init.normal_(last.weight, std=3)
        model = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), last)
    return generator.eval(), model.eval()


def latents(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, LATENT), np.float32))


def entropies(logits: torch.Tensor) -> np.ndarray:
    p = logits.double().softmax(1).numpy()
    return -(p * np.log(p)).sum(1)


@pytest.mark.parametrize("classes", [2, 3])
def test_entropy_rises_to_its_cap_and_never_beyond_at_any_step(classes):
    generator, model = networks(classes)
    found = search(steps=200).run(generator, model, latents(16), classes=classes)
    assert found.scores.shape == (201, 16)
    assert (found.scores <= log(classes) + 1e-6).all()
    assert found.scores.min() >= 0
    assert found.after.mean() > found.before.mean() + 0.05
    assert found.history.tolist() == found.scores.mean(axis=1).tolist()
    if classes == 2:  # the plane between two classes can always be reached
        assert found.after == pytest.approx(log(2), abs=1e-3)


def test_scores_are_those_of_the_images_before_and_after():
    generator, model = networks()
    start = latents(5)
    found = search().run(generator, model, start, classes=CLASSES)
    with torch.no_grad():
        np.testing.assert_allclose(found.before, entropies(model(generator(start))), rtol=1e-5)
        np.testing.assert_allclose(found.after, entropies(model(found.images)), rtol=1e-5)
    assert not found.images.requires_grad


def test_steps_are_adam_s_on_each_latent_alone():
    """By hand, latent by latent, with derivatives by differences in float64."""
    generator, model = networks()
    wide = nn.Sequential(generator, model).double()

    def worth(z: np.ndarray) -> float:
        with torch.no_grad():
            return float(entropies(wide(torch.from_numpy(z)[None]))[0])

    start = latents(3)
    by_hand = []
    for z in start.double().numpy():
        first, second = np.zeros(LATENT), np.zeros(LATENT)
        for t in range(1, 6):
            slope = [(worth(z + h) - worth(z - h)) / 2e-5 for h in 1e-5 * np.eye(LATENT)]
            first = 0.9 * first - 0.1 * np.array(slope)
            second = 0.999 * second + 0.001 * np.array(slope) ** 2
            z = z - 0.05 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        by_hand.append(worth(z))
    generator.float()
    model.float()
    found = search(steps=5).run(generator, model, start, classes=CLASSES)
    np.testing.assert_allclose(found.after, by_hand, rtol=1e-4)


@pytest.mark.parametrize("latents_at_once", [1, 3, 7])
@pytest.mark.parametrize("score", ["entropy", "min_distance"])
def test_the_cut_into_batches_changes_rounding_alone(latents_at_once, score):
    generator, model = networks(2)
    whole = search(score=score).run(generator, model, latents(7), classes=2)
    cut = search(score=score, latents=latents_at_once).run(generator, model, latents(7), classes=2)
    np.testing.assert_allclose(cut.scores, whole.scores, atol=1e-3)
    np.testing.assert_allclose(cut.images, whole.images, atol=1e-3)


def test_weights_and_statistics_stay_and_collect_no_gradient():
    generator, model = networks()
    parts = nn.ModuleList([generator, model])
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    search().run(generator, model, latents(4), classes=CLASSES)
    assert all((before[name] == value).all() for name, value in parts.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in parts.parameters())
    assert not any(part.training for part in parts)


def test_minimum_distance_ends_at_the_plane_of_a_linear_model():
    with seeded(np.random.default_rng(0), CPU):
        generator, model = nn.Linear(LATENT, WIDTH), nn.Linear(WIDTH, 2)
    found = search(score="min_distance", steps=300).run(generator, model, latents(8), classes=2)
    w, b = model.weight[1] - model.weight[0], model.bias[1] - model.bias[0]
    with torch.no_grad():
        np.testing.assert_allclose(found.after, (found.images @ w + b).abs(), atol=1e-5)
    assert found.before.min() > 10 * found.after.max()
    assert found.after.max() < 0.02
    assert search(score="min_distance").best_first(np.array([0.3, 0.1, 0.1])).tolist() == [1, 2, 0]
    assert search().best_first(np.array([0.3, 0.1, 0.3])).tolist() == [0, 2, 1]


def test_minimum_distance_of_three_classes_is_refused():
    generator, model = networks()
    with pytest.raises(ValueError, match="two classes, got 3; use entropy"):
        search(score="min_distance").run(generator, model, latents(2), classes=CLASSES)


def test_a_search_that_meets_nan_says_which_image_and_when():
    generator, model = networks()

    def broken(z: torch.Tensor) -> torch.Tensor:
        images = generator(z)
        return torch.where(torch.arange(len(z))[:, None] == 2, images * float("nan"), images)

    with pytest.raises(ValueError, match="NaN or inf for image 2 after 0 steps"):
        search().run(broken, model, latents(4), classes=CLASSES)
    with seeded(np.random.default_rng(0), CPU):
        plain = nn.Linear(WIDTH, CLASSES)
    with pytest.raises(ValueError, match="after 1 steps; lower strategy.learning_rate"):
        search(learning_rate=3e37).run(lambda z: 20 * z.repeat(1, 2)[:, :WIDTH], plain, latents(4), classes=3)


def test_outputs_of_more_classes_than_there_are_are_no_distribution():
    generator, model = networks(5)
    with pytest.raises(ValueError, match=r"entropy of 2 classes is at most 0\.693147 nats"):
        search(steps=100).run(generator, model, latents(4), classes=2)
