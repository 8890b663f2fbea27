"""Random views of images for contrastive learning: whole batches at once, each image by its own draw."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from alrun.models.view import resized_parts

LUMA = (0.299, 0.587, 0.114)

Images = Float32[Tensor, "b c h w"]
Factors = Float32[Tensor, " b"]


@dataclass(frozen=True)
class Views:
    """Crops of random size and place brought back to full size, flips, color jitter and gray.

    Attributes:
        smallest_crop: share of the image's area that a crop has at least, drawn evenly up to 1.
        flip: mirror left-right with probability 1/2.
        brightness, contrast, saturation: a factor is drawn evenly from 1 -+ this, not below 0.
        hue: a shift is drawn evenly from -+ this, as a share of the color circle.
        jitter: probability of the four above, which come in random order.
        gray: probability of losing all color.

    Images of one channel have no color: for them saturation, hue and gray do nothing.

    Source: Chen et al. 2020, appendix A, without blur; strengths 0.4, 0.4, 0.4, 0.1 as MoCo v2, cited by S2.
    Departs from torchvision: crops have any size and place, not those of whole pixels.
    """

    smallest_crop: Annotated[float, Gt(0), Le(1)]
    flip: bool
    brightness: Annotated[float, Ge(0)]
    contrast: Annotated[float, Ge(0)]
    saturation: Annotated[float, Ge(0)]
    hue: Annotated[float, Ge(0), Le(0.5)]
    jitter: Annotated[float, Ge(0), Le(1)]
    gray: Annotated[float, Ge(0), Le(1)]

    def of(self, images: Images) -> Images:
        """A view of each image, pixels in [0, 1] as they are; draws from torch's current generator."""
        images = self._cropped(images)
        in_color = images.shape[1] == 3
        images = self._jittered(images, in_color)
        if in_color:
            grayed = _chance(images, self.gray)[:, None, None, None]
            images = torch.where(grayed, luma(images).expand_as(images), images)
        return images

    def _cropped(self, images: Images) -> Images:
        height, width = images.shape[-2:]
        images = resized_parts(images, (height, width), self.smallest_crop)
        if self.flip:
            mirrored = _chance(images, 0.5)[:, None, None, None]
            images = torch.where(mirrored, images.flip(-1), images)
        return images

    def _jittered(self, images: Images, in_color: bool) -> Images:
        """Each image's brightness, contrast, saturation and hue changed, in an order of its own."""
        changes: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = []
        changes.append((brightened, self._factors(images, self.brightness)))
        changes.append((contrasted, self._factors(images, self.contrast)))
        if in_color:
            changes.append((saturated, self._factors(images, self.saturation)))
            shifts = torch.empty(len(images), device=images.device).uniform_(-self.hue, self.hue)
            changes.append((hue_shifted, shifts))
        order = torch.rand(len(images), len(changes), device=images.device).argsort(1)
        order = torch.where(_chance(images, self.jitter)[:, None], order, -1)
        for place in range(len(changes)):
            for which, (change, amounts) in enumerate(changes):
                turn = (order[:, place] == which).nonzero()[:, 0]
                images.index_copy_(0, turn, change(images[turn], amounts[turn]))
        return images

    def _factors(self, images: Images, strength: float) -> Factors:
        return torch.empty(len(images), device=images.device).uniform_(max(0.0, 1 - strength), 1 + strength)


def unit(images: Tensor) -> Images:
    """Stored images (b, h, w) or (b, c, h, w), uint8 or within [0, 1], as float32 (b, c, h, w) in [0, 1]."""
    images = images[:, None] if images.ndim == 3 else images
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def luma(images: Images) -> Float32[Tensor, "b 1 h w"]:
    """Color images in gray (Rec. 601); gray ones as they are."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMA, device=images.device)
    return torch.einsum("bchw,c->bhw", images, weights)[:, None]


def brightened(images: Images, factors: Factors) -> Images:
    """Pixels times a factor, cut to [0, 1]."""
    return (images * _each(factors)).clamp(0, 1)


def contrasted(images: Images, factors: Factors) -> Images:
    """Pixels' distance from the image's mean gray times a factor, cut to [0, 1]."""
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    return (mean + (images - mean) * _each(factors)).clamp(0, 1)


def saturated(images: Images, factors: Factors) -> Images:
    """Pixels' distance from their own gray times a factor, cut to [0, 1]."""
    gray = luma(images)
    return (gray + (images - gray) * _each(factors)).clamp(0, 1)


def hue_shifted(images: Images, shifts: Factors) -> Images:
    """Hue turned by a share of the color circle; brightest and dullest channel keep their values.

    Each channel is value - chroma * max(0, min(k, 4 - k, 1)) with k = (n + 6 hue) mod 6, n = 5, 3, 1.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    of_green = torch.where(value == green, 2 * chroma + blue - red, 4 * chroma + red - green)
    sixths = torch.where(value == red, green - blue, of_green)
    turned = sixths / chroma.clamp(min=torch.finfo(torch.float32).tiny) + 6 * shifts[:, None, None]
    out = torch.empty_like(images)
    for channel, offset in enumerate((5, 3, 1)):
        k = turned + offset
        k -= 6 * (k / 6).floor()
        out[:, channel] = value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
    return out


def _chance(images: Tensor, share: float) -> Bool[Tensor, " b"]:
    return torch.rand(len(images), device=images.device) < share


def _each(factors: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1"]:
    return factors[:, None, None, None]
