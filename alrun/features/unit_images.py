"""Features of images that are in no pool: those that a generator draws."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from alrun.features.encoding import encoded
from alrun.features.featurizer import Encoding, Featurizer
from alrun.features.simple import Penultimate, Pixels
from alrun.inputs import Inputs
from alrun.models.encoded import Encoder
from alrun.training.model import Model


def takes_images(featurizer: Featurizer | None) -> bool:
    """Whether images outside the pool have a place among its features."""
    return isinstance(featurizer, Pixels | Penultimate | Encoding)


def features_of(
    images: Float32[Tensor, " b *shape"],
    featurizer: Featurizer | None,
    encoder: Callable[[], Encoder],
    model: Model | None,
) -> Float32[ndarray, "b d"]:
    """What the featurizer makes of unit images: of a stored uint8 image divided by 255 the same as of itself.

    `encoder` gives the encoder of a featurizer that has one, `model` is the round's.

    Raises:
        ValueError: a featurizer that knows the pool's items alone, or no model where it reads one.
    """
    items = Inputs(images.detach().cpu().numpy(), images.device)
    if isinstance(featurizer, Encoding):
        return encoded(encoder(), items)
    rows = np.arange(len(items))
    if isinstance(featurizer, Pixels):
        return items.pixels(rows)
    if isinstance(featurizer, Penultimate) and model is not None:
        return model.on(items).embed(rows)
    if isinstance(featurizer, Penultimate):
        raise ValueError("features of the model's last layer need a model, but no label was bought yet")
    name = "none" if featurizer is None else type(featurizer).__name__
    raise ValueError(
        f"images outside the pool need featurizer=pixels, penultimate or one with an encoder (autoencoder, "
        f"discriminator, vae, simclr ...), got {name}"
    )
