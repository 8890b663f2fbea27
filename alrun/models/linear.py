"""Multinomial logistic regression."""

from dataclasses import dataclass
from math import prod
from typing import Annotated

from annotated_types import Ge, Lt
from torch import nn

from alrun.models.network import Adapt, Network
from alrun.pool import Moments


@dataclass(frozen=True)
class Linear:
    """One linear layer on the standardized, flattened items, which are therefore also its embedding."""

    dropout: Annotated[float, Ge(0), Lt(1)]

    def __post_init__(self) -> None:
        """Refuses dropout, which has no place here.

        Raises:
            ValueError: dropout above 0.
        """
        if self.dropout > 0:
            raise ValueError(
                f"model.dropout needs a hidden layer and a linear model has none, got {self.dropout}; "
                "set model.dropout=0 or choose model=mlp"
            )

    @property
    def has_dropout(self) -> bool:
        """Never: there is no hidden layer."""
        return False

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for items of any shape."""
        width = prod(shape)
        return Network(
            Adapt(shape, moments, (width,)), nn.Identity(), nn.Identity(), nn.Linear(width, classes)
        )
