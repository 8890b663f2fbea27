"""The canvas of one size on which convolutions meet images of any size."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from alrun.models.network import channels_first, enlarged

STAGES = 4
SIDE = 32
PADDED_FROM = 28


@dataclass(frozen=True)
class Canvas:
    """Sides in pixels (height, width): as stored, resized, and padded around that."""

    stored: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]

    def laid(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        """Stored images on the canvas."""
        if self.resized != self.stored:
            images = functional.interpolate(images, size=self.resized, mode="bilinear", antialias=True)
        return functional.pad(images, (*self._border(1), *self._border(0)))

    def within(self, laid: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H2 W2"]:
        """What lies where the resized images were."""
        (top, _), (left, _) = self._border(0), self._border(1)
        height, width = self.resized
        return laid[:, :, top : top + height, left : left + width]

    def _border(self, axis: int) -> tuple[int, int]:
        more = self.padded[axis] - self.resized[axis]
        return more // 2, more - more // 2


class Lifted(nn.Module):
    """What lies on a canvas where the stored images were, in their size; holds no weights.

    Resized (bilinear, antialiased) by a fixed matrix on each side: on a GPU the gradients of torch's own
    resizing differ from run to run.
    """

    down: Tensor
    across: Tensor

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self.canvas = canvas
        sides = zip(canvas.resized, canvas.stored, strict=True)
        down, across = (_resizing(before, after) for before, after in sides)
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("across", across.T.contiguous(), persistent=False)

    def forward(self, laid: Float32[Tensor, "b c H W"]) -> Float32[Tensor, "b c h w"]:
        """The images, in float32 also where mixed precision is on."""
        images = self.canvas.within(laid)
        if self.canvas.resized == self.canvas.stored:
            return images
        with torch.autocast(laid.device.type, enabled=False):
            return self.down @ images @ self.across


def canvas_size(shape: tuple[int, ...]) -> Canvas:
    """The canvas on which images of this stored shape are encoded.

    Raises:
        ValueError: the items are no images.
    """
    _, height, width = channels_first(shape)
    stored = (height, width)
    resized = enlarged(stored, SIDE) if min(stored) < PADDED_FROM else stored
    step = 2**STAGES
    padded = (max(SIDE, -(-resized[0] // step) * step), max(SIDE, -(-resized[1] // step) * step))
    return Canvas(stored, resized, padded)


def _resizing(before: int, after: int) -> Float32[Tensor, "after before"]:
    """The matrix by which torch resizes one side: what becomes of each of its pixels alone."""
    pixels = torch.eye(before)[None, None]
    return functional.interpolate(pixels, size=(after, before), mode="bilinear", antialias=True)[0, 0]
