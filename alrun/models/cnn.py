"""Small convolutional networks."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge, Lt, MinLen
from torch import nn

from alrun.models.convolutional import ChannelsLast, Convolutional, dropped
from alrun.models.mlp import connected


@dataclass(frozen=True)
class S0Cnn(Convolutional):
    """One convolution and two hidden layers of 20, BatchNorm before each of the two.

    Source: S0 (Kushnir and Venturi), appendix A, MNIST. Departs: the "MaxPool layer with a kernel of size 2
    and padding 2" has more padding than a pool may have; the 2 is read as the padding of the 5x5 convolution,
    so that 28x28 gives 14x14x16 = 3136 features. ReLU is not stated there.
    """

    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def smallest(self) -> int:
        """A pixel is left at the end."""
        return 2

    def layers(self, channels: int, height: int, width: int) -> tuple[list[nn.Module], int]:
        """The convolution, then the hidden layers."""
        convolution = [*halving([channels, 16], 5), nn.Flatten()]
        flat = 16 * (height // 2) * (width // 2)
        return [*convolution, *connected(flat, [20, 20], batch_norm=True, dropout=self.dropout)], 20


@dataclass(frozen=True)
class Lenet(Convolutional):
    """LeNet-5 with ReLU and max-pooling; images with a side below 12 are enlarged to 12.

    `hidden`: widths of further layers before the output, after the two of 120 and 84.

    Source: LeCun et al. 1998, section II.B; with hidden [50] as S1 (DGAL), appendix A, which names no
    activation (ReLU here). Departs: ReLU for tanh, max-pooling for trainable sub-sampling, all maps of the
    second convolution see all of the first, a linear layer for the RBF output.
    """

    hidden: list[Annotated[int, Ge(1)]]
    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def smallest(self) -> int:
        """A pixel is left at the end: 12, pool 6, convolution 2, pool 1."""
        return 12

    def layers(self, channels: int, height: int, width: int) -> tuple[list[nn.Module], int]:
        """Both convolutions, then the hidden layers."""
        second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        convolutions = [*halving([channels, 6], 5), *second]
        flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        widths = [120, 84, *self.hidden]
        return [*convolutions, *connected(flat, widths, batch_norm=False, dropout=self.dropout)], widths[-1]


@dataclass(frozen=True)
class PooledCnn(Convolutional):
    """Convolutions that keep the image's sides, each with ReLU and a 2x2 max-pool; then hidden layers.

    Attributes:
        channels: of each convolution.
        side: of its kernels, in pixels.
        hidden: widths of ReLU layers before the output, dropout after each.

    Source: S4 (Mayer and Timofte), table 5 with channels [32, 64] of side 5 (MNIST) and table 10 with [16,
    32, 64] of side 3 (CelebA), both with hidden [1024]. Departs: CelebA's single sigmoid is the softmax of
    two outputs, the same family of probabilities.
    """

    channels: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)]
    side: Literal[3, 5, 7]
    hidden: list[Annotated[int, Ge(1)]]
    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def smallest(self) -> int:
        """A pixel is left at the end."""
        return 2 ** len(self.channels)

    def layers(self, channels: int, height: int, width: int) -> tuple[list[nn.Module], int]:
        """The convolutions, then the hidden layers."""
        convolutions = [*halving([channels, *self.channels], self.side), nn.Flatten()]
        flat = self.channels[-1] * (height // self.smallest) * (width // self.smallest)
        hidden = connected(flat, self.hidden, batch_norm=False, dropout=self.dropout)
        return [*convolutions, *hidden], [flat, *self.hidden][-1]


@dataclass(frozen=True)
class AllCnn(Convolutional):
    """All-CNN-C: nine convolutions with ReLU, and the average over the image in place of hidden layers.

    With w = `width`: 3x3 convolutions of w, w and, with stride 2, w channels, dropout; of 2w, 2w and, with
    stride 2, 2w, dropout; of 2w without padding (8x8 becomes 6x6); a 1x1 convolution of 2w; and one to the
    classes, averaged over the image. That last one is the network's linear layer after the average: the two
    change places without changing a logit.

    Source: Springenberg et al. 2015, table 1, All-CNN-C; S4 (Mayer and Timofte), table 7, with w = 96, 1.4
    million weights. Departs, as S4's table does: no dropout of the input and no ReLU between the last
    convolution and the average.
    """

    width: Annotated[int, Ge(1)]
    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def smallest(self) -> int:
        """A pixel is left at the end: 9, stride 5, stride 3, convolution 1."""
        return 9

    def layers(self, channels: int, height: int, width: int) -> tuple[list[nn.Module], int]:
        """All but the last convolution, and the average."""
        w = self.width
        first = [*_convolution(channels, w), *_convolution(w, w), *_convolution(w, w, stride=2)]
        second = [*_convolution(w, 2 * w), *_convolution(2 * w, 2 * w), *_convolution(2 * w, 2 * w, stride=2)]
        third = [nn.Conv2d(2 * w, 2 * w, 3), nn.ReLU(), nn.Conv2d(2 * w, 2 * w, 1), nn.ReLU()]
        halves = [*first, *dropped(self.dropout), *second, *dropped(self.dropout)]
        return [ChannelsLast(), *halves, *third, nn.AdaptiveAvgPool2d(1), nn.Flatten()], 2 * w


def halving(channels: list[int], side: int) -> list[nn.Module]:
    """Padded convolutions from each number of channels to the next, each with ReLU and a 2x2 max-pool."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, side, padding=side // 2), nn.ReLU(), nn.MaxPool2d(2)]
    return layers


def _convolution(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU()]
