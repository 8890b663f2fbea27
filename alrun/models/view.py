"""What is seen of an image: random parts of it, or the middle."""

import math

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

TRIES = 10
RATIOS = (3 / 4, 4 / 3)
SMALLEST = 0.08  # torchvision's

Factors = Float32[Tensor, " b"]


class View(nn.Module):
    """In training a random part of each image, resized to a square of `side` pixels; then the middle square.

    Without a side all is seen. `flip` mirrors each image by chance in training.
    """

    def __init__(self, side: int | None, flip: bool) -> None:
        super().__init__()
        self.side, self.flip = side, flip

    def forward(self, images: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b c h2 w2"]:
        """Of each image what is seen; chance comes from torch's current generator."""
        if self.side is not None:
            size = (self.side, self.side)
            images = resized_parts(images, size, SMALLEST) if self.training else middles(images, size)
        if self.training and self.flip:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        return images


def middles(images: Float32[Tensor, "b c h w"], size: tuple[int, int]) -> Float32[Tensor, "b c h2 w2"]:
    """The middle of each image, in pixels (height, width), at most the image's."""
    top, left = ((have - want) // 2 for have, want in zip(images.shape[-2:], size, strict=True))
    return images[:, :, top : top + size[0], left : left + size[1]]


def resized_parts(
    images: Float32[Tensor, "b c h w"], size: tuple[int, int], smallest: float
) -> Float32[Tensor, "b c h2 w2"]:
    """A random part of each image, resized to `size` (height, width) by straight lines between pixels.

    Its share of the area is drawn evenly from `smallest` to 1, the logarithm of its ratio of sides from 3/4
    to 4/3, its place from all that there are.

    Source: Szegedy et al. 2015, section 6. Departs from torchvision: parts have any size and place, not those
    of whole pixels.
    """
    tall, wide = _sides(images, smallest)
    down, right = torch.rand(2, len(images), device=images.device)
    # functional.affine_grid would multiply matrices, which autocast rounds to bfloat16
    along, across = (_places(*each) for each in zip((tall, wide), (down, right), size, strict=True))
    shape = (len(images), *size)
    grid = torch.stack([across[:, None].expand(shape), along[:, :, None].expand(shape)], 3)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _places(share: Factors, start: Factors, side: int) -> Float32[Tensor, "b side"]:
    """Where the `side` pixels of a part lie along one axis of its image, which reaches from -1 to 1.

    The part takes a `share` of the axis; with a `start` of 0 it begins, with 1 it ends where the image does.
    """
    centers = (2 * torch.arange(side, device=share.device, dtype=torch.float32) + 1) / side - 1
    return share[:, None] * centers + ((1 - share) * (2 * start - 1))[:, None]


def _sides(images: Tensor, smallest: float) -> tuple[Factors, Factors]:
    """Height and width of each part as shares of the image's: the first of ten draws that fits.

    If none does, the largest part of an allowed ratio.
    """
    count, (height, width) = len(images), images.shape[-2:]
    share = torch.empty(TRIES, count, device=images.device).uniform_(smallest, 1)
    low, high = (math.log(ratio) for ratio in RATIOS)
    ratio = torch.empty_like(share).uniform_(low, high).exp() * (height / width)
    tall, wide = (share / ratio).sqrt(), (share * ratio).sqrt()
    fits = (tall <= 1) & (wide <= 1)
    first = fits.float().argmax(0, keepdim=True)
    own = min(max(width / height, RATIOS[0]), RATIOS[1]) * height / width
    largest = min(1.0, 1 / own), min(1.0, own)
    chosen = (torch.where(fits, sides, side) for sides, side in zip((tall, wide), largest, strict=True))
    tall, wide = (sides.gather(0, first)[0] for sides in chosen)
    return tall, wide
