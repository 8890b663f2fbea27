"""Networks on the outputs of an encoder that was trained before and is trained no further."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from jaxtyping import Float32, Shaped
from torch import Tensor, nn

from alrun.models.network import Adapt, Network
from alrun.pool import Moments


class Encoder(nn.Module):
    """A trained network that makes features: stored items in, `width` numbers an item out, in float32.

    It stays in evaluation mode, and its weights take no gradients.

    Attributes:
        adapt: brings stored items to the scale and shape that `layers` take.
        width: numbers it gives for an item.
        widest: numbers of one item where it is widest; it bounds how many go through at once.
    """

    def __init__(self, adapt: Adapt, layers: nn.Module, *, width: int, widest: int) -> None:
        super().__init__()
        self.adapt = adapt
        self.layers = layers
        self.width = width
        self.widest = widest
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Encoder":
        """Evaluation mode, whatever is asked for."""
        del mode
        return super().train(False)

    def forward(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, "b w"]:
        """The numbers of stored items."""
        return self.layers(self.adapt(x)).float()


class ChannelsLast(nn.Module):
    """Convolutions that get and hold images channels-last, which is faster on a CPU as well."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float32[Tensor, "b c h w"]) -> Tensor:
        """What the layers give for these images."""
        return self.layers(x.contiguous(memory_format=torch.channels_last))


@dataclass(frozen=True)
class FrozenHead:
    """Linear-BatchNorm-ReLU-Linear on a featurizer's frozen encoder; or with dropout; or one linear layer.

    Attributes:
        hidden: width of the first linear layer, whose outputs are the embeddings; null has none, so that the
            classifier is linear in the features, which are then its embeddings.
        batch_norm: BatchNorm between the first layer and its ReLU.
        dropout: rate after that ReLU.

    Source: S2 (Mahmood et al. 2022), section 5 and appendix E.1; its number for `hidden` is lost.
    """

    hidden: Annotated[int, Ge(1)] | None
    batch_norm: bool
    dropout: Annotated[float, Ge(0), Lt(1)]

    def __post_init__(self) -> None:
        """Refuses what belongs to a hidden layer where there is none.

        Raises:
            ValueError: BatchNorm or dropout without a hidden layer.
        """
        if self.hidden is None and (self.batch_norm or self.dropout):
            raise ValueError(
                f"hidden: BatchNorm and dropout come after a hidden layer, got null with batch_norm="
                f"{self.batch_norm} and dropout={self.dropout}; use model=linear_head, or give a width"
            )

    @property
    def has_dropout(self) -> bool:
        """Whether dropout is above 0."""
        return self.dropout > 0

    def on(self, encoder: Encoder) -> "Headed":
        """The architecture that stands on this encoder."""
        return Headed(self, encoder)


@dataclass(frozen=True, eq=False)
class Headed:
    """A new head on the same encoder, each time it is built.

    The encoder's weights are no part of a network's state_dict: its artifact holds them, and the round's
    checkpoint need not hold them again.
    """

    head: FrozenHead
    encoder: Encoder

    @property
    def has_dropout(self) -> bool:
        """Whether the head draws dropout masks."""
        return self.head.has_dropout

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh head for these classes; its weights come from torch's current generator.

        Shape and moments are the encoder's own affair: it knows the items it was trained on.
        """
        del shape, moments
        body, width = nn.Sequential(*self._hidden()), self.head.hidden or self.encoder.width
        return Network(self.encoder.adapt, Borrowed(self.encoder), body, nn.Linear(width, classes))

    def _hidden(self) -> Iterator[nn.Module]:
        """The layers before the output."""
        if self.head.hidden is None:
            return
        yield nn.Linear(self.encoder.width, self.head.hidden)
        if self.head.batch_norm:
            yield nn.BatchNorm1d(self.head.hidden)
        yield nn.ReLU()
        if self.head.has_dropout:
            yield nn.Dropout(self.head.dropout)


class Borrowed(nn.Module):
    """An encoder's layers: a state_dict leaves their weights out, and loading one leaves them alone."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.layers, self.widest = encoder.layers, encoder.widest
        self.register_state_dict_post_hook(_left_out)
        self.register_load_state_dict_pre_hook(_filled_in)

    def forward(self, x: Tensor) -> Tensor:
        """What the layers give, in float32."""
        return self.layers(x).float()


def _left_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    del module, metadata
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _filled_in(module: nn.Module, state: dict[str, Tensor], prefix: str, *report: Any) -> None:
    del report
    layers = module.get_submodule("layers")
    with torch.no_grad():
        state.update({f"{prefix}layers.{name}": value for name, value in layers.state_dict().items()})
