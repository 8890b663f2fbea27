"""Features by the critic of a generator."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.features.encoding import encoded
from alrun.features.featurizer import Embed
from alrun.features.on_generator import standing_on
from alrun.generative.generator import Generator
from alrun.models.encoded import Encoder
from alrun.pool import Inputs, Pool


@dataclass(frozen=True)
class Discriminator:
    """What the critic's layer before the last gives, flattened: 4096 numbers of 28x28 images, say.

    Source: S4 section 3.3, F_disc.
    """

    generator: Generator | None = None  # no setting: `on` gives it
    depends_on_model = False
    on_generator = True

    @property
    def identity(self) -> dict[str, Any]:
        """Nothing of its own: whoever binds it names the generator."""
        return {}

    def on(self, generator: Generator) -> "Discriminator":
        """The same on this generator."""
        return replace(self, generator=generator)

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """Features of all inputs, block by block; large ones go into `making.folder` and not into memory.

        Raises:
            ValueError: no generator, or one for other items.
        """
        del embed, rng
        return encoded(self.encoder(making.folder, pool.inputs), pool.inputs, making.epoch, making.folder)

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The critic up to its layer before the last; nothing is read from the folder.

        Raises:
            ValueError: no generator, or one for other items.
        """
        del folder
        return standing_on(self.generator, inputs, "discriminator").critic
