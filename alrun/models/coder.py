"""Networks that write an item as a few numbers and read it back: the body of autoencoders and VAEs."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float32, Shaped
from torch import Tensor, nn

from alrun.models.canvas import STAGES, Canvas, Lifted, canvas_size
from alrun.models.encoded import Encoder
from alrun.models.mlp import connected
from alrun.models.network import CHANNELS, Adapt, channels_first, is_image
from alrun.pool import Inputs, Moments

SMALL_STEM = 64
RESNET_WIDTH = 512


@dataclass(frozen=True)
class Coding:
    """What kind of coder: how many numbers an item becomes, by which layers.

    `cnn`: four 4x4 convolutions of stride 2 with w, 2w, 4w, 8w channels (w = `width`), BatchNorm and ReLU
    after each, and one linear layer; back by one linear layer to 8w channels on an eighth of the side, three
    4x4 transposed convolutions of stride 2 (BatchNorm, ReLU) and a 1x1 convolution.
    `resnet18`: torchvision's ResNet-18 (3x3 first convolution and no pool for sides up to 64), averaged over
    the image, with the decoder of `cnn`. `mlp`: hidden layers of 4w and 2w on flattened items and their
    mirror. `auto`: `cnn` for images, else `mlp`.

    Images with a side below 28 are enlarged to 32 (their ratio kept); then both sides are padded with the
    scale's zero to the next multiple of 16, at least 32: 28 becomes 32, 84 becomes 96. Decoded images are
    cropped and resized back, so that losses see the stored pixels alone.

    Source: `cnn` with width 128 at 32x32 is that of VAAL (Sinha et al. 2019, arXiv:1904.00370), whose
    reference code draws other initial weights; here they are torch's own.
    """

    latent: Annotated[int, Ge(1)]
    architecture: Literal["auto", "cnn", "resnet18", "mlp"]
    width: Annotated[int, Ge(1)]

    def plain(self, shape: tuple[int, ...], scale: Moments) -> "Coder":
        """A fresh coder whose encoder gives the `latent` numbers that its decoder takes; see `build`."""
        return self.build(shape, scale, outputs=self.latent)

    def build(self, shape: tuple[int, ...], scale: Moments, outputs: int) -> "Coder":
        """A fresh coder of items of this shape into `outputs` numbers, and from `latent` numbers back.

        Weights come from torch's current generator; `scale` as `scale_of` gives it.

        Raises:
            ValueError: convolutions for items that are no images.
        """
        if self.architecture == "mlp" or (self.architecture == "auto" and not is_image(shape)):
            parts = _connected(self, prod(shape), outputs)
            return Coder(shape, scale, *parts, canvas=None, latent=self.latent)
        if not is_image(shape):
            raise ValueError(
                f"architecture {self.architecture} encodes images (h, w) or (c, h, w) with c in {CHANNELS}, "
                f"got items of shape {shape}; use architecture auto or mlp"
            )
        size = canvas_size(shape)
        encoder = _residual if self.architecture == "resnet18" else _convolutional
        channels, padded = channels_first(shape)[0], size.padded
        return Coder(
            shape,
            scale,
            encoder(self.width, channels, padded, outputs),
            _upwards(self.width, channels, padded, self.latent),
            canvas=size,
            latent=self.latent,
        )


class Coder(nn.Module):
    """Items to numbers and back, on one scale: uint8 images in [0, 1], other items standardized."""

    def __init__(
        self,
        shape: tuple[int, ...],
        scale: Moments,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        canvas: Canvas | None,
        latent: int,
    ) -> None:
        """Parts for items of this stored shape; without a canvas they take and give flat items.

        The decoder takes `latent` numbers.
        """
        super().__init__()
        self.shape, self.latent = shape, latent
        self.canvas = canvas
        self.lifted = nn.Identity() if canvas is None else Lifted(canvas)
        flat = scale if canvas is not None or not is_image(shape) else _each_pixel(shape, scale)
        whole = channels_first(shape) if canvas is not None else (prod(shape),)
        self.adapt = Adapt(shape if canvas is not None else whole, flat, whole)
        self.encoder = encoder
        self.decoder = decoder

    @property
    def widest(self) -> int:
        """Numbers of one item where the encoder is widest: after its first layer, or as it is stored."""
        if self.canvas is None:
            return prod(self.adapt.out)
        first = next(part for part in self.encoder.modules() if isinstance(part, nn.Conv2d))
        return first.out_channels * prod(self.canvas.padded) // prod(first.stride)

    def scaled(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, " b *item"]:
        """Stored items (uint8 or floating) on the scale that is encoded and decoded: (c, h, w), or flat."""
        return self.adapt(x if self.canvas is not None else x.flatten(1))

    def encode(self, item: Float32[Tensor, " b *item"]) -> Float32[Tensor, "b o"]:
        """The numbers of scaled items."""
        return _laid(item, self.canvas, self.encoder)

    def without_decoder(self, count: int) -> Encoder:
        """The encoding half, of the same weights, that gives the first `count` numbers."""
        return Encoder(self.adapt, _Encoding(self, count), width=count, widest=self.widest)

    def decode(self, z: Float32[Tensor, "b l"]) -> Float32[Tensor, " b *item"]:
        """Scaled items from numbers."""
        return self.lifted(self.decoder(z).float())

    def stored(self, item: Float32[Tensor, " b *item"]) -> Float32[Tensor, " b *stored"]:
        """Scaled items in the units and shape of the stored ones (uint8 counts as value / 255)."""
        return (item * self.adapt.std + self.adapt.mean).reshape(len(item), *self.shape)


class _Encoding(nn.Module):
    """The encoding half of a coder, without the decoder."""

    def __init__(self, coder: Coder, count: int) -> None:
        super().__init__()
        self.canvas, self.encoder, self.count = coder.canvas, coder.encoder, count

    def forward(self, item: Float32[Tensor, " b *item"]) -> Float32[Tensor, "b o"]:
        """The first numbers of scaled items."""
        return _laid(item, self.canvas, self.encoder)[:, : self.count]


def squared_errors(
    item: Float32[Tensor, " b *item"], decoded: Float32[Tensor, " b *item"], reduction: Literal["sum", "mean"]
) -> Float32[Tensor, " b"]:
    """Sum, or mean, of the squared differences over the numbers of each item."""
    square = (item - decoded).square().flatten(1)
    return square.sum(1) if reduction == "sum" else square.mean(1)


def scale_of(inputs: Inputs) -> Moments:
    """Mean and std by which these items are scaled: none for images in [0, 1], else the pool's moments.

    uint8 images are in [0, 1] once divided by 255; floating ones are if all their pixels are.

    Raises:
        ValueError: NaN or an infinite number among the inputs.
    """
    low, high = extremes(inputs)
    if not inputs.is_image or low < 0 or high > 1:
        return inputs.moments
    channels = channels_first(inputs.shape)[0]
    return Moments(np.zeros(channels, np.float32), np.ones(channels, np.float32))


def extremes(inputs: Inputs) -> tuple[float, float]:
    """Smallest and largest number of the items as networks see them; uint8 counts as 0 to 1.

    Raises:
        ValueError: NaN or an infinite number among the inputs.
    """
    if inputs.array.dtype == np.uint8:
        return 0.0, 1.0
    low, high = np.inf, -np.inf
    for rows in inputs.blocks():
        block = inputs.pixels(rows)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"features need finite inputs, got NaN or inf in row {rows[~finite][0]}; clean the data set"
            )
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    return low, high


def _laid(item: Tensor, canvas: Canvas | None, encoder: nn.Module) -> Float32[Tensor, "b o"]:
    """The encoder's numbers of scaled items, laid on its canvas if it has one."""
    if canvas is not None:
        item = canvas.laid(item).contiguous(memory_format=torch.channels_last)
    return encoder(item).float()


