"""Small convolutional networks for gray or color images."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt
from torch import nn

from alrun.models.network import Adapt, Network, fully_connected, image_size
from alrun.pool import Moments


@dataclass(frozen=True)
class S0Cnn:
    """16 channels 5x5, max-pool 2, two hidden layers of 20 with BatchNorm before each.

    Source: S0 appendix A (MNIST). Departs: the printed padding 2 of the max-pool is impossible there and is
    read as the convolution's, so 28x28 gives 16x14x14 = 3136 inputs (ALGORITHMS 1.8).
    """

    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer follows each hidden layer."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network for images of at least 2 pixels a side."""
        channels, side = image_size(shape, "s0_cnn")
        convolution = [nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        hidden, width = fully_connected(16 * (side // 2) ** 2, [20, 20], True, self.dropout)
        body = nn.Sequential(*convolution, hidden)
        return Network(Adapt(moments, channels, side), nn.Identity(), body, nn.Linear(width, classes))


@dataclass(frozen=True)
class Lenet:
    """LeNet-5 with ReLU and max-pooling: conv 6 and 16 (5x5), hidden layers of 120 and 84.

    Images below 16 pixels a side are enlarged to 16. Source: LeCun et al. 1998; departs: ReLU, max-pooling and
    a softmax output in place of the original's.
    """

    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer follows each hidden layer."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network for images of any size."""
        channels, side = image_size(shape, "lenet")
        side = max(side, 16)
        convolutions = [
            *(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        ]
        hidden, width = fully_connected(16 * ((side // 2 - 4) // 2) ** 2, [120, 84], False, self.dropout)
        body = nn.Sequential(*convolutions, hidden)
        return Network(Adapt(moments, channels, side), nn.Identity(), body, nn.Linear(width, classes))
