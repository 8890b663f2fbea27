"""A trained network, asked by row."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.encoded import Borrowed, Encoder
from alrun.models.network import Adapt, Architecture, Network
from alrun.pool import Inputs, Pool
from alrun.training.parts import parts

HEADS = "heads."


@runtime_checkable
class Head(Protocol):
    """A module (b, ...) -> (b, width): a further output a row, beside the class probabilities.

    Attributes:
        reads: items as they are stored, inputs of the network's last linear layer, or features (b, f): what
            its hidden layers receive, see `Network.stages`.
        widest: numbers of one row where the module is widest; it bounds how many go through at once.
    """

    reads: Literal["items", "embeddings", "features"]
    width: int
    widest: int

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs of these items, embeddings or features."""
        ...


@dataclass(frozen=True, eq=False)
class Model:
    """A network in eval mode over some inputs; memory is bounded by the mini-batch and the result.

    Attributes:
        facts: what its fit says of itself: `train_loss` (mean over the last epoch), `train_epochs`,
            `train_images` (items that went through training steps).
        heads: the trainer's further outputs, each a `Head`, by name.
    """

    network: Network
    inputs: Inputs
    facts: Mapping[str, float]
    heads: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    @property
    def weights(self) -> dict[str, Tensor]:
        """All that a trainer's `restored` takes back: the network's state, and under `heads.` the heads'."""
        heads = self.heads.state_dict(prefix=HEADS)
        return {**self.network.state_dict(), **heads}

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
        last = self.network.head
        return self._from(embeddings, last.out_features, lambda x: last(x).softmax(1))

    def head(self, name: str, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b w"]:
        """A head's outputs for these rows.

        Raises:
            ValueError: the trainer gave no head of this name.
        """
        head = self.named(name)
        if head.reads == "embeddings":
            return self._each(rows, head.width, lambda x: head(self.network.body(x)))
        if head.reads == "features":
            return self.predict_with(name, rows)[1]
        return self._mapped(
            len(rows), head.widest, head.width, lambda part: self.inputs.take(rows[part]), head.__call__
        )

    def predict_with(
        self, name: str, rows: Int64[ndarray, " b"]
    ) -> tuple[Float32[ndarray, "b c"], Float32[ndarray, "b w"]]:
        """Class probabilities, and the outputs of a head that reads features, in one pass.

        Raises:
            ValueError: the trainer gave no head of this name, or it reads something else.
        """
        head, last = self.named(name), self.network.head
        if head.reads != "features":
            raise ValueError(f"the head '{name}' reads {head.reads}, not features; ask Model.head")
        extract, hidden = self.network.stages()

        def both(x: Tensor) -> Tensor:
            features = extract(x)
            return torch.cat([last(hidden(features)).softmax(1), head(features.flatten(1))], 1)

        found = self._each(rows, last.out_features + head.width, both)
        return found[:, : last.out_features], found[:, last.out_features :]

    def head_from(self, name: str, embeddings: Float32[ndarray, "b d"]) -> Float32[ndarray, "b w"]:
        """Outputs, from inputs of the last linear layer, of a head that reads those.

        Raises:
            ValueError: the trainer gave no head of this name, or it reads stored items.
        """
        head = self.named(name)
        if head.reads != "embeddings":
            raise ValueError(f"the head '{name}' reads {head.reads}, not embeddings; ask Model.head by row")
        return self._from(embeddings, head.width, head.__call__)

    def named(self, name: str) -> Head:
        """The head of this name.

        Raises:
            ValueError: the trainer gave none.
        """
        if name not in self.heads:
            known = ", ".join(self.heads) or "none"
            raise ValueError(
                f"this model needs a head '{name}' and its trainer gave {known}; choose a trainer with it"
            )
        return cast("Head", self.heads[name])

    @cached_property
    def _fixed(self) -> Callable[[ndarray], Tensor]:
        # once a model: hashing the frozen weights of VGG-16 takes 30 ms
        return fixed_reader(self.network, self.inputs)

    def _each(
        self, rows: Int64[ndarray, " b"], width: int, function: Callable[[Tensor], Tensor]
    ) -> Float32[ndarray, "b w"]:
        numbers = prod(self.network.adapt.out)
        return self._mapped(len(rows), numbers, width, lambda part: self._fixed(rows[part]), function)

    def _from(
        self, embeddings: Float32[ndarray, "b d"], width: int, function: Callable[[Tensor], Tensor]
    ) -> Float32[ndarray, "b w"]:
        def read(part: slice) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(embeddings[part])).to(self.inputs.device)

        return self._mapped(len(embeddings), embeddings.shape[1], width, read, function)

    def _mapped(
        self,
        count: int,
        numbers: int,
        width: int,
        read: Callable[[slice], Tensor],
        function: Callable[[Tensor], Tensor],
    ) -> Float32[ndarray, "b w"]:
        self.network.eval()
        self.heads.eval()
        out = np.empty((count, width), np.float32)
        for part in parts(count, numbers, self.inputs.device):
            # outside inference_mode: what inputs keep for good must stay usable in training
            x = read(part)
            with torch.inference_mode():
                out[part] = function(x).float().cpu().numpy()
        return out


