"""What a featurizer is."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.models.encoded import Encoder
from alrun.pool import Inputs, Pool

Embed = Callable[[ndarray], ndarray]


@runtime_checkable
class Featurizer(Protocol):
    """Gives one feature vector a pool row.

    A class may say `cached = False` where making features costs no more than reading them, `reads_source =
    True` where it learns from the pool's source, `any_device = True` where a GPU and a CPU give the same bits
    (otherwise runs share features only if the same kind of device made them), and have a property `identity`
    with the settings that matter (all fields count otherwise).
    """

    @property
    def depends_on_model(self) -> bool:
        """Whether features change with the round's model; those that do not are made once."""
        ...

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """Features of all rows; `embed(rows)` gives the inputs of the model's last linear layer.

        Where features do not depend on the model, the pool has no label bought, so that they cannot follow
        purchases. `pool.source` is there only for a featurizer that reads it, and only if the data set has
        one.
        Files put into `making.folder` are kept with the features; pictures and tables among them go to the
        run folder as well.
        """
        ...


@runtime_checkable
class Encoding(Featurizer, Protocol):
    """A featurizer that leaves an encoder behind, on which a head can be trained."""

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoder that `make` left in its folder for these inputs, on their device; frozen."""
        ...


def reads_source(featurizer: Featurizer | None) -> bool:
    """Whether it learns from the data set's source; `reads_source = True` on the class says so."""
    return bool(getattr(featurizer, "reads_source", False))


def is_cached(featurizer: Featurizer) -> bool:
    """Whether its features are worth a place on disk; `cached = False` on the class says they are not."""
    return bool(getattr(featurizer, "cached", True))


def on_any_device(featurizer: Featurizer) -> bool:
    """Whether the run's device makes no difference; `any_device = True` on the class says so."""
    return bool(getattr(featurizer, "any_device", False))
