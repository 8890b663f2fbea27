"""The variational autoencoder's network."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor, nn

from alrun.models.coder import Coding, squared_errors
from alrun.models.encoded import Encoder
from alrun.pool import Moments


class Terms(NamedTuple):
    """What a VAE loses on each item: squared errors, and the divergence from the prior in nats; and mu."""

    reconstruction: Float32[Tensor, " b"]
    divergence: Float32[Tensor, " b"]
    code: Float32[Tensor, "b l"]


class VaeNetwork(nn.Module):
    """q(z|x) = N(mu(x), diag exp logvar(x)), a decoder of z, and a standard normal prior.

    All methods take stored batches, uint8 or floating; what they give is float32. Built by
    `VaeNetwork(Coding(latent, architecture, width), inputs.shape, scale_of(inputs))` with weights from
    torch's current generator; losses are on `coder.scaled(x)`, which is [0, 1] for uint8 images.

    Source: Kingma and Welling 2014.
    """

    def __init__(self, coding: Coding, shape: tuple[int, ...], scale: Moments) -> None:
        """A fresh network for items of this shape.

        Raises:
            ValueError: convolutions for items that are no images.
        """
        super().__init__()
        self.coding, self.latent = coding, coding.latent
        self.coder = coding.build(shape, scale, outputs=2 * coding.latent)

    def encoder(self) -> Encoder:
        """`code` alone, of the same weights."""
        return self.coder.without_decoder(self.latent)

    def encode(
        self, x: Shaped[Tensor, " b *stored"]
    ) -> tuple[Float32[Tensor, "b l"], Float32[Tensor, "b l"]]:
        """`mu` and `logvar` of each item."""
        return self._moments(self.coder.scaled(x))

    def decode(self, z: Float32[Tensor, "b l"]) -> Float32[Tensor, " b *item"]:
        """Decoder means on the scale of `coder.scaled`; `coder.stored` gives them in stored units."""
        return self.coder.decode(z)

    def code(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, "b l"]:
        """`mu` of each item."""
        return self.encode(x)[0]

    def reconstruct(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, " b *stored"]:
        """What the decoder makes of mu(x), in stored units and shape."""
        return self.coder.stored(self.coder.decode(self.code(x)))

    def terms(self, x: Shaped[Tensor, " b *stored"], reduction: Literal["sum", "mean"]) -> Terms:
        """Both terms of the loss of each item, at one z drawn by torch's current generator.

        Divergence: -0.5 sum(1 + logvar - mu^2 - exp logvar). Squared errors are summed (or averaged) over
        the stored numbers; with `sum` the loss is the negative ELBO of a Gaussian of variance 1/2, up to a
        constant.
        """
        item = self.coder.scaled(x)
        mu, logvar = self._moments(item)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        errors = squared_errors(item, self.coder.decode(z), reduction)
        return Terms(errors, divergence(mu, logvar), mu)

    def _moments(self, item: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.coder.encode(item).chunk(2, dim=1)
        return mu, logvar


def divergence(mu: Float32[Tensor, "b l"], logvar: Float32[Tensor, "b l"]) -> Float32[Tensor, " b"]:
    """KL divergence of N(mu, diag exp logvar) from N(0, 1) in nats: 0 exactly where they are the same."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