def fixed_reader(network: Network, inputs: Inputs) -> Callable[[ndarray], Tensor]:
    """What the trainable part receives, by row; outputs of frozen layers are made once for these inputs."""
    if not network.is_frozen:
        return lambda rows: network.fixed(inputs.take(rows))
    key = _digest(network.adapt, network.frozen)
    return inputs.derived(key, lambda: _frozen_outputs(network, inputs)).take


def remember(encoder: Encoder, inputs: Inputs, outputs: Float32[ndarray, "n w"]) -> None:
    """Takes these outputs of an encoder for all inputs as those of a network's layers borrowed from it."""
    inputs.derived(_digest(encoder.adapt, Borrowed(encoder)), lambda: Inputs(outputs, inputs.device))


def restored(
    architecture: Architecture,
    pool: Pool,
    weights: Mapping[str, Any],
    facts: Mapping[str, float],
    heads: nn.ModuleDict | None = None,
) -> Model:
    """The model that these weights, a `Model.weights`, belong to; `heads` are its heads with any weights."""
    heads = nn.ModuleDict() if heads is None else heads
    with torch.random.fork_rng([]):
        network = architecture.build(pool.inputs.shape, pool.inputs.moments, pool.classes)
    theirs = {name: value for name, value in weights.items() if name.startswith(HEADS)}
    network.load_state_dict({name: value for name, value in weights.items() if name not in theirs})
    heads.load_state_dict({name.removeprefix(HEADS): value for name, value in theirs.items()})
    return Model(placed(network, pool.inputs.device).eval(), pool.inputs, facts, heads.eval())


def placed(network: Network, device: torch.device) -> Network:
    """The network on its device, convolutions channels-last on a GPU."""
    if device.type == "cuda":
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def _frozen_outputs(network: Network, inputs: Inputs) -> Inputs:
    out: ndarray | None = None
    rows = np.arange(len(inputs))
    widest = network.frozen.widest if isinstance(network.frozen, Borrowed) else 0
    for part in parts(len(rows), max(prod(network.adapt.out), widest), inputs.device):
        fixed = network.fixed(inputs.take(rows[part])).float().cpu().numpy()
        out = np.empty((len(rows), *fixed.shape[1:]), np.float32) if out is None else out
        out[part] = fixed
    assert out is not None  # inputs hold at least one item
    return Inputs(out, inputs.device)


def _digest(adapt: Adapt, frozen: nn.Module) -> str:
    """Names the function up to the trainable part: size and moments of its input, frozen weights."""
    digest = hashlib.sha256(str(adapt.out).encode())
    for module in (adapt, frozen):
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
