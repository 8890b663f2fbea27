"""Generators and critics: the plain and the residual networks of S4, and what they make of other sizes."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import torch
from annotated_types import Ge, Lt, MaxLen, MinLen
from jaxtyping import Float, Float32
from torch import Tensor, nn

from alrun.generative.layers import (
    EnlargedConvolution,
    PooledConvolution,
    Slope,
    convolution,
    linear,
    skip,
    transposed,
)
from alrun.models.network import channels_first, is_image

GRAY_WIDTH, COLOR_WIDTH = 64, 128
SMALLEST, LARGEST = 8, 128  # sides in pixels
LEAK = 0.2

Size = tuple[int, int]


class Critic(nn.Module):
    """Images on the generator's scale to one number each, large where they look real.

    Attributes:
        layers: all but the last; what they give is flattened, `width` numbers an image.
        widest: numbers of one image where it is widest.
    """

    def __init__(self, layers: nn.Module, width: int, widest: int) -> None:
        super().__init__()
        self.layers, self.width, self.widest = layers, width, widest
        self.last = linear(width, 1)

    def hidden(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """What the layer before the last gives."""
        return self.layers(x)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float32[Tensor, " b"]:
        """One number an image."""
        return self.judged(self.hidden(x))

    def judged(self, hidden: Float[Tensor, "b f"]) -> Float32[Tensor, " b"]:
        """The last layer, in float32: differences between values are what is learned from."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.last(hidden.float())[:, 0]


class Pair(NamedTuple):
    """A generator of images (b, c, h, w) from latents (b, l), its critic, and the darkest number in both."""

    generator: nn.Module
    critic: Critic
    darkest: float


