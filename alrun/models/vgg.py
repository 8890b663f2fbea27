"""VGG-16, its convolutional part with fully connected layers of one's own."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt
from torch import nn

from alrun.models.mlp import connected
from alrun.models.network import Adapt, Network
from alrun.models.pretrained import (
    SMALLEST,
    joined,
    load_weights,
    require_file,
    size_for,
    standard,
)
from alrun.pool import Moments

WIDTH = 512


@dataclass(frozen=True)
class Vgg16:
    """Convolutional part of VGG-16, averaged to 512 features, then hidden layers with ReLU and dropout each.

    `pretrained` is false, true (torchvision's ImageNet weights) or the path of a state_dict; `freeze` leaves
    the convolutional part as it starts; `image_size` in pixels, at least 32, null for the stored size.

    Source: Simonyan and Zisserman 2014, table 1, D; with hidden [512, 20] and dropout as S0 (Kushnir and
    Venturi), appendix A, CIFAR10. Departs: features are averaged over what is left of the image (at 32x32
    that is one position).
    """

    batch_norm: bool
    hidden: list[Annotated[int, Ge(1)]]
    dropout: Annotated[float, Ge(0), Lt(1)]
    pretrained: bool | str
    freeze: bool
    image_size: Annotated[int, Ge(SMALLEST)] | None

    def __post_init__(self) -> None:
        """Refuses settings that do not fit together.

        Raises:
            ValueError: dropout without a hidden layer to follow, or an image size below 32.
            FileNotFoundError: `pretrained` names a file that does not exist.
        """
        if self.dropout > 0 and not self.hidden:
            raise ValueError(
                f"model.dropout follows hidden layers and model.hidden is [], got {self.dropout}; "
                "set model.dropout=0 or give hidden widths"
            )
        if self.image_size is not None and self.image_size < SMALLEST:
            raise ValueError(
                f"model.image_size must be at least {SMALLEST} for VGG-16, which halves it five times, "
                f"got {self.image_size}; raise it or set model.image_size=null"
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
        from torchvision.models import VGG16_BN_Weights, VGG16_Weights

        weights = VGG16_BN_Weights.DEFAULT if self.batch_norm else VGG16_Weights.DEFAULT
        seen = standard(weights) if self.pretrained else moments
        adapt = Adapt(shape, seen, (3, *size_for(shape, self.image_size)))
        layers = _convolutions(batch_norm=self.batch_norm)
        if self.pretrained:
            load_weights(layers, self.pretrained, weights, prefix="features.")
        convolution = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        rest = connected(WIDTH, self.hidden, batch_norm=False, dropout=self.dropout)
        head = nn.Linear([WIDTH, *self.hidden][-1], classes)
        return joined(adapt, convolution, rest, head, freeze=self.freeze)


def _convolutions(*, batch_norm: bool) -> nn.Sequential:
    """The layers torchvision calls `features`, with its initial weights.

    Not cut from `torchvision.models.vgg16()`, which first draws the 124 million weights of a classifier that
    is then thrown away.
    """
    from torchvision.models.vgg import cfgs, make_layers

    layers = make_layers(cfgs["D"], batch_norm=batch_norm)
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return layers
