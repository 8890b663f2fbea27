"""Images side by side on one sheet."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32
from matplotlib.figure import Figure
from numpy import ndarray

VERSIONED = False  # see alrun.code


def sheet(lines: Mapping[str, Float32[ndarray, " b *stored"]]) -> Figure:
    """Images in rows under each other, named at the left, all on the gray scale of the first row."""
    images = np.stack([_channels_last(line) for line in lines.values()])
    low, high = min(0.0, images[0].min()), max(1.0, images[0].max())
    whole = joined(np.clip((images - low) / (high - low), 0, 1))
    side = whole.shape[0] / len(lines)
    figure = Figure(figsize=(0.8 * images.shape[1] + 0.8, 0.8 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(whole, interpolation="nearest")
    axes.set(xticks=[], yticks=[side * (line + 0.5) for line in range(len(lines))], yticklabels=list(lines))
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    return figure


def _channels_last(images: Float32[ndarray, " b *stored"]) -> Float32[ndarray, "b h w 3"]:
    """Gray images in three channels, color ones without a fourth."""
    images = images[:, None] if images.ndim == 3 else images
    return np.moveaxis(np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images[:, :3], 1, -1)


def joined(images: Float32[ndarray, "lines columns h w 3"]) -> Float32[ndarray, "H W 3"]:
    """All images on one white sheet, with gaps of a sixteenth of their height."""
    lines, columns, height, width, _ = images.shape
    gap = max(1, height // 16)
    bordered = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1)
    return bordered.swapaxes(1, 2).reshape(lines * (height + gap), columns * (width + gap), 3)
