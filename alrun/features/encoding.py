"""What an encoder makes of a whole pool, and which items it takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.features.matrices import is_finite, room
from alrun.models.coder import extremes
from alrun.models.encoded import Encoder
from alrun.pool import Inputs
from alrun.training.parts import parts

Told = Callable[[int, int], None]


def encoded(
    encoder: Encoder, inputs: Inputs, told: Told | None = None, folder: Path | None = None
) -> Float32[ndarray, "n w"]:
    """The encoder's outputs for all inputs, block by block; `told` hears how many of how many are done.

    Large ones are written into the folder, if there is one, and not into memory (`matrices.room`).
    """
    slices = parts(len(inputs), encoder.widest, inputs.device)
    rows, out = np.arange(len(inputs)), room(len(inputs), encoder.width, folder)
    for done, part in enumerate(slices, 1):
        # outside inference_mode: what inputs keep for good must stay usable in training
        x = inputs.take(rows[part])
        with torch.inference_mode():
            out[part] = encoder(x).cpu().numpy()
        if told is not None:
            told(done, len(slices))
    return out


def features_by(
    encoder: Encoder, inputs: Inputs, making: Making, refused: Callable[[str], ValueError]
) -> Float32[ndarray, "n w"]:
    """The outputs of an encoder that was trained in this making.

    Raises:
        ValueError: what `refused` gives, if not all of them are finite.
    """
    features = encoded(encoder, inputs, folder=making.folder)
    if not is_finite(features):
        raise refused("features that are no numbers")
    return features


def require_unit_images(inputs: Inputs, featurizer: str) -> None:
    """Refuses what is no gray or color image with pixels in [0, 1] (uint8 counts as value / 255).

    Raises:
        ValueError: other items, or numbers that are not finite.
    """
    if not inputs.is_image or (len(inputs.shape) == 3 and inputs.shape[0] not in (1, 3)):
        raise ValueError(
            f"featurizer={featurizer} needs images (h, w) or (c, h, w) with c in (1, 3), got items of shape "
            f"{inputs.shape}; use featurizer=pixels, pca or vae"
        )
    low, high = extremes(inputs)
    if low < 0 or high > 1:
        raise ValueError(
            f"featurizer={featurizer} wants pixels in [0, 1], got numbers from {low:g} to {high:g}; store "
            "uint8, or floats scaled to [0, 1]"
        )
