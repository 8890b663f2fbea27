"""A trained generator: latents to images that mean the same as the pool's."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from alrun.generative.networks import Pair
from alrun.models.encoded import ChannelsLast, Encoder
from alrun.models.network import Adapt, channels_first
from alrun.pool import Moments


@dataclass(frozen=True, eq=False)
class Generator:
    """Networks that are trained no further, in evaluation mode on their device.

    Attributes:
        latent: numbers an image is made from.
        shape: of one image, that of the pool's items.
        critic: gives of stored items, and of unit images, what its layer before the last does, flattened.
        network: latents to images (b, c, h, w) in [darkest, 1].
    """

    latent: int
    shape: tuple[int, ...]
    critic: Encoder
    network: nn.Module
    darkest: float
    device: torch.device

    @classmethod
    def of(cls, pair: Pair, latent: int, shape: tuple[int, ...], device: torch.device) -> "Generator":
        """The pair's networks as they stand, frozen; they are not copied."""
        channels = channels_first(shape)
        adapt = Adapt(shape, scale(pair.darkest, channels[0]), channels)
        critic = pair.critic
        layers = ChannelsLast(critic.layers)
        encoder = Encoder(adapt, layers, width=critic.width, widest=critic.widest).to(device)
        network = pair.generator.to(device).eval().requires_grad_(False)
        return cls(latent, shape, encoder, network, pair.darkest, device)

    def images(self, z: Float32[Tensor, "b l"]) -> Float32[Tensor, " b *stored"]:
        """Unit images, numbers in [0, 1] in the shape of stored items; differentiable in z."""
        return unit(self.network(z), self.darkest, self.shape)

    def draw(self, count: int, rng: np.random.Generator) -> Float32[Tensor, "b l"]:
        """Latents from the standard normal distribution, on the device."""
        z = rng.standard_normal((count, self.latent), dtype=np.float32)
        return torch.from_numpy(z).to(self.device)


def unit(
    drawn: Float[Tensor, "b c h w"], darkest: float, shape: tuple[int, ...]
) -> Float32[Tensor, " b *stored"]:
    """Unit images of this shape, of what a generator's network drew in [darkest, 1]."""
    return ((drawn.float() - darkest) / (1 - darkest)).reshape(len(drawn), *shape)


def scale(darkest: float, channels: int) -> Moments:
    """What brings unit images to [darkest, 1]: less the mean, divided by the deviation."""
    span = 1 - darkest
    mean, std = (np.full(channels, value / span, np.float32) for value in (-darkest, 1.0))
    return Moments(mean, std)
