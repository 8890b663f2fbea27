"""Stochastic passes with dropout on."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor, nn

from alrun.training.model import Model


def dropout_passes(
    model: Model, rows: Int64[ndarray, " b"], passes: int, rng: np.random.Generator
) -> Iterator[Float32[ndarray, "b c"]]:
    """Softmax outputs of each pass. Dropout is on, BatchNorm stays in eval mode.

    Within a pass all rows share one mask per layer, so that rows can be compared.
    Source: Gal et al. 2017; consistent masks as in Kirsch et al. 2019 (ALGORITHMS 6.4).

    Raises:
        ValueError: the network has no dropout layer.
    """
    layers = [module for module in model.network.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise ValueError("dropout passes need a network with dropout layers and got none; set model.dropout")
    for _ in range(passes):
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        hooks = [layer.register_forward_hook(_one_mask(layer.p, generator)) for layer in layers]
        try:
            yield model.predict(rows)
        finally:
            for hook in hooks:
                hook.remove()


def _one_mask(rate: float, generator: torch.Generator) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that drops the same numbers of every item, drawn at its first call."""
    drawn: list[Tensor] = []

    def masked(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        if not drawn:
            kept = torch.rand(output.shape[1:], generator=generator) >= rate
            drawn.append((kept / (1 - rate)).to(output))
        return output * drawn[0]

    return masked
