"""Small generators, trained for a few iterations or for none."""

from dataclasses import replace
from typing import Any

import numpy as np
from conftest import part

from alrun.generative.gan import Gan
from alrun.generative.generator import Generator
from alrun.pool import Inputs
from alrun.training.seeding import seeded


def gan(kind: str = "wgan_gp", width: int = 4, **changes: Any) -> Gan:
    """The settings of a generator of few channels, trained for two iterations unless `changes` say more."""
    made = part("generator", f"generator={kind}", f"generator.networks.width={width}")
    return replace(made, **{"iterations": 2, "batch_size": 4, "generator_batch": 4, **changes})


def untrained(inputs: Inputs, seed: int = 0) -> Generator:
    """One for such items that has learned nothing."""
    with seeded(np.random.default_rng(seed), inputs.device):
        return gan().untrained(inputs)


def squares(n: int = 40, side: int = 8, seed: int = 0) -> np.ndarray:
    """Gray uint8 images of a bright square on noise, wide or narrow."""
    chance = np.random.default_rng(seed)
    images = chance.integers(0, 60, (n, side, side), dtype=np.uint8)
    for row, image in enumerate(images):
        edge = 1 if row % 2 else 3
        image[edge : side - edge, edge : side - edge] = 230
    return images
