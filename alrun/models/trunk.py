"""Networks without an end, which contrastive learning trains."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge
from torch import nn

from alrun.models.encoded import ChannelsLast, Encoder
from alrun.models.network import Adapt, channels_first, enlarged
from alrun.models.pretrained import size_for
from alrun.models.resnet import SMALL_SIDE, residual, widest
from alrun.pool import Moments

CNN_SMALLEST = 8
STAGES = 4


class Trunk(NamedTuple):
    """Parts of an encoder while it is trained; see `Encoder`."""

    adapt: Adapt
    layers: nn.Module
    width: int
    widest: int

    def frozen(self) -> Encoder:
        """The encoder of these parts; they are trained no further."""
        return Encoder(self.adapt, self.layers, width=self.width, widest=self.widest)


@dataclass(frozen=True)
class Trunks:
    """Encoders of images, by the name of their layers.

    `resnet18`, `resnet34`: torchvision's, averaged over the image, 512 numbers; a 3x3 first convolution and
    no max-pool for sides up to 64. `cnn`: four 3x3 convolutions with w, 2w, 4w, 8w channels (w = `width`),
    BatchNorm and ReLU after each and a 2x2 max-pool after the first three, averaged over the image, 8w
    numbers. `mlp`: two connected layers of 8w numbers with BatchNorm and ReLU. Images with a side below 32
    (ResNet) or 8 (cnn) are enlarged to that, their ratio kept.
    """

    architecture: Literal["resnet18", "resnet34", "cnn", "mlp"]
    width: Annotated[int, Ge(1)]

    def build(self, shape: tuple[int, ...], moments: Moments) -> Trunk:
        """A fresh one for images of this stored shape; weights come from torch's current generator.

        Raises:
            ValueError: the items are no images, or a ResNet's have neither one nor three channels.
        """
        channels, *sides = channels_first(shape)
        if self.architecture in ("resnet18", "resnet34"):
            size = size_for(shape, None)
            small = max(size) <= SMALL_SIDE
            depth = 18 if self.architecture == "resnet18" else 34
            layers, width = residual(depth, small_stem=small)
            most = widest(depth, size, small_stem=small)
            return Trunk(Adapt(shape, moments, (3, *size)), ChannelsLast(layers), width, most)
        if self.architecture == "mlp":
            return self._connected(shape, moments)
        size = enlarged((sides[0], sides[1]), CNN_SMALLEST)
        adapt = Adapt(shape, moments, (channels, *size))
        layers = ChannelsLast(_convolutions(channels, self.width))
        return Trunk(adapt, layers, self.width * 2 ** (STAGES - 1), self.width * prod(size))

    def _connected(self, shape: tuple[int, ...], moments: Moments) -> Trunk:
        numbers, width = prod(shape), 8 * self.width
        layers: list[nn.Module] = [nn.Flatten()]
        for before in (numbers, width):
            layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        adapt = Adapt(shape, moments, channels_first(shape))
        return Trunk(adapt, nn.Sequential(*layers), width, max(numbers, width))


def _convolutions(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise([channels, *(width * 2**stage for stage in range(STAGES))]):
        layers += [nn.MaxPool2d(2)] if layers else []
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
