"""Random rotations, translations and flips of image batches, each image its own."""

from dataclasses import dataclass
from math import pi
from typing import Literal

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.nn import functional

from alrun.models.network import is_image

Images = Shaped[Tensor, "b h w"] | Shaped[Tensor, "b c h w"]


@dataclass(frozen=True)
class Augmentation:
    """What happens to an image each time it is read: rotated, then moved, then mirrored.

    Attributes:
        crop: it is moved by -crop to crop whole pixels along each axis, each equally likely.
        border: what comes into sight: stored zeros (black for uint8), or the image reflected at the middle of
            its outermost pixels, as `numpy.pad` does with mode `reflect`.
        rotation: it is turned about its middle by -rotation to rotation degrees, drawn evenly, by straight
            lines between pixels; uint8 is rounded.
        flip: it is mirrored left-right with probability 1/2.

    Source: Tarvainen and Valpola 2017, section 3.2 (moves with reflection); S3 (Iscen et al. 2019), section
    5.2. Departs: S3's code takes the nearest pixel of what is turned, and leaves corners black.
    """

    crop: int
    border: Literal["zeros", "reflection"]
    rotation: float
    flip: bool

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.crop > 0 or self.rotation > 0 or self.flip

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses items of this stored shape that cannot be augmented so.

        Raises:
            ValueError: no images, or a side too short to be reflected.
        """
        if self and not is_image(shape):
            raise ValueError(
                f"trainer.crop, trainer.rotation and trainer.flip need images, got items of shape {shape}; "
                "use trainer.crop=0 trainer.rotation=0.0 trainer.flip=false"
            )
        if self.border == "reflection" and self.crop and self.crop >= min(shape[-2:]):
            raise ValueError(
                f"trainer.border=reflection shows at most side - 1 pixels beyond an image, got trainer.crop="
                f"{self.crop} and items of shape {shape}; lower trainer.crop or use trainer.border=zeros"
            )

    def of(self, images: Images) -> Images:
        """These images, each changed by its own draw from torch's current generator; type and shape stay.

        Raises:
            ValueError: what `check` refuses.
        """
        self.check(tuple(images.shape[1:]))
        if self.rotation:
            spread = torch.rand(len(images), device=images.device) * 2 - 1
            images = rotated(images, self.rotation * spread, self.border)
        if self.crop:
            images = self._moved(images)
        if self.flip:
            mirrored = torch.rand(len(images), device=images.device) < 0.5
            shape = (-1, *[1] * (images.ndim - 1))
            images = torch.where(mirrored.view(shape), images.flip(-1), images)
        return images

    def _moved(self, images: Images) -> Images:
        height, width = images.shape[-2:]
        down, right = torch.randint(0, 2 * self.crop + 1, (2, len(images), 1), device=images.device)
        rows = down + torch.arange(height, device=images.device)
        columns = right + torch.arange(width, device=images.device)
        if self.border == "zeros":
            return _gathered(functional.pad(images, (self.crop,) * 4), rows, columns)
        return _gathered(images, _reflected(rows - self.crop, height), _reflected(columns - self.crop, width))


UNTOUCHED = Augmentation(crop=0, border="zeros", rotation=0.0, flip=False)


def rotated(images: Images, degrees: Shaped[Tensor, " b"], border: Literal["zeros", "reflection"]) -> Images:
    """Images turned counterclockwise about their middle; see `Augmentation.rotation`."""
    height, width = images.shape[-2:]
    angle = (degrees * (pi / 180))[:, None, None]
    # in pixels from the middle; functional.affine_grid would multiply matrices, which autocast rounds
    down = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    right = torch.arange(width, device=images.device) - (width - 1) / 2
    across = angle.cos() * right - angle.sin() * down
    along = angle.sin() * right + angle.cos() * down
    grid = torch.stack([across * (2 / max(width - 1, 1)), along * (2 / max(height - 1, 1))], 3)
    whole = images[:, None] if images.ndim == 3 else images
    turned = functional.grid_sample(whole.float(), grid, padding_mode=border, align_corners=True)
    turned = turned if images.is_floating_point() else turned.round()
    return turned.to(images.dtype).reshape(images.shape)


def _reflected(places: Int64[Tensor, "b s"], side: int) -> Int64[Tensor, "b s"]:
    """Places up to side - 1 beyond an axis, reflected into it; its first and last are not repeated."""
    return side - 1 - (side - 1 - places.abs()).abs()


def _gathered(images: Tensor, rows: Int64[Tensor, "b h"], columns: Int64[Tensor, "b w"]) -> Images:
    """Of each image its own rows and columns."""
    item = torch.arange(len(images), device=images.device)[:, None, None]
    if images.ndim == 3:
        return images[item, rows[:, :, None], columns[:, None, :]]
    channels_last = images.permute(0, 2, 3, 1)
    return channels_last[item, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
