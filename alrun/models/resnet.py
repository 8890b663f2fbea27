"""Residual networks."""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import nn

from alrun.models.mlp import ending
from alrun.models.network import Adapt, Network, UnitLength
from alrun.models.pretrained import Weights, joined, load_weights, require_file, size_for, standard
from alrun.pool import Moments

SMALL_SIDE = 64


@dataclass(frozen=True)
class Resnet:
    """torchvision's residual network of this depth.

    `hidden`: widths of ReLU layers before the output, dropout after each; without any, dropout stands before
    the output. `normalize`: inputs of the last linear layer have unit length. `stem`: `imagenet` begins with
    a 7x7 convolution of stride 2 and a max-pool, `small` with a 3x3 convolution of stride 1 alone, `auto`
    takes `small` for sides up to 64 without pretrained weights. `pretrained` is false, true (torchvision's
    ImageNet weights) or the path of a state_dict; `freeze` leaves the convolutions as they start;
    `image_size` in pixels, null for the stored size, at least 32.

    Source: He et al. 2016, table 1; the small stem as in its section 4.2 (CIFAR-10).
    """

    depth: Literal[18, 34, 50]
    stem: Literal["auto", "small", "imagenet"]
    hidden: list[Annotated[int, Ge(1)]]
    dropout: Annotated[float, Ge(0), Lt(1)]
    normalize: bool
    pretrained: bool | str
    freeze: bool
    image_size: Annotated[int, Ge(1)] | None

    def __post_init__(self) -> None:
        """Refuses settings that do not fit together.

        Raises:
            ValueError: a small stem with pretrained weights, which have the large one.
            FileNotFoundError: `pretrained` names a file that does not exist.
        """
        if self.stem == "small" and self.pretrained:
            raise ValueError(
                "model.stem=small has a first layer that pretrained weights do not hold, got "
                f"model.pretrained={self.pretrained}; set model.stem=imagenet or model.pretrained=false"
            )
        require_file(self.pretrained)

    @property
    def has_dropout(self) -> bool:
        """Whether dropout is above 0."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for gray or RGB images.

        Raises:
            ValueError: the items are no such images, or the weights file does not fit.
            FileNotFoundError: the weights file is not there.
        """
        weights = imagenet(self.depth)
        size = size_for(shape, self.image_size)
        adapt = Adapt(shape, standard(weights) if self.pretrained else moments, (3, *size))
        small = self.stem == "small" or (
            self.stem == "auto" and not self.pretrained and max(size) <= SMALL_SIDE
        )
        convolution, width = residual(self.depth, small_stem=small)
        if self.pretrained:
            load_weights(convolution, self.pretrained, weights, prefix="")
        rest = ending(width, self.hidden, self.dropout)
        if self.normalize:
            rest.append(UnitLength())
        head = nn.Linear([width, *self.hidden][-1], classes)
        return joined(adapt, convolution, rest, head, freeze=self.freeze)


def imagenet(depth: Literal[18, 34, 50]) -> Weights:
    """The weights by torchvision of a ResNet of this depth."""
    from torchvision import models

    return models.get_model_weights(f"resnet{depth}").DEFAULT  # type: ignore[attr-defined]


def residual(depth: Literal[18, 34, 50], *, small_stem: bool) -> tuple[nn.Module, int]:
    """A ResNet of this depth up to its average over the image, for color images; and its width.

    The layers are torchvision's. A small stem is a 3x3 convolution of stride 1, in place of a 7x7 one of
    stride 2 and a max-pool.
    """
    from torchvision import models

    network = {18: models.resnet18, 34: models.resnet34, 50: models.resnet50}[depth](weights=None)
    width = network.fc.in_features
    network.fc = nn.Identity()  # type: ignore[assignment]
    if small_stem:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()  # type: ignore[assignment]
    return network, width


def widest(depth: Literal[18, 34, 50], size: tuple[int, int], *, small_stem: bool) -> int:
    """Numbers of one image of this size where such a network is widest: after its stem or first blocks."""
    channels = 256 if depth == 50 else 64
    if small_stem:
        return channels * prod(size)
    half, quarter = (prod(-(-side // part) for side in size) for part in (2, 4))
    return max(64 * half, channels * quarter)
