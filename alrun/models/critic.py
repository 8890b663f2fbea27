"""The critic of WAAL: how far an item lies from the labeled ones, told from the network's features."""

from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from alrun.models.mlp import connected


class Critic(nn.Module):
    """The head `critic`: D(g(x)) in [0, 1], large where an item looks unlabeled.

    Hidden ReLU layers of these widths, dropout after each, a linear layer, and a sigmoid.
    Source: cjshui/WAAL (one hidden layer of 50, dropout 0.5).
    """

    reads: Literal["features"] = "features"
    width = 1

    def __init__(self, features: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        self.widest = max(features, *hidden)
        layers = connected(features, hidden, batch_norm=False, dropout=dropout)
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def forward(self, features: Float[Tensor, "b f"]) -> Float32[Tensor, "b 1"]:
        """One number a row."""
        return torch.sigmoid(self.layers(features.float()))
