"""Losses of class labels against their formulas."""

import numpy as np
import pytest
import torch
from conftest import CPU
from torch import nn

from alrun.training.losses import Hinge, criterion_of
from alrun.training.seeding import seeded


def some(classes: int, n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    with seeded(np.random.default_rng(0), CPU):
        return 2 * torch.randn(n, classes), torch.randint(0, classes, (n,))


def test_the_hinge_of_two_classes_is_that_of_their_difference_and_has_its_gradient():
    logits, y = some(2)
    logits.requires_grad_()
    sign = 2.0 * y - 1
    wanted = (1 - sign * (logits[:, 1] - logits[:, 0])).clamp(min=0)
    found = Hinge("none")(logits, y)
    torch.testing.assert_close(found, wanted)
    assert 10 < int((wanted > 0).sum()) < 40  # both arms are met
    assert Hinge("mean")(logits, y).item() == pytest.approx(wanted.mean().item())
    gradient = torch.autograd.grad(found.sum(), logits)[0]
    inside = (wanted > 0).float()
    torch.testing.assert_close(gradient, torch.stack([sign * inside, -sign * inside], 1))


def test_a_linear_model_of_two_classes_descends_the_hinge_of_its_hyperplane():
    with seeded(np.random.default_rng(1), CPU):
        layer, x = nn.Linear(3, 2), torch.randn(9, 3)
    y = torch.arange(9) % 2
    w = (layer.weight[1] - layer.weight[0]).detach().requires_grad_()
    b = (layer.bias[1] - layer.bias[0]).detach().requires_grad_()
    by_hand = (1 - (2.0 * y - 1) * (x @ w + b)).clamp(min=0).mean()
    by_hand.backward()
    loss = Hinge("mean")(layer(x), y)
    loss.backward()
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(layer.weight.grad, torch.stack([-w.grad, w.grad]))
    torch.testing.assert_close(layer.bias.grad, torch.stack([-b.grad, b.grad]))


@pytest.mark.parametrize("classes", [3, 10])
def test_the_hinge_of_more_classes_is_the_mean_over_the_others(classes):
    logits, y = some(classes)
    wanted = [
        np.mean([max(0.0, 1 - float(row[own] - row[other])) for other in range(classes) if other != own])
        for row, own in zip(logits, y.tolist(), strict=True)
    ]
    np.testing.assert_allclose(Hinge("none")(logits, y), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_the_mean_of_a_loss_is_that_of_its_rows(loss):
    logits, y = some(4)
    each, mean = criterion_of(loss, "none")(logits, y), criterion_of(loss, "mean")(logits, y)
    assert each.shape == (50,)
    torch.testing.assert_close(each.mean(), mean)
