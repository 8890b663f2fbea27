"""Networks of nine convolutions that semi-supervised learning is compared on."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from alrun.models.convolutional import ChannelsLast, Convolutional, dropped
from alrun.models.network import UnitLength

SMALLEST = 12  # 12 -> pool 6 -> pool 3 -> convolution 1
SLOPE = 0.1
LARGE_FROM = 33


@dataclass(frozen=True)
class Cnn13(Convolutional):
    """Nine weight-normed convolutions, the average over the image, and one linear layer.

    With w = `width`: three 3x3 convolutions of w channels, 2x2 max-pool, dropout; three of 2w, max-pool,
    dropout; one of 4w without padding (8x8 becomes 6x6), then 1x1 convolutions of 2w and w, averaged over the
    image to w numbers, which `normalize` brings to unit length. Sides below 12 pixels are enlarged to 12.

    Source: Laine and Aila 2017, table 5; Tarvainen and Valpola 2017, table 5; S3 (Iscen et al. 2019), section
    5.2, with w = 128. Departs: no input noise (as S3) and, where S3's code has it, no weight norm of the
    linear layer.
    """

    width: Annotated[int, Ge(1)]
    dropout: Annotated[float, Ge(0), Lt(1)]
    normalize: bool

    @property
    def smallest(self) -> int:
        """A pixel is left at the end."""
        return SMALLEST

    def layers(self, channels: int, height: int, width: int) -> tuple[list[nn.Module], int]:
        """The convolutions, the average and, if wanted, the division by its length."""
        w = self.width
        convolutions = nine(channels, (w, 2 * w), (4 * w, 2 * w, w), self.dropout, block)
        return [ChannelsLast(), *convolutions, *([UnitLength()] if self.normalize else [])], w


@dataclass(frozen=True)
class ConvSmall(Convolutional):
    """Conv-Small: nine convolutions with BatchNorm and leaky ReLU, averaged over the image.

    With w = `width`: three 3x3 convolutions of w channels, 2x2 max-pool, dropout; three of 2w, max-pool,
    dropout; one of 2w without padding (8x8 becomes 6x6), then two 1x1 convolutions of 2w, averaged over the
    image to 2w numbers. Sides below 12 pixels are enlarged to 12, with the large stem to 23.

    Attributes:
        stem: the first convolution is of 3x3 pixels (`small`), or of 5x5 with stride 2 (`large`); `auto`
            takes `large` where both sides are above 32 pixels.

    Source: Miyato et al. 2018, Conv-Small on SVHN, with w = 64; S4 (Mayer and Timofte), appendix A.7, for the
    large stem (LSUN, 64x64).
    """

    width: Annotated[int, Ge(1)]
    dropout: Annotated[float, Ge(0), Lt(1)]
    stem: Literal["auto", "small", "large"]

    @property
    def smallest(self) -> int:
        """The large stem halves the image, rounded up."""
        return 2 * SMALLEST - 1 if self.stem == "large" else SMALLEST

    def layers(self, channels: int, height: int, width: int) -> tuple[list[nn.Module], int]:
        """The convolutions and the average."""
        w = self.width
        large = self.stem == "large" or (self.stem == "auto" and min(height, width) >= LARGE_FROM)
        convolutions = nine(channels, (w, 2 * w), (2 * w, 2 * w, 2 * w), self.dropout, plain_block)
        if large:
            convolutions[0] = nn.Conv2d(channels, w, 5, stride=2, padding=2)
        return [ChannelsLast(), *convolutions], 2 * w


def nine(
    channels: int,
    halved: tuple[int, ...],
    last: tuple[int, int, int],
    dropout: float,
    block: Callable[..., list[nn.Module]],
) -> list[nn.Module]:
    """Blocks of convolutions of 3x3 pixels, three of each width in `halved`, then three of the `last` widths.

    After each three of `halved` come a 2x2 max-pool and dropout. Of the last three the first has no padding,
    the others see single pixels; they are averaged over the image.
    """
    layers, before = [], channels
    for width in halved:
        pairs = pairwise([before, width, width, width])
        layers += [layer for pair in pairs for layer in block(*pair, side=3, padding=1)]
        layers += [nn.MaxPool2d(2), *dropped(dropout)]
        before = width
    for pair, side in zip(pairwise([before, *last]), (3, 1, 1), strict=True):
        layers += block(*pair, side=side, padding=0)
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def block(before: int, after: int, *, side: int, padding: int) -> list[nn.Module]:
    """A weight-normed convolution of `side` x `side` pixels, BatchNorm and a leaky ReLU."""
    convolution = weight_norm(nn.Conv2d(before, after, side, padding=padding))
    # the norm gives weights in the usual order, wherever they lie
    register_parametrization(convolution, "weight", ChannelsLast())
    return [convolution, *_after(after)]


def plain_block(before: int, after: int, *, side: int, padding: int) -> list[nn.Module]:
    """A convolution of `side` x `side` pixels, BatchNorm and a leaky ReLU."""
    return [nn.Conv2d(before, after, side, padding=padding), *_after(after)]


def _after(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE, inplace=True)]
