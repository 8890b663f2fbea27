"""The discriminator of VAAL: how much an item looks like a labeled one, told from a VAE's latent means."""

from typing import Literal

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor, nn

from alrun.models.mlp import connected
from alrun.models.vae import VaeNetwork


class Discriminator(nn.Module):
    """Logits of being labeled from latent means: hidden ReLU layers of these widths.

    Weights are Kaiming normal, biases zero, as in sinhasam/vaal.
    Source: Sinha et al. 2019; ALGORITHMS 6.6 (512-512-1).
    """

    def __init__(self, latent: int, hidden: list[int]) -> None:
        super().__init__()
        layers = connected(latent, hidden, batch_norm=False, dropout=0.0)
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, mu: Float32[Tensor, "b l"]) -> Float32[Tensor, " b"]:
        """One logit a row, positive where it looks labeled."""
        return self.layers(mu).float().squeeze(1)


class Familiarity(nn.Module):
    """The head `discriminator`: sigmoid D(mu(x)) of stored items, in [0, 1], 1 where they look labeled."""

    reads: Literal["items"] = "items"
    width = 1

    def __init__(self, vae: VaeNetwork, discriminator: Discriminator) -> None:
        super().__init__()
        self.widest = vae.coder.widest
        self.vae = vae
        self.discriminator = discriminator

    def forward(self, x: Shaped[Tensor, " b *stored"]) -> Float32[Tensor, "b 1"]:
        """Probabilities of being labeled."""
        return torch.sigmoid(self.discriminator(self.vae.code(x))).unsqueeze(1)
