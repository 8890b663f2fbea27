"""The autoencoders of ASAL (S4): codes that are small images of many channels, flattened."""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.canvas import Canvas
from alrun.models.coder import Coder
from alrun.models.network import channels_first
from alrun.models.stacks import Layers, halvings
from alrun.pool import Moments

SMALL_SIDE = 32
DIMMEST = 0.01


@dataclass(frozen=True)
class _Table:
    """One of S4's tables: channels down to the code, the layers, and how the decoder ends.

    `signed` networks see and give pixels in [-1, 1] and end in tanh; the others in [0, 1] and sigmoid.
    """

    channels: tuple[int, ...]
    layers: Layers
    normed_end: bool
    signed: bool

    def ending(self, channels: int) -> list[nn.Module]:
        """What follows the decoder's last convolution; it gives pixels in [0, 1]."""
        normed: list[nn.Module] = [nn.BatchNorm2d(channels)] if self.normed_end else []
        return [*normed, *([nn.Tanh(), Affine(0.5, 0.5)] if self.signed else [nn.Sigmoid()])]


TABLES = {
    "mnist": _Table((3, 6, 12), Layers(5, pooled=False, normed=False, leaky=True), False, False),
    "cifar": _Table((64, 32, 16), Layers(3, pooled=True, normed=True, leaky=False), True, False),
    "celeba": _Table((128, 64, 32, 16), Layers(5, pooled=False, normed=True, leaky=False), False, True),
}


@dataclass(frozen=True)
class S4Coding:
    """What kind of autoencoder: which of S4's tables, and how many channels.

    `mnist` (table 4): 5x5 convolutions of stride 2, LeakyReLU; sigmoid at the end. `cifar` (table 6, SVHN,
    too): 3x3 convolutions, BatchNorm, ReLU, 2x2 max-pool; BatchNorm and sigmoid at the end. `celeba` (table
    9, LSUN, too): 5x5 convolutions of stride 2, BatchNorm, ReLU; tanh at the end, for pixels brought to
    [-1, 1] and back. Decoders double by transposed convolutions of the same side, with the channels in
    reverse and ReLU between them. `auto`: `mnist` for gray images, `cifar` for others with sides up to 32,
    else `celeba`.

    Attributes:
        channels: after each halving; the code is the last of them times the smallest image. Null is the
            table's own: 12 x 4 x 4 numbers of 28x28 images, 16 x 4 x 4 of 32x32 and 64x64 ones.

    Source: S4, tables 4, 6, 9 and appendix A. Left open there: the slope of LeakyReLU (0.2), how 4 becomes 7
    (doubled and cropped), and the first weights: Glorot's, no biases.
    """

    architecture: Literal["auto", "mnist", "cifar", "celeba"]
    channels: list[Annotated[int, Ge(1)]] | None

    def plain(self, shape: tuple[int, ...], scale: Moments) -> Coder:
        """A fresh coder of images of this shape; weights come from torch's current generator.

        Raises:
            ValueError: the items are no images.
        """
        color, height, width = channels_first(shape)
        table = TABLES[self._named(color, height, width)]
        widths = [*(self.channels or table.channels)]
        sizes = halvings((height, width), len(widths))
        code = (widths[-1], *sizes[-1])
        down, up = table.layers.down([color, *widths]), table.layers.up([*widths[::-1], color], sizes[::-1])
        entry = [Affine(2.0, -1.0)] if table.signed else []
        for layer in (*down, *up):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                _draw(layer)
        return Coder(
            shape,
            scale,
            nn.Sequential(*entry, *down, nn.Flatten()),
            nn.Sequential(nn.Unflatten(1, code), *up, *table.ending(color)),
            canvas=Canvas(sizes[0], sizes[0], sizes[0]),
            latent=prod(code),
        )

    def _named(self, color: int, height: int, width: int) -> str:
        if self.architecture != "auto":
            return self.architecture
        if color == 1:
            return "mnist"
        return "cifar" if max(height, width) <= SMALL_SIDE else "celeba"


def begin_at(coder: Coder, shades: Float32[ndarray, " c"]) -> None:
    """Lets a fresh decoder of `S4Coding` draw these shares of one, a channel each, whatever the code.

    Digits are mostly black. From gray, all images first become black, and the few ReLU units of the narrow
    networks die on the way: on digits 5 and 7 two trainings of three were still black after 900 steps.
    """
    shares = torch.from_numpy(shades).double().clamp(DIMMEST, 1 - DIMMEST)
    layers = list(coder.decoder.modules())
    ends = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d | nn.BatchNorm2d)]
    halved = any(isinstance(layer, nn.Tanh) for layer in layers)
    with torch.no_grad():
        ends[-1].get_parameter("bias").copy_(shares.logit() / (2 if halved else 1))


def _draw(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Affine(nn.Module):
    """x becomes factor * x + shift; holds no weights."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The numbers on their other scale."""
        return self.factor * x + self.shift