@runtime_checkable
class Networks(Protocol):
    """A family of generators and critics.

    Attributes:
        latent: numbers an image is made from.
    """

    latent: int

    @property
    def has_dropout(self) -> bool:
        """Whether the critic draws dropout masks."""
        ...

    def build(self, shape: tuple[int, ...]) -> Pair:
        """Fresh networks for items of this shape; weights come from torch's current generator.

        Raises:
            ValueError: items they cannot draw.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """5x5 convolutions of stride 2, from the image to sides of at most 4, and transposed ones back.

    The critic has w, 2w, 4w, 4w... channels, LeakyReLU (0.2) and dropout after each, and one linear layer.
    The generator has a linear layer to the critic's last sides, and the critic's channels in reverse (half
    of them from four layers on). Gray images: w = 64, ReLU, a sigmoid at the end. Color images: w = 128,
    BatchNorm and ReLU, tanh at the end.

    Attributes:
        width: w; null is 64 for gray and 128 for color images.
        dropout: rate after each activation of the critic (WGAN-CT).

    Source: S4 tables 5, 7 and 10. Corrected: table 5's generator ends in one channel and its critic's last
    layer has 4096 inputs. Departs: sides other than 28, 32 and 64 follow the same rule.
    """

    latent: Annotated[int, Ge(1)]
    width: Annotated[int, Ge(2)] | None
    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def has_dropout(self) -> bool:
        """Whether the rate is above 0."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...]) -> Pair:
        """Fresh networks for items of this shape.

        Raises:
            ValueError: no gray or color images of sides from 8 to 128.
        """
        channels, *sides = drawable(shape)
        sizes = _halved((sides[0], sides[1]))
        width = self.width or (GRAY_WIDTH if channels == 1 else COLOR_WIDTH)
        widths = [width * min(2**place, 4) for place in range(len(sizes) - 1)]
        critic = self._critic([channels, *widths], sizes)
        back = [each // 2 if len(widths) > 3 else each for each in reversed(widths)]
        return Pair(_upwards(self.latent, [*back, channels], sizes[::-1]), critic, darkest(channels))

    def _critic(self, widths: list[int], sizes: list[Size]) -> Critic:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [convolution(before, after, 5, stride=2), Slope(LEAK)]
            layers += [nn.Dropout(self.dropout)] if self.has_dropout else []
        numbers = [width * prod(size) for width, size in zip(widths, sizes, strict=True)]
        return Critic(nn.Sequential(*layers, nn.Flatten()), numbers[-1], max(numbers))


@dataclass(frozen=True)
class Residual:
    """Residual blocks of two 3x3 convolutions, all of `width` channels.

    The generator has a linear layer, three blocks that double the sides, BatchNorm, ReLU, a 3x3 convolution
    and tanh. The critic has two blocks that halve the sides, two that do not, ReLU, the mean over the image
    and a linear layer; no BatchNorm.

    Attributes:
        dropout: rates after the critic's last three blocks.

    Source: S4 table 8; Gulrajani et al. 2017, appendix C, whose networks know the classes; these do not.
    """

    latent: Annotated[int, Ge(1)]
    width: Annotated[int, Ge(1)]
    dropout: Annotated[list[Annotated[float, Ge(0), Lt(1)]], MinLen(3), MaxLen(3)]

    @property
    def has_dropout(self) -> bool:
        """Whether a rate is above 0."""
        return max(self.dropout) > 0

    def build(self, shape: tuple[int, ...]) -> Pair:
        """Fresh networks for items of this shape.

        Raises:
            ValueError: no gray or color images of sides that 8 divides, from 8 to 128.
        """
        channels, *sides = drawable(shape)
        if any(side % 8 for side in sides):
            raise ValueError(
                f"residual generators double their sides three times, so 8 must divide them, got items of "
                f"shape {shape}; use generator=wgan_gp or generator=wgan_ct"
            )
        size = (sides[0] // 8, sides[1] // 8)
        generator = nn.Sequential(
            linear(self.latent, self.width * prod(size)),
            nn.Unflatten(1, (self.width, *size)),
            *(_EnlargingBlock(self.width) for _ in range(3)),
            nn.BatchNorm2d(self.width),
            nn.ReLU(),
            convolution(self.width, channels, 3),
            nn.Tanh(),
        )
        return Pair(generator, self._critic(channels, (sides[0], sides[1])), -1.0)

    def _critic(self, channels: int, size: Size) -> Critic:
        width = self.width
        blocks = [_PoolingBlock(width), _KeepingBlock(width), _KeepingBlock(width)]
        layers: list[nn.Module] = [_FirstBlock(channels, width)]
        for block, rate in zip(blocks, self.dropout, strict=True):
            layers += [block, nn.Dropout(rate)] if rate else [block]
        return Critic(nn.Sequential(*layers, Slope(0.0), _MeanOverImage()), width, width * prod(size))


class _EnlargingBlock(nn.Module):
    """Twice the sides; BatchNorm and ReLU before each convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first = [nn.BatchNorm2d(width), nn.ReLU(), EnlargedConvolution(width, width)]
        second = [nn.BatchNorm2d(width), nn.ReLU(), convolution(width, width, 3)]
        self.beside, self.layers = skip(width, width), nn.Sequential(*first, *second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return nn.functional.interpolate(self.beside(x), scale_factor=2.0) + self.layers(x)


class _FirstBlock(nn.Module):
    """Half the sides of an image."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.beside = skip(channels, width)
        first = convolution(channels, width, 3)
        self.layers = nn.Sequential(first, Slope(0.0), PooledConvolution(width, width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        return self.beside(nn.functional.avg_pool2d(x, 2)) + self.layers(x)


class _PoolingBlock(nn.Module):
    """Half the sides; ReLU before each convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.beside = skip(width, width)
        first = convolution(width, width, 3)
        self.layers = nn.Sequential(Slope(0.0), first, Slope(0.0), PooledConvolution(width, width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.beside(nn.functional.avg_pool2d(x, 2)) + self.layers(x)


class _KeepingBlock(nn.Module):
    """The same sides; ReLU before each convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = convolution(width, width, 3), convolution(width, width, 3)
        self.layers = nn.Sequential(Slope(0.0), first, Slope(0.0), second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.layers(x)


class _MeanOverImage(nn.Module):
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))


def drawable(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of items that a generator can draw.

    Raises:
        ValueError: no gray or color images, or sides out of 8 to 128.
    """
    channels, height, width = channels_first(shape) if is_image(shape) else (0, 0, 0)
    if channels not in (1, 3) or min(height, width) < SMALLEST or max(height, width) > LARGEST:
        raise ValueError(
            f"generators draw images (h, w) or (c, h, w) with c in (1, 3) and sides from {SMALLEST} to "
            f"{LARGEST}, got items of shape {shape}; prepare smaller images, or use a strategy without one"
        )
    return channels, height, width


def darkest(channels: int) -> float:
    """The smallest number of a plain generator: 0 of a sigmoid for gray images, -1 of tanh for color."""
    return 0.0 if channels == 1 else -1.0


def _halved(size: Size) -> list[Size]:
    """The size and, as often as a side is above 4, half of it, rounded up."""
    sizes = [size]
    while max(sizes[-1]) > 4:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _upwards(latent: int, widths: list[int], sizes: list[Size]) -> nn.Sequential:
    """From latents to images, through so many channels at these sizes."""
    norm = widths[-1] > 1
    start = widths[0] * prod(sizes[0])
    layers: list[nn.Module] = [linear(latent, start)]
    layers += [nn.BatchNorm1d(start)] if norm else []
    layers += [nn.ReLU(), nn.Unflatten(1, (widths[0], *sizes[0]))]
    for place, (before, after) in enumerate(pairwise(widths)):
        layers.append(transposed(before, after, sizes[place], sizes[place + 1]))
        if place < len(widths) - 2:
            layers += [nn.BatchNorm2d(after)] if norm else []
            layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Tanh() if norm else nn.Sigmoid())
