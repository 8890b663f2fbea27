"""Residual networks, with a stem for small images."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import nn
from torchvision.models import get_model

from alrun.models.network import Network, image_size
from alrun.models.pretrained import SMALLEST, adapted, assembled, load
from alrun.pool import Moments


@dataclass(frozen=True)
class Resnet:
    """torchvision's ResNet; its last layer's input is the average-pooled feature map.

    Attributes:
        stem: `small` is a 3x3 convolution of stride 1 without max-pooling, `imagenet` the original; `auto` is
            small for images up to 64 pixels a side without pretrained weights.
        dropout: rate of a dropout layer before the last linear layer (there is no hidden one).
        pretrained: false, true (ImageNet, from torchvision's cache or download) or a local weights file.
        freeze: the convolutions are not trained and their outputs kept.
        image_size: side in pixels to which images are resized; null keeps it, at least 32.
    """

    depth: Literal[18, 34, 50]
    stem: Literal["auto", "small", "imagenet"]
    dropout: Annotated[float, Ge(0), Lt(1)]
    pretrained: bool | str
    freeze: bool
    image_size: Annotated[int, Ge(SMALLEST)] | None

    def __post_init__(self) -> None:
        """Refuses weights that have no place.

        Raises:
            ValueError: the small stem with pretrained weights, whose first layer is 7x7.
        """
        if self.stem == "small" and self.pretrained is not False:
            raise ValueError("stem: pretrained weights have the imagenet stem, got small; use model.stem=auto")

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer stands before the last layer."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network for images of any size."""
        _, stored = image_size(shape, "resnet")
        side = self.image_size or max(stored, SMALLEST)
        name = f"resnet{self.depth}"
        whole = get_model(name, weights=None)
        if self.stem == "small" or (self.stem == "auto" and side <= 64 and self.pretrained is False):
            whole.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(whole.conv1.weight, mode="fan_out", nonlinearity="relu")
            whole.maxpool = nn.Identity()
        load(whole, name, self.pretrained)
        width = whole.fc.in_features
        whole.fc = nn.Identity()
        hidden = nn.Dropout(self.dropout) if self.dropout > 0 else nn.Identity()
        adapt = adapted(shape, moments, side, self.pretrained)
        return assembled(adapt, whole, (hidden, width), classes, self.freeze)
