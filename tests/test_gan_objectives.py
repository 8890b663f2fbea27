"""What generators and critics lose: closed forms."""

import math

import numpy as np
import pytest
import torch
from conftest import CPU
from torch import nn
from torch.nn import functional

from alrun.generative.networks import Critic, Plain
from alrun.generative.objectives import Bernoulli, Wasserstein, gradient_penalty, inconsistency, mixed
from alrun.training.seeding import seeded

ROUNDING = 1e-12  # the same row at two places of a product of matrices


def linear_critic(weight: torch.Tensor, bias: float = 0.3) -> Critic:
    """D(x) = w.x + b."""
    critic = Critic(nn.Flatten(), len(weight), len(weight))
    critic.last.weight.data, critic.last.bias.data = weight[None], torch.tensor([bias])
    return critic


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_its_closed_form(scale):
    """Checklist: wgan_gp_grad_norm_linear_critic."""
    direction = functional.normalize(torch.randn(12), dim=0)
    critic = linear_critic(scale * direction)
    found = gradient_penalty(critic, torch.rand(5, 1, 3, 4))
    assert found.item() == pytest.approx((scale - 1) ** 2, abs=1e-6)
    if scale:
        (gradient,) = torch.autograd.grad(found, critic.last.weight)
        torch.testing.assert_close(gradient[0], 2 * (scale - 1) * direction, rtol=1e-4, atol=1e-6)


def test_the_gradient_penalty_of_a_square_is_that_of_its_lengths():
    x = torch.rand(6, 1, 2, 2)
    lengths = x.flatten(1).norm(dim=1)
    found = gradient_penalty(lambda y: y.flatten(1).square().sum(1) / 2, x)
    assert float(found) == pytest.approx(float((lengths - 1).square().mean()), rel=1e-5)


def test_the_gradient_penalty_moves_weights_as_differences_say():
    with seeded(np.random.default_rng(0), CPU):
        critic = Plain(4, 3, 0.0).build((8, 8)).critic.double()
        x = torch.rand(4, 1, 8, 8, dtype=torch.float64)

    def penalty() -> torch.Tensor:
        return gradient_penalty(lambda y: critic.hidden(y).square().sum(1), x)

    weight = critic.layers[0].weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    for place in [(0, 0, 2, 2), (2, 0, 1, 3)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
            values.append(penalty().item())
            with torch.no_grad():
                weight[place] -= step
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_mixed_images_lie_between_their_own_two():
    real, fake = torch.zeros(40, 1, 2, 2), torch.ones(40, 1, 2, 2)
    points = mixed(real, fake)
    shares = points.flatten(1)
    assert (shares == shares[:, :1]).all()
    assert 0 <= float(shares.min()) < 0.3 < 0.7 < float(shares.max()) <= 1
    assert len(shares[:, 0].unique()) == 40


def test_wgan_gp_loses_the_gap_and_ten_penalties():
    weight = torch.tensor([1.0, 2.0, 2.0])
    real, fake = torch.rand(7, 1, 1, 3), torch.rand(7, 1, 1, 3)
    loss, terms = Wasserstein(10.0, 0.0, 0.0).of_critic(linear_critic(weight), real, fake)
    gap = float((real.mean(0) - fake.mean(0)).flatten() @ weight)
    assert float(terms["gap"]) == pytest.approx(gap, abs=1e-5)
    assert float(loss) == pytest.approx(-gap + 10 * (3 - 1) ** 2, rel=1e-5)
    assert set(terms) == {"gap", "penalty"}


def test_the_consistency_term_is_its_closed_form():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])
    hidden, other = torch.zeros(2, 4), torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 2]])
    by_row = [2 * (4 + 0.1 * 1), 2 * (0 + 0.1 * 1)]
    found = inconsistency(first, second, hidden, other, 2.0, 0.0)
    assert float(found) == pytest.approx(sum(by_row) / 2, rel=1e-6)
    assert float(inconsistency(first, second, hidden, other, 2.0, 1.0)) == pytest.approx((8.2 - 1) / 2)


@pytest.mark.parametrize(("dropout", "zero"), [(0.0, True), (0.5, False)])
def test_the_consistency_term_is_zero_without_dropout(dropout, zero):
    """Checklist: ct_zero_without_dropout."""
    critic = Plain(4, 3, dropout).build((8, 8)).critic
    real, fake = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    _, terms = Wasserstein(10.0, 2.0, 0.0).of_critic(critic, real, fake)
    assert (terms["consistency"].item() < ROUNDING) == zero
    _, terms = Wasserstein(10.0, 2.0, 0.0).of_critic(critic.eval(), real, fake)
    assert terms["consistency"].item() < ROUNDING


def test_the_losses_of_a_critic_that_guesses_are_those_of_a_coin():
    critic = linear_critic(torch.zeros(4), bias=0.0)
    images = torch.rand(3, 1, 2, 2)
    loss, terms = Bernoulli().of_critic(critic, images, images)
    assert float(loss) == pytest.approx(math.log(2))
    assert float(terms["gap"]) == 0
    assert float(Bernoulli().of_generator(critic(images))) == pytest.approx(math.log(2))


def test_the_dcgan_critic_loses_half_the_cross_entropy_of_both():
    critic = linear_critic(torch.tensor([2.0, -1.0]), bias=0.5)
    real, fake = torch.rand(6, 1, 1, 2), torch.rand(6, 1, 1, 2)
    loss, _ = Bernoulli().of_critic(critic, real, fake)
    entropy = functional.binary_cross_entropy_with_logits
    expected = (entropy(critic(real), torch.ones(6)) + entropy(critic(fake), torch.zeros(6))) / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    own = Bernoulli().of_generator(critic(fake))
    assert float(own) == pytest.approx(float(entropy(critic(fake), torch.ones(6))), rel=1e-5)


def test_a_generator_does_not_saturate_where_the_critic_is_sure():
    values = torch.tensor([-30.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(Bernoulli().of_generator(values), values)
    assert float(gradient) == pytest.approx(-1)
    (gradient,) = torch.autograd.grad(Wasserstein(10.0, 0.0, 0.0).of_generator(values), values)
    assert float(gradient) == -1
