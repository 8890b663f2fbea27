"""Features by an autoencoder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.features.featurizer import Embed
from alrun.features.fitting import Course
from alrun.features.keepsakes import read_codes
from alrun.features.reconstruction import Reconstruction
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.coder import Coding
from alrun.models.encoded import Encoder
from alrun.pool import Inputs, Pool
from alrun.training.parts import sizes_of


@dataclass(frozen=True)
class Autoencoder:
    """Codes of an autoencoder trained once, without labels, on the whole pool.

    As `Vae`, without sampling and without divergence: the loss is the squared error alone.

    Attributes:
        patience: epochs without a lower training loss after which training ends; null runs all epochs.
    """

    latent: Annotated[int, Ge(1)]
    architecture: Literal["auto", "cnn", "resnet18", "mlp"]
    width: Annotated[int, Ge(1)]
    epochs: Annotated[int, Ge(1)]
    patience: Annotated[int, Ge(1)] | None
    reconstruction: Literal["sum", "mean"]
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    mixed_precision: bool
    depends_on_model = False

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n l"]:
        """Codes of all inputs; the network and pictures of it are left in `making.folder`.

        Raises:
            ValueError: inputs or a loss that are not finite, or convolutions for items that are no images.
        """
        del embed
        sizes = sizes_of(len(pool), self.batch_size)
        course = Course.steady(self.epochs, self.patience, sizes, self.learning_rate, self.mixed_precision)
        network = partial(AutoencoderNetwork, Coding(self.latent, self.architecture, self.width))
        return Reconstruction(network, 0.0, self.reconstruction).features(course, pool.inputs, rng, making)

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoding half of the network in the folder that `make` filled."""
        return read_codes(folder).encoder().to(inputs.device)
