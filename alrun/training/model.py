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
from alrun.models.maps import mapped
from alrun.models.network import Adapt, Architecture, Network
from alrun.pool import Inputs, Pool
from alrun.training.parts import parts, widest

HEADS = "heads."


@runtime_checkable
class Head(Protocol):
    """A module (b, ...) -> (b, width): a further output a row, beside the class probabilities.

    Attributes:
        reads: items as they are stored, inputs of the network's last linear layer, features (b, f): what its
            hidden layers receive, see `Network.stages`, or averages of its maps (b, m), see `mapped`.
        widest: numbers of one row where the module is widest; it bounds how many go through at once.
    """

    reads: Literal["items", "embeddings", "features", "maps"]
    width: int
    widest: int

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs of these items, embeddings, features or maps."""
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

    def logits(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b c"]:
        """Outputs of the last linear layer, of which `predict` gives the softmax."""
        return self._each(rows, self.network.head.out_features, self.network.trainable)

    def embed(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b d"]:
        """Inputs of the last linear layer."""
        return self._each(rows, self.network.head.in_features, self.network.body)

    def classify(self, embeddings: Float32[ndarray, "b d"]) -> Float32[ndarray, "b c"]:
        """Class probabilities from inputs of the last linear layer."""
        last = self.network.head
        return self._from(embeddings, last.out_features, lambda x: last(x).softmax(1))

    def logits_from(self, embeddings: Float32[ndarray, "b d"]) -> Float32[ndarray, "b c"]:
        """Outputs of the last linear layer from its inputs."""
        last = self.network.head
        return self._from(embeddings, last.out_features, last.__call__)

    def head(self, name: str, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b w"]:
        """A head's outputs for these rows.

        Raises:
            ValueError: the trainer gave no head of this name.
        """
        head = self.named(name)
        if head.reads == "embeddings":
            return self._each(rows, head.width, lambda x: head(self.network.body(x)))
        if head.reads in ("features", "maps"):
            return self.predict_with(name, rows)[1]
        return self._mapped(
            len(rows), head.widest, head.width, lambda part: self.inputs.take(rows[part]), head.__call__
        )

    def predict_with(
        self, name: str, rows: Int64[ndarray, " b"]
    ) -> tuple[Float32[ndarray, "b c"], Float32[ndarray, "b w"]]:
        """Class probabilities, and the outputs of a head that reads features or maps, in one pass.

        Raises:
            ValueError: the trainer gave no head of this name, or it reads something else.
        """
        head, last = self.named(name), self.network.head
        if head.reads not in ("features", "maps"):
            raise ValueError(f"the head '{name}' reads {head.reads}, not features or maps; ask Model.head")
        extract, hidden = self.network.stages()

        def both(x: Tensor) -> Tensor:
            if head.reads == "maps":
                embeddings, read = mapped(self.network, x)
            else:
                features = extract(x)
                embeddings, read = hidden(features), features.flatten(1)
            return torch.cat([last(embeddings).softmax(1), head(read)], 1)

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

    @cached_property
    def _breadth(self) -> int:
        return breadth(self.network, self.inputs)

    def _each(
        self, rows: Int64[ndarray, " b"], width: int, function: Callable[[Tensor], Tensor]
    ) -> Float32[ndarray, "b w"]:
        return self._mapped(len(rows), self._breadth, width, lambda part: self._fixed(rows[part]), function)

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


def breadth(network: Network, inputs: Inputs) -> int:
    """Numbers of one item that bound how many go through a network at once; on a GPU it goes to eval mode.

    There they are those of the widest layer (the 13-layer network of S3 has 43 times those of its images).
    On a CPU, where fewer go through, they are those that enter.
    """
    entering = prod(network.adapt.out)
    if inputs.device.type != "cuda":
        return entering
    return max(entering, widest(network.eval(), inputs.take(np.arange(1))))


def fixed_reader(network: Network, inputs: Inputs) -> Callable[[ndarray], Tensor]:
    """What the trainable part receives, by row; outputs of frozen layers are made once for these inputs."""
    if not network.is_frozen:
        return lambda rows: network.fixed(inputs.take(rows))
    key = _digest(network.adapt, network.frozen)
    return inputs.mapped(key, lambda part: _frozen_outputs(network, part)).take


def remember(encoder: Encoder, inputs: Inputs, outputs: Float32[ndarray, "n w"]) -> None:
    """Takes these outputs of an encoder for the data set's items as those of layers borrowed from it."""
    inputs.originals.mapped(_digest(encoder.adapt, Borrowed(encoder)), lambda _: outputs)


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


def _frozen_outputs(network: Network, inputs: Inputs) -> ndarray:
    out: ndarray | None = None
    rows = np.arange(len(inputs))
    most = network.frozen.widest if isinstance(network.frozen, Borrowed) else breadth(network, inputs)
    for part in parts(len(rows), max(prod(network.adapt.out), most), inputs.device):
        fixed = network.fixed(inputs.take(rows[part])).float().cpu().numpy()
        out = np.empty((len(rows), *fixed.shape[1:]), np.float32) if out is None else out
        out[part] = fixed
    assert out is not None  # inputs hold at least one item
    return out


def _digest(adapt: Adapt, frozen: nn.Module) -> str:
    """Names the function up to the trainable part: size and moments of its input, frozen weights."""
    digest = hashlib.sha256(str(adapt.out).encode())
    for module in (adapt, frozen):
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
