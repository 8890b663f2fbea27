"""VGG-16, the network of S0's CIFAR-10 and SVHN experiments."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt, MinLen
from torch import nn
from torchvision.models import get_model

from alrun.models.network import Network, fully_connected, image_size
from alrun.models.pretrained import SMALLEST, adapted, assembled, load
from alrun.pool import Moments


@dataclass(frozen=True)
class Vgg16:
    """VGG-16's convolutions, average-pooled to 512 numbers, then hidden layers with ReLU and dropout.

    Attributes:
        pretrained: false, true (ImageNet, from torchvision's cache or download) or a local weights file.
        freeze: the convolutions are not trained and their outputs kept.
        image_size: side in pixels to which images are resized; null keeps it, at least 32.

    Source: S0 appendix A (CIFAR-10: frozen ImageNet convolutions, layers of 512 and 20). Departs: average
    pooling to 1x1 in place of 7x7, as on 32-pixel images both give 512 distinct values.
    """

    batch_norm: bool
    hidden: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)]
    dropout: Annotated[float, Ge(0), Lt(1)]
    pretrained: bool | str
    freeze: bool
    image_size: Annotated[int, Ge(SMALLEST)] | None

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer follows each hidden layer."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network for images of any size."""
        _, side = image_size(shape, "vgg16")
        name = "vgg16_bn" if self.batch_norm else "vgg16"
        whole = get_model(name, weights=None)
        load(whole, name, self.pretrained)
        convolutions = nn.Sequential(whole.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        adapt = adapted(shape, moments, self.image_size or max(side, SMALLEST), self.pretrained)
        hidden = fully_connected(512, self.hidden, False, self.dropout)
        return assembled(adapt, convolutions, hidden, classes, self.freeze)
