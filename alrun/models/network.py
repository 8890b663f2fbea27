"""The network every family builds: stored items in, logits out, with the last hidden layer in sight."""

from collections.abc import Iterator
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn
from torch.nn import functional

from alrun.pool import Moments

CHANNELS = (1, 3, 4)


class UnitLength(nn.Module):
    """Each row of a batch divided by its Euclidean length, in float32; rows of zeros stay zero."""

    def forward(self, x: Float[Tensor, "b d"]) -> Float32[Tensor, "b d"]:
        """Rows of length one; where a row is zero its gradient passes as it is."""
        x = x.float()
        length = x.norm(dim=1, keepdim=True)
        return x / torch.where(length > 0, length, 1)


CONNECTED = (nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, UnitLength)


class Adapt(nn.Module):
    """Stored batches on the network's scale and in its shape; holds no weights.

    uint8 counts as value / 255, floats stay as they are. Images (h, w) or (c, h, w) are resized (bilinear,
    antialiased) to the sides of `out`, one channel is repeated to the channels of `out`, and each channel is
    standardized; other items are standardized feature by feature. An `out` of one axis flattens at the end.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], moments: Moments, out: tuple[int, ...]) -> None:
        """Shape of one stored item, the moments to standardize by, and the shape the network takes.

        Raises:
            ValueError: `out` cannot be made from `shape`, or the number of moments fits neither.
        """
        super().__init__()
        self.stored = channels_first(shape) if is_image(shape) else (prod(shape),)
        self.out = out
        if len(out) != 3 and out != (prod(shape),):
            raise ValueError(f"items of shape {shape} flatten to {(prod(shape),)}, not to {out}")
        if len(out) == 3 and (len(self.stored) != 3 or self.stored[0] not in (1, out[0])):
            raise ValueError(
                f"the network takes images of {out[0]} channels, got items of shape {shape}; "
                f"store images of 1 or {out[0]} channels, or choose model=mlp"
            )
        needed = {self.stored[0], out[0]} if len(out) == 3 else {self.stored[0]}
        if len(moments.mean) not in needed or len(moments.std) != len(moments.mean):
            raise ValueError(
                f"items of shape {shape} need {' or '.join(map(str, sorted(needed)))} means and stds, "
                f"got {len(moments.mean)} and {len(moments.std)}"
            )
        axes = (-1, 1, 1) if len(self.stored) == 3 else (-1,)
        # Not part of the state: they belong to the data, and a checkpoint must not carry them elsewhere.
        self.register_buffer("mean", torch.tensor(moments.mean).reshape(axes), persistent=False)
        self.register_buffer("std", torch.tensor(moments.std).reshape(axes), persistent=False)

    def forward(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, " b *out"]:
        """The batch as the network's first layer takes it."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        x = x.reshape(len(x), *self.stored)
        if len(self.out) == 3:
            if x.shape[2:] != self.out[1:]:
                x = functional.interpolate(x, size=self.out[1:], mode="bilinear", antialias=True)
            x = x.expand(-1, self.out[0], -1, -1)
        return ((x - self.mean) / self.std).reshape(len(x), *self.out)


class Network(nn.Module):
    """Four parts in a row: `adapt`, `frozen` (never trained; `nn.Identity` if nothing is), `body`, `head`."""

    def __init__(self, adapt: Adapt, frozen: nn.Module, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.adapt = adapt
        self.frozen = frozen.requires_grad_(False)
        self.body = body
        self.head = head
        self.train()

    @property
    def is_frozen(self) -> bool:
        """Whether some layers are never trained, so that `fixed` is worth keeping between epochs."""
        return not isinstance(self.frozen, nn.Identity)

    def train(self, mode: bool = True) -> "Network":
        """Training or evaluation mode; the frozen part stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def fixed(self, x: Shaped[Tensor, " b *stored"]) -> Float[Tensor, " b *f"]:
        """Outputs of the frozen part, without gradients; they depend on no trained weight and on no mode."""
        with torch.no_grad():
            return self.frozen(self.adapt(x))

    def trainable(self, f: Float[Tensor, " b *f"]) -> Float[Tensor, "b c"]:
        """Logits from outputs of `fixed`."""
        return self.head(self.body(f))

    def stages(self) -> tuple[nn.Sequential, nn.Sequential]:
        """What lies between `fixed` and `head` in two: the end of the feature extractor, then hidden layers.

        Hidden layers are the fully connected ones right before the head. A frozen part is the whole
        extractor; a body of fully connected layers alone belongs to it as a whole.
        """
        if self.is_frozen:
            return nn.Sequential(), nn.Sequential(self.body)
        layers = list(flat(self.body))
        cut = len(layers)
        while cut and isinstance(layers[cut - 1], CONNECTED):
            cut -= 1
        while cut < len(layers) and isinstance(layers[cut], nn.ReLU):  # it belongs to the layer before
            cut += 1
        cut = cut or len(layers)
        return nn.Sequential(*layers[:cut]), nn.Sequential(*layers[cut:])

    def embed(self, x: Shaped[Tensor, " b *stored"]) -> Float[Tensor, "b d"]:
        """The input of the last linear layer, d = `head.in_features`."""
        return self.body(self.frozen(self.adapt(x)))

    def forward(self, x: Shaped[Tensor, " b *stored"]) -> Float[Tensor, "b c"]:
        """Logits."""
        return self.head(self.embed(x))


def flat(layer: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested sequences, in order."""
    if not isinstance(layer, nn.Sequential):
        yield layer
        return
    for each in layer:
        yield from flat(each)


@runtime_checkable
class Architecture(Protocol):
    """What a family of networks offers to a trainer."""

    @property
    def has_dropout(self) -> bool:
        """Whether its networks draw dropout masks in training mode."""
        ...

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for items of this shape; its weights come from torch's current generator."""
        ...


def tried(architecture: Architecture, shape: tuple[int, ...], moments: Moments, classes: int) -> None:
    """Builds a network and drops it, so that missing weights or unfit items are known before long work.

    torch's generator is left as it was.

    Raises:
        ValueError, FileNotFoundError: what `build` raises.
    """
    with torch.random.fork_rng(devices=[]):
        architecture.build(shape, moments, classes)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether one item of this shape is an image (h, w), or (c, h, w) with one, three or four channels."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in CHANNELS)


def channels_first(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape (c, h, w) of an image stored as (h, w) or (c, h, w).

    Raises:
        ValueError: the items are no images.
    """
    if not is_image(shape):
        raise ValueError(
            f"a convolutional model needs images (h, w) or (c, h, w) with c in {CHANNELS}, "
            f"got items of shape {shape}; choose model=mlp or model=linear"
        )
    return (1, shape[0], shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def enlarged(size: tuple[int, int], smallest: int) -> tuple[int, int]:
    """Height and width, scaled up with their ratio kept where the shorter side is below `smallest`."""
    shorter = min(size)
    if shorter >= smallest:
        return size
    return (round(size[0] * smallest / shorter), round(size[1] * smallest / shorter))
