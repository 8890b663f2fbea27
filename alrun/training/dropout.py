"""Stochastic passes with dropout on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Softmax outputs of each pass, one pass at a time. Dropout is on, BatchNorm stays in eval mode.

    Within a pass all rows share one mask per layer, so that rows can be compared. Between two passes the
    network is as it was.
    Source: Gal et al. 2017; consistent masks as in Kirsch et al. 2019 (ALGORITHMS 6.4).

    Raises:
        ValueError: the network has no dropout layer.
    """
    layers = [part for part in model.network.body.modules() if isinstance(part, nn.Dropout)]
    if not layers:
        raise ValueError(
            "dropout passes need a network with dropout layers and got none; raise model.dropout above 0"
        )
    return (_one_pass(model, rows, layers, rng) for _ in range(passes))


def _one_pass(
    model: Model, rows: Int64[ndarray, " b"], layers: list[nn.Dropout], rng: np.random.Generator
) -> Float32[ndarray, "b c"]:
    with _masks(layers, rng):
        return model.predict(rows)


@contextmanager
def _masks(layers: list[nn.Dropout], rng: np.random.Generator) -> Iterator[None]:
    hooks = [layer.register_forward_hook(_one_mask(layer.p, rng)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _one_mask(rate: float, rng: np.random.Generator) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that drops the same numbers of every item, drawn at its first call."""
    drawn: list[Tensor] = []

    def masked(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs  # in eval mode the layer itself passes its input on
        if not drawn:
            kept = rng.random(tuple(output.shape[1:]), np.float32) >= rate
            drawn.append(torch.from_numpy(kept / np.float32(1 - rate)).to(output))
        return output * drawn[0]

    return masked
