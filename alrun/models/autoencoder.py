"""The plain autoencoder's network."""

from typing import Literal

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor, nn

from alrun.models.coder import Coding, squared_errors
from alrun.models.encoded import Encoder
from alrun.models.s4_coder import S4Coding
from alrun.models.vae import Terms
from alrun.pool import Moments


class AutoencoderNetwork(nn.Module):
    """A code of each item, and a decoder of codes. All methods take stored batches, uint8 or floating."""

    def __init__(self, coding: Coding | S4Coding, shape: tuple[int, ...], scale: Moments) -> None:
        """A fresh network for items of this shape; weights come from torch's current generator.

        Raises:
            ValueError: convolutions for items that are no images.
        """
        super().__init__()
        self.coding = coding
        self.coder = coding.plain(shape, scale)
        self.latent = self.coder.latent

    def encoder(self) -> Encoder:
        """`code` alone, of the same weights."""
        return self.coder.without_decoder(self.latent)

    def code(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, "b l"]:
        """The code of each item."""
        return self.coder.encode(self.coder.scaled(x))

    def reconstruct(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, " b *stored"]:
        """What the decoder makes of the code, in stored units and shape."""
        return self.coder.stored(self.coder.decode(self.code(x)))

    def terms(self, x: Shaped[Tensor, " b *stored"], reduction: Literal["sum", "mean"]) -> Terms:
        """Squared errors of each item, summed or averaged over its stored numbers; no divergence."""
        item = self.coder.scaled(x)
        z = self.coder.encode(item)
        errors = squared_errors(item, self.coder.decode(z), reduction)
        return Terms(errors, torch.zeros_like(errors), z)
