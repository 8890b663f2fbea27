"""The loss module of learning loss: what a network's loss on an item will be, told from its feature maps."""

from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn


class LossPredictor(nn.Module):
    """The head `learning_loss`: one number an item, larger where the network's loss is expected to be larger.

    Each map's average over the image goes through a linear layer of `hidden` and a ReLU; these side by side
    through one linear layer.

    Source: Yoo and Kweon 2019, section 3.2 and figure 2 (four maps, hidden 128).
    """

    reads: Literal["maps"] = "maps"
    width = 1

    def __init__(self, widths: list[int], hidden: int) -> None:
        """For maps of so many channels each."""
        super().__init__()
        self.widths = widths
        self.widest = max(sum(widths), hidden * len(widths))
        self.narrow = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.last = nn.Linear(hidden * len(widths), 1)

    def forward(self, averages: Float32[Tensor, "b m"]) -> Float32[Tensor, "b 1"]:
        """One number a row of averages, those of all maps side by side; in float32, as it is asked later."""
        with torch.autocast(averages.device.type, enabled=False):
            parts = zip(self.narrow, averages.split(self.widths, 1), strict=True)
            return self.last(torch.cat([layer(part).relu() for layer, part in parts], 1))
