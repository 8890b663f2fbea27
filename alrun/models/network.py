"""The form all networks share: adapt the stored items, frozen part, body, last linear layer."""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from alrun.pool import Moments

IMAGENET = Moments(*(torch.tensor(v).numpy() for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])))


class Adapt(nn.Module):
    """Stored items on the network's scale: uint8 / 255, standardized, and for images channels and size.

    Images (b, h, w) become (b, 1, h, w); with `channels` = 3 one channel is repeated; with `side` they are
    resized bilinearly. Without `channels` items are flattened to (b, d).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, moments: Moments, channels: int | None, side: int | None) -> None:
        super().__init__()
        self.channels, self.side = channels, side
        self.register_buffer("mean", torch.as_tensor(moments.mean).float().clone())
        self.register_buffer("std", torch.as_tensor(moments.std).float().clone())

    def forward(self, items: Tensor) -> Float[Tensor, "b ..."]:
        """The network's input for a batch of stored items."""
        x = items.float() / 255 if items.dtype == torch.uint8 else items.float()
        if x.ndim == 3:
            x = x[:, None]
        if x.ndim == 2:
            return (x - self.mean) / self.std
        if self.channels == 3 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.ndim == 4:
            x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        if self.channels is None:
            return x.flatten(1)
        if self.side is not None and x.shape[-2:] != (self.side, self.side):
            x = functional.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        return x


class Network(nn.Module):
    """`head(body(frozen(adapt(items))))`; `head` is the last linear layer.

    The frozen part (an nn.Identity where nothing is frozen) takes no gradient and stays in eval mode.
    """

    def __init__(self, adapt: nn.Module, frozen: nn.Module, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.adapt, self.frozen, self.body, self.head = adapt, frozen, body, head
        self.frozen.requires_grad_(False).eval()

    @property
    def is_frozen(self) -> bool:
        """Whether a part is frozen, so that its outputs may be kept."""
        return not isinstance(self.frozen, nn.Identity)

    def fixed(self, items: Tensor) -> Tensor:
        """What the trainable part receives."""
        with torch.no_grad():
            return self.frozen(self.adapt(items))

    def trainable(self, fixed: Tensor) -> Float[Tensor, "b c"]:
        """Logits from the frozen part's outputs."""
        return self.head(self.body(fixed))

    def embed(self, items: Tensor) -> Float[Tensor, "b d"]:
        """The input of the last linear layer."""
        return self.body(self.fixed(items))

    def forward(self, items: Tensor) -> Float[Tensor, "b c"]:
        """Logits."""
        return self.trainable(self.fixed(items))

    def train(self, mode: bool = True) -> "Network":
        """Training mode for the trainable part alone."""
        super().train(mode)
        self.frozen.eval()
        return self


class Architecture(Protocol):
    """Settings from which a network is built."""

    @property
    def has_dropout(self) -> bool:
        """Whether its networks have a dropout layer with a rate above 0."""
        ...

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A network for items of this shape; its weights are drawn from torch's current generator."""
        ...


def fully_connected(
    width: int, hidden: list[int], batch_norm: bool, dropout: float
) -> tuple[nn.Sequential, int]:
    """Hidden layers on inputs of `width` numbers, and the width of what comes out.

    Each is [BatchNorm], linear, ReLU, [dropout]. Source: S0 appendix A: BatchNorm before each hidden fully
    connected layer, dropout after it.
    """
    layers: list[nn.Module] = []
    for out in hidden:
        layers += [nn.BatchNorm1d(width)] if batch_norm else []
        layers += [nn.Linear(width, out), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout > 0 else []
        width = out
    return nn.Sequential(*layers), width


def image_size(shape: tuple[int, ...], network: str) -> tuple[int, int]:
    """Channels and the longer side of items of this shape.

    Raises:
        ValueError: the items are no images.
    """
    if len(shape) == 2:
        return 1, max(shape)
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape[0], max(shape[1:])
    raise ValueError(
        f"model: {network} reads images (h, w), (1, h, w) or (3, h, w), got items of shape {shape}; use model=mlp"
    )
