"""Features by the autoencoders of ASAL (S4)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.features.encoding import require_unit_images
from alrun.features.featurizer import Embed
from alrun.features.fitting import Course
from alrun.features.keepsakes import read_codes
from alrun.features.reconstruction import Reconstruction
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.encoded import Encoder
from alrun.models.s4_coder import S4Coding, begin_at
from alrun.pool import Inputs, Moments, Pool
from alrun.training.parts import sizes_of


@dataclass(frozen=True)
class S4Autoencoder:
    """Flattened codes of one of S4's autoencoders, trained once, without labels, on the whole pool.

    The loss of an image is the sum of the squared errors over its pixels, uint8 ones as value / 255. How many
    numbers a code has follows from the layers and the size of the images: see `alrun.models.s4_coder`.

    Attributes:
        architecture, channels: of the layers.
        steps: mini-batches of an epoch, of the pool in an order of its own; null is all of them.

    Source: S4 section 3.3, appendix A and tables 4, 6, 9. Departs: of all epochs the weights of that with the
    lowest training loss are kept.
    """

    architecture: Literal["auto", "mnist", "cifar", "celeba"]
    channels: list[Annotated[int, Ge(1)]] | None
    epochs: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)] | None
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    mixed_precision: bool
    depends_on_model = False

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n l"]:
        """Codes of all inputs; the network and pictures of it are left in `making.folder`.

        Raises:
            ValueError: items that are no gray or color images in [0, 1], or a loss that is not finite.
        """
        del embed
        require_unit_images(pool.inputs, "s4_autoencoder")
        sizes = sizes_of(len(pool), self.batch_size)[: self.steps]
        course = Course.steady(self.epochs, None, sizes, self.learning_rate, self.mixed_precision)
        network = partial(self._network, pool.inputs.moments)
        return Reconstruction(network, 0.0, "sum").features(course, pool.inputs, rng, making)

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoding half of the network in the folder that `make` filled."""
        return read_codes(folder).encoder().to(inputs.device)

    def _network(self, moments: Moments, shape: tuple[int, ...], scale: Moments) -> AutoencoderNetwork:
        """A fresh network whose decoder begins at the pool's mean shades."""
        network = AutoencoderNetwork(S4Coding(self.architecture, self.channels), shape, scale)
        begin_at(network.coder, moments.mean)
        return network
