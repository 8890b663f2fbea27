"""Networks that find a generator's latents of images."""

from math import prod

from torch import nn

from alrun.models.encoded import ChannelsLast
from alrun.models.network import Adapt, channels_first
from alrun.models.stacks import Layers, halvings
from alrun.models.trunk import Trunk
from alrun.pool import Moments

SMALLEST_SIDE = 4
WIDENED = 4


def inverse(shape: tuple[int, ...], moments: Moments, width: int, latent: int) -> Trunk:
    """A fresh network of a plain critic's shape, from images of this shape to `latent` numbers.

    5x5 convolutions of stride 2 with w, 2w, 4w, 4w... channels (w = `width`), BatchNorm and LeakyReLU (0.2)
    after each, until both sides are at most 4, and a linear layer. Weights come from torch's current
    generator.

    Raises:
        ValueError: the items are no images.
    Source: critics of S4, tables 5, 7 and 10. Departs: with BatchNorm, as no gradient is penalized here.
    """
    channels, height, length = channels_first(shape)
    steps = (-(-max(height, length) // SMALLEST_SIDE) - 1).bit_length()
    sizes = halvings((height, length), steps)
    widths = [width * min(2**step, WIDENED) for step in range(steps)]
    layers = Layers(5, pooled=False, normed=True, leaky=True).down([channels, *widths])
    numbers = [each * prod(size) for each, size in zip([channels, *widths], sizes, strict=True)]
    connected = [nn.Flatten(), nn.Linear(numbers[-1], latent)]
    adapt = Adapt(shape, moments, (channels, height, length))
    return Trunk(adapt, ChannelsLast(nn.Sequential(*layers, *connected)), latent, max(numbers))