def _each_pixel(shape: tuple[int, ...], scale: Moments) -> Moments:
    pixels = prod(shape) // len(scale.mean)
    return Moments(scale.mean.repeat(pixels), scale.std.repeat(pixels))


def _connected(coding: Coding, numbers: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    hidden = [4 * coding.width, 2 * coding.width]
    down = connected(numbers, hidden, batch_norm=False, dropout=0.0)
    back = connected(coding.latent, hidden[::-1], batch_norm=False, dropout=0.0)
    return (
        nn.Sequential(*down, nn.Linear(hidden[-1], outputs)),
        nn.Sequential(*back, nn.Linear(hidden[0], numbers)),
    )


def _convolutional(width: int, channels: int, size: tuple[int, int], outputs: int) -> nn.Module:
    widths = [channels, *(width * 2**stage for stage in range(STAGES))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [
            nn.Conv2d(before, after, 4, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    last = widths[-1] * size[0] * size[1] // 4**STAGES
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(last, outputs))


def _residual(width: int, channels: int, size: tuple[int, int], outputs: int) -> nn.Module:
    del width
    from torchvision import models

    network = models.resnet18(weights=None, num_classes=outputs)
    if max(size) <= SMALL_STEM:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()  # type: ignore[assignment]
    else:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


def _upwards(width: int, channels: int, size: tuple[int, int], latent: int) -> nn.Module:
    widths = [width * 2**stage for stage in reversed(range(STAGES))]
    step = 2 ** (STAGES - 1)
    smallest = (size[0] // step, size[1] // step)
    layers: list[nn.Module] = [nn.Linear(latent, widths[0] * prod(smallest))]
    layers.append(nn.Unflatten(1, (widths[0], *smallest)))
    for before, after in pairwise(widths):
        layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 1))
