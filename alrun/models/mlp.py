"""Fully connected networks, with or without hidden layers."""

from dataclasses import dataclass
from math import prod
from typing import Annotated

from annotated_types import Ge, Lt, MinLen
from torch import nn

from alrun.models.network import Adapt, Network, fully_connected
from alrun.pool import Moments


@dataclass(frozen=True)
class Linear:
    """Softmax regression: the last layer alone, on the standardized input.

    Attributes:
        dropout: must be 0; there is no hidden layer to put dropout after.
    """

    dropout: Annotated[float, Ge(0), Lt(1)]
    has_dropout = False

    def __post_init__(self) -> None:
        """Refuses dropout.

        Raises:
            ValueError: a rate above 0.
        """
        if self.dropout > 0:
            raise ValueError(
                f"dropout: a linear model has no hidden layer to put dropout after, got {self.dropout}; "
                "use model.dropout=0 or another model"
            )

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network of one linear layer."""
        return Network(
            Adapt(moments, None, None), nn.Identity(), nn.Identity(), nn.Linear(prod(shape), classes)
        )


@dataclass(frozen=True)
class Mlp:
    """Hidden fully connected layers with ReLU, on the flattened input.

    Source: S0 appendix A (checkerboard: 30, 30; MNIST: 100, 50 with BatchNorm before each).
    """

    hidden: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)]
    batch_norm: bool
    dropout: Annotated[float, Ge(0), Lt(1)]

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer follows each hidden layer."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network for items of any shape."""
        body, width = fully_connected(prod(shape), self.hidden, self.batch_norm, self.dropout)
        return Network(Adapt(moments, None, None), nn.Identity(), body, nn.Linear(width, classes))
