"""Random crops and flips of image batches, each image its own."""

import torch
from torch import Tensor
from torch.nn import functional


def augmented(images: Tensor, crop: int, flip: bool) -> Tensor:
    """Images (b, h, w) or (b, c, h, w): cropped from a zero border of `crop` pixels, then mirrored by chance.

    Border pixels are stored zeros, black for uint8. Draws from torch's current generator.

    Raises:
        ValueError: the items are no images.
    """
    if images.ndim not in (3, 4):
        raise ValueError(
            f"trainer.crop and trainer.flip need images, got items of shape {tuple(images.shape[1:])}; "
            "use trainer.crop=0 trainer.flip=false"
        )
    if crop:
        images = _cropped(images, crop)
    if flip:
        mirrored = torch.rand(len(images), device=images.device) < 0.5
        shape = (-1, *[1] * (images.ndim - 1))
        images = torch.where(mirrored.view(shape), images.flip(-1), images)
    return images


def _cropped(images: Tensor, crop: int) -> Tensor:
    height, width = images.shape[-2:]
    border = functional.pad(images, (crop, crop, crop, crop))
    down, right = torch.randint(0, 2 * crop + 1, (2, len(images), 1), device=images.device)
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    item = torch.arange(len(images), device=images.device)[:, None, None]
    if images.ndim == 3:
        return border[item, rows[:, :, None], columns[:, None, :]]
    channels_last = border.permute(0, 2, 3, 1)
    return channels_last[item, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
