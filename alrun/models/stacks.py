"""Stacks of layers that halve images step by step, and of those that double them again."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

LEAK = 0.2


@dataclass(frozen=True)
class Layers:
    """What stands around each convolution of a stack, down or up.

    Attributes:
        kernel: side of the convolutions in pixels, odd; borders are padded with zeros.
        pooled: on the way down a 2x2 max-pool halves, not a stride of 2.
        normed: BatchNorm after each convolution, which then has no bias of its own.
        leaky: LeakyReLU of slope 0.2 on the way down, not ReLU.
    """

    kernel: Literal[3, 5]
    pooled: bool
    normed: bool
    leaky: bool

    def down(self, channels: list[int]) -> list[nn.Module]:
        """A step from each of these channels to the next; it halves both sides, upwards if they are odd."""
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            stride = 1 if self.pooled else 2
            layers.append(
                nn.Conv2d(before, after, self.kernel, stride, self.kernel // 2, bias=not self.normed)
            )
            layers += [nn.BatchNorm2d(after)] if self.normed else []
            layers += [nn.LeakyReLU(LEAK, inplace=True) if self.leaky else nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2, ceil_mode=True)] if self.pooled else []
        return layers

    def up(self, channels: list[int], sizes: list[tuple[int, int]]) -> list[nn.Module]:
        """A transposed convolution of stride 2 to each next channels and size, ReLU between them.

        What is larger than the size wanted loses its last rows and columns. The last one is followed by
        nothing: BatchNorm and a final function are its reader's.
        """
        steps = list(zip(pairwise(channels), sizes[1:], strict=True))
        layers: list[nn.Module] = []
        for place, ((before, after), size) in enumerate(steps, 1):
            normed = self.normed and place < len(steps)
            padding = self.kernel // 2
            layers.append(nn.ConvTranspose2d(before, after, self.kernel, 2, padding, 1, bias=not normed))
            layers.append(Cropped(size))
            layers += [nn.BatchNorm2d(after)] if normed else []
            layers += [nn.ReLU(inplace=True)] if place < len(steps) else []
        return layers


class Cropped(nn.Module):
    """The first rows and columns of images; holds no weights."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """As many of them as wanted."""
        return x[:, :, : self.height, : self.width]


def halvings(size: tuple[int, int], steps: int) -> list[tuple[int, int]]:
    """Height and width before the first and after each of so many halvings, rounded upwards."""
    sizes = [size]
    for _ in range(steps):
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes
