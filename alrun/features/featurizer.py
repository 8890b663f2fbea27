"""What a featurizer is."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from alrun.pool import Inputs

Embed = Callable[[ndarray], ndarray]


@runtime_checkable
@runtime_checkable
class Featurizer(Protocol):
    """Gives one feature vector a pool row."""

    @property
    def depends_on_model(self) -> bool:
        """Whether features change with the round's model; those that do not are made once."""
        ...

    def make(self, inputs: Inputs, embed: Embed, rng: np.random.Generator) -> Float32[ndarray, "n d"]:
        """Features of all inputs; `embed(rows)` gives the inputs of the model's last linear layer."""
        ...
