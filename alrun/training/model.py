"""A trained network, asked by row."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from alrun.models.network import Architecture, Network
from alrun.pool import Inputs, Pool

BATCH_NUMBERS = 2**21


@dataclass(frozen=True, eq=False)
class Model:
    """A network in eval mode over some inputs.

    Attributes:
        facts: what its fit says of itself (`train_loss`, `train_epochs`, `train_images`).
    """

    network: Network
    inputs: Inputs
    facts: Mapping[str, float]

    def on(self, inputs: Inputs) -> "Model":
        """The same network over other inputs, the test set's say."""
        return replace(self, inputs=inputs)

    def predict(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b c"]:
        """Class probabilities; each row sums to one."""
        return self._each(
            rows, self.network.head.out_features, lambda x: self.network.trainable(x).softmax(1)
        )

    def embed(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b d"]:
        """Inputs of the last linear layer."""
        return self._each(rows, self.network.head.in_features, self.network.body)

    def classify(self, embeddings: Float32[ndarray, "b d"]) -> Float32[ndarray, "b c"]:
        """Class probabilities from inputs of the last linear layer."""
        self.network.eval()
        out = np.empty((len(embeddings), self.network.head.out_features), np.float32)
        with torch.inference_mode():
            for part in _parts(len(embeddings), embeddings.shape[1]):
                x = torch.from_numpy(embeddings[part]).to(self.inputs.device)
                out[part] = self.network.head(x).softmax(1).cpu().numpy()
        return out

    def _each(
        self, rows: Int64[ndarray, " b"], width: int, function: Callable[[Tensor], Tensor]
    ) -> Float32[ndarray, "b w"]:
        self.network.eval()
        read = fixed_reader(self.network, self.inputs)
        out = np.empty((len(rows), width), np.float32)
        with torch.inference_mode():
            for part in _parts(len(rows), prod(self.inputs.shape)):
                out[part] = function(read(rows[part])).float().cpu().numpy()
        return out


def fixed_reader(network: Network, inputs: Inputs) -> Callable[[ndarray], Tensor]:
    """What the trainable part receives, by row; outputs of frozen layers are made once for these inputs."""
    if not network.is_frozen:
        return lambda rows: network.fixed(inputs.take(rows))
    kept = inputs.derived(_frozen_digest(network), lambda: _frozen_outputs(network, inputs))
    return lambda rows: kept[torch.as_tensor(rows, device=kept.device)]


def restored(
    architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
) -> Model:
    """The model that these weights, a network's state_dict, belong to."""
    with torch.random.fork_rng([]):
        network = architecture.build(pool.inputs.shape, pool.inputs.moments, pool.classes)
    network.load_state_dict(dict(weights))
    return Model(placed(network, pool.inputs.device), pool.inputs, facts)


def placed(network: Network, device: torch.device) -> Network:
    """The network on its device, convolutions channels-last on a GPU."""
    if device.type == "cuda":
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def _frozen_outputs(network: Network, inputs: Inputs) -> Tensor:
    network.eval()
    rows = np.arange(len(inputs))
    with torch.no_grad():
        parts = [network.fixed(inputs.take(rows[part])) for part in _parts(len(rows), prod(inputs.shape))]
    return torch.cat(parts)


def _frozen_digest(network: Network) -> str:
    digest = hashlib.sha256()
    for module in (network.adapt, network.frozen):
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _parts(count: int, numbers: int) -> list[slice]:
    """Slices of at most 1,024 items, fewer where an item is large."""
    each = max(1, min(1024, BATCH_NUMBERS // max(1, numbers)))
    return [slice(start, min(start + each, count)) for start in range(0, count, each)]
