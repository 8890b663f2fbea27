"""Fully connected networks, and the fully connected end of the convolutional ones."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated

from annotated_types import Ge, Lt, MinLen
from torch import nn

from alrun.models.network import Adapt, Network
from alrun.pool import Moments


def connected(width: int, hidden: list[int], *, batch_norm: bool, dropout: float) -> nn.Sequential:
    """Hidden fully connected layers on `width` features: [BatchNorm,] Linear, ReLU [, Dropout] for each."""
    layers: list[nn.Module] = []
    for before, after in pairwise([width, *hidden]):
        layers += [nn.BatchNorm1d(before)] if batch_norm else []
        layers += [nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout > 0 else []
    return nn.Sequential(*layers)


def ending(width: int, hidden: list[int], dropout: float) -> nn.Sequential:
    """What stands between a network's `width` features and its head.

    Hidden layers without BatchNorm, dropout after each; without hidden layers dropout alone, if any.
    """
    if hidden or dropout == 0:
        return connected(width, hidden, batch_norm=False, dropout=dropout)
    return nn.Sequential(nn.Dropout(dropout))


@dataclass(frozen=True)
class Mlp:
    """Fully connected ReLU network on standardized, flattened items; `hidden` are the widths of its layers.

    Source: S0 (Kushnir and Venturi), appendix A, with hidden [100, 50] and BatchNorm before each hidden
    layer; its Bayesian criterion adds dropout after each hidden layer. ReLU is not stated there.
    """

    hidden: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)]
    batch_norm: bool
    dropout: Annotated[float, Ge(0), Lt(1)]

    def __post_init__(self) -> None:
        """Refuses a network without a hidden layer.

        Raises:
            ValueError: no hidden layer.
        """
        if not self.hidden:
            raise ValueError("model.hidden needs at least one width, got []; choose model=linear instead")

    @property
    def has_dropout(self) -> bool:
        """Whether dropout is above 0."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for items of any shape."""
        width = prod(shape)
        body = connected(width, self.hidden, batch_norm=self.batch_norm, dropout=self.dropout)
        head = nn.Linear(self.hidden[-1], classes)
        return Network(Adapt(shape, moments, (width,)), nn.Identity(), body, head)
