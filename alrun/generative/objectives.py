"""What generators and critics lose."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch
from annotated_types import Ge
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from alrun.generative.networks import Critic

HIDDEN_SHARE = 0.1  # of the layer before the last in the consistency term

Terms = dict[str, Tensor]
Values = Float32[Tensor, " b"]
Images = Float[Tensor, "b c h w"]


@runtime_checkable
class Objective(Protocol):
    """What both networks lose; torch's current generator gives what is drawn."""

    def of_critic(self, critic: Critic, real: Images, fake: Images) -> tuple[Tensor, Terms]:
        """The critic's loss on as many real as generated images, and its parts by name."""
        ...

    def of_generator(self, values: Values) -> Tensor:
        """The generator's loss, given what the critic says of its images."""
        ...


@dataclass(frozen=True)
class Bernoulli:
    """The critic tells real from generated images, in nats; the generator does not saturate (DCGAN).

    Source: Goodfellow et al. 2014; Radford et al. 2016. The critic's two halves are averaged.
    """

    def of_critic(self, critic: Critic, real: Images, fake: Images) -> tuple[Tensor, Terms]:
        """Half of -log s(D(real)) - log(1 - s(D(fake))), s the sigmoid."""
        values = critic(torch.cat([real, fake]))
        right, wrong = values.split([len(real), len(fake)])
        loss = (functional.softplus(-right).mean() + functional.softplus(wrong).mean()) / 2
        return loss, {"gap": right.mean() - wrong.mean()}

    def of_generator(self, values: Values) -> Tensor:
        """-log s(D(fake))."""
        return functional.softplus(-values).mean()


@dataclass(frozen=True)
class Wasserstein:
    """E D(fake) - E D(real) + penalty * P + CT: WGAN-GP, and WGAN-CT where `consistency` is above 0.

    Attributes:
        penalty: weight of `gradient_penalty`.
        consistency: weight of `inconsistency`, whose passes differ by the critic's dropout.
        margin: of the consistency term, M.

    Source: Gulrajani et al. 2017; Wei et al. 2018 (as their code has it).
    """

    penalty: Annotated[float, Ge(0)]
    consistency: Annotated[float, Ge(0)]
    margin: Annotated[float, Ge(0)]

    def of_critic(self, critic: Critic, real: Images, fake: Images) -> tuple[Tensor, Terms]:
        """The loss; `gap` is the critic's estimate of the Wasserstein distance."""
        again = [real] if self.consistency else []
        hidden = critic.hidden(torch.cat([real, fake, *again]))
        values = critic.judged(hidden)
        right, wrong = values[: len(real)], values[len(real) :][: len(fake)]
        gap = right.mean() - wrong.mean()
        loss, terms = -gap, {"gap": gap}
        if self.consistency:
            first, second = (slice(0, len(real)), slice(len(real) + len(fake), None))
            terms["consistency"] = inconsistency(
                values[first], values[second], hidden[first], hidden[second], self.consistency, self.margin
            )
            loss = loss + terms["consistency"]
        if self.penalty:
            # second derivatives are not for bfloat16
            with torch.autocast(real.device.type, enabled=False):
                terms["penalty"] = gradient_penalty(critic, mixed(real, fake))
            loss = loss + self.penalty * terms["penalty"]
        return loss, terms

    def of_generator(self, values: Values) -> Tensor:
        """-E D(fake)."""
        return -values.mean()


def mixed(real: Images, fake: Images) -> Float32[Tensor, "b c h w"]:
    """A random point between each real and each generated image."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    return torch.lerp(real.float(), fake.float(), share)


def gradient_penalty(critic: Callable[[Tensor], Tensor], x: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """E (||grad D(x)|| - 1)^2, Euclidean over all numbers of an image; (|w| - 1)^2 for D(x) = w.x + b.

    Source: Gulrajani et al. 2017, equation (3), without its weight.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def inconsistency(
    first: Values,
    second: Values,
    first_hidden: Float[Tensor, "b f"],
    second_hidden: Float[Tensor, "b f"],
    weight: float,
    margin: float,
) -> Float32[Tensor, ""]:
    """E max(0, weight ((D' - D'')^2 + 0.1 mean (D_' - D_'')^2) - margin) of two passes of the same images.

    Source: Wei et al. 2018, equation (4), with the squares of their code.
    """
    between = (first_hidden.float() - second_hidden.float()).square().mean(1)
    apart = (first - second).square() + HIDDEN_SHARE * between
    return (weight * apart - margin).clamp_min(0).mean()
