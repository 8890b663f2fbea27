"""Features by a variational autoencoder."""

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
from alrun.models.coder import Coding
from alrun.models.encoded import Encoder
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, Pool
from alrun.training.parts import sizes_of


@dataclass(frozen=True)
class Vae:
    """mu(x) of a VAE trained once, without labels, on the whole pool.

    The loss of an item is the sum (or mean) of the squared errors over its stored numbers plus `beta` times
    the KL divergence from the prior in nats. uint8 images, and floating ones within [0, 1], are taken as
    they are in [0, 1]; other items are standardized by the pool's moments. Layers: `alrun.models.coder`.

    Attributes:
        patience: epochs without a higher training ELBO after which training ends; null runs all epochs.

    Source: S1 section 3.2 and appendix A (Adam, 5e-4, 300 epochs, patience 20). Not stated there: layers
    (those of VAAL, Sinha et al. 2019), sum or mean, and what patience watches.
    """

    latent: Annotated[int, Ge(1)]
    architecture: Literal["auto", "cnn", "resnet18", "mlp"]
    width: Annotated[int, Ge(1)]
    epochs: Annotated[int, Ge(1)]
    patience: Annotated[int, Ge(1)] | None
    beta: Annotated[float, Ge(0)]
    reconstruction: Literal["sum", "mean"]
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    mixed_precision: bool
    depends_on_model = False

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n l"]:
        """The codes mu(x) of all inputs; the network and pictures of it are left in `making.folder`.

        Raises:
            ValueError: inputs or a loss that are not finite, or convolutions for items that are no images.
        """
        del embed
        sizes = sizes_of(len(pool), self.batch_size)
        course = Course.steady(self.epochs, self.patience, sizes, self.learning_rate, self.mixed_precision)
        network = partial(VaeNetwork, Coding(self.latent, self.architecture, self.width))
        return Reconstruction(network, self.beta, self.reconstruction).features(
            course, pool.inputs, rng, making
        )

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoding half of the network in the folder that `make` filled."""
        return read_codes(folder).encoder().to(inputs.device)
