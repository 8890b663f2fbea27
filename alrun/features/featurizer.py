"""What a featurizer is."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.pool import Inputs

Embed = Callable[[ndarray], ndarray]


@runtime_checkable
class Featurizer(Protocol):
    """Gives one feature vector a pool row.

    A class may say `cached = False` where making features costs no more than reading them, and have a
    property `identity` with the settings that matter (all fields count otherwise).
    """

    @property
    def depends_on_model(self) -> bool:
        """Whether features change with the round's model; those that do not are made once."""
        ...

    def make(
        self, inputs: Inputs, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """Features of all inputs; `embed(rows)` gives the inputs of the model's last linear layer.

        Files put into `making.folder` are kept with the features; pictures and tables among them go to the
        run folder as well.
        """
        ...
