"""Small convolutional networks."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt
from torch import nn

from alrun.models.mlp import connected
from alrun.models.network import Adapt, Network, channels_first, enlarged
from alrun.pool import Moments

S0_SMALLEST = 2
LENET_SMALLEST = 12  # 12 -> pool 6 -> convolution 2 -> pool 1


@dataclass(frozen=True)
class S0Cnn:
    """One convolution and two hidden layers of 20, BatchNorm before each of the two.

    Source: S0 (Kushnir and Venturi), appendix A, MNIST. Departs: the "MaxPool layer with a kernel of size 2
    and padding 2" has more padding than a pool may have; the 2 is read as the padding of the 5x5 convolution,
    so that 28x28 gives 14x14x16 = 3136 features. ReLU is not stated there.
    """

    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def has_dropout(self) -> bool:
        """Whether dropout is above 0."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for images of any size.

        Raises:
            ValueError: the items are no images.
        """
        channels, *size = channels_first(shape)
        height, width = enlarged((size[0], size[1]), S0_SMALLEST)
        convolution = [nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        flat = 16 * (height // 2) * (width // 2)
        hidden = connected(flat, [20, 20], batch_norm=True, dropout=self.dropout)
        adapt = Adapt(shape, moments, (channels, height, width))
        return Network(adapt, nn.Identity(), nn.Sequential(*convolution, *hidden), nn.Linear(20, classes))


@dataclass(frozen=True)
class Lenet:
    """LeNet-5 with ReLU and max-pooling; images with a side below 12 are enlarged to 12.

    `hidden`: widths of further layers before the output, after the two of 120 and 84.

    Source: LeCun et al. 1998, section II.B; with hidden [50] as S1 (DGAL), appendix A, which names no
    activation (ReLU here). Departs: ReLU for tanh, max-pooling for trainable sub-sampling, all maps of the
    second convolution see all of the first, a linear layer for the RBF output.
    """

    hidden: list[Annotated[int, Ge(1)]]
    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def has_dropout(self) -> bool:
        """Whether dropout is above 0."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for images of any size.

        Raises:
            ValueError: the items are no images.
        """
        channels, *size = channels_first(shape)
        height, width = enlarged((size[0], size[1]), LENET_SMALLEST)
        first = [nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        widths = [120, 84, *self.hidden]
        hidden = connected(flat, widths, batch_norm=False, dropout=self.dropout)
        adapt = Adapt(shape, moments, (channels, height, width))
        head = nn.Linear(widths[-1], classes)
        return Network(adapt, nn.Identity(), nn.Sequential(*first, *second, *hidden), head)
