"""Features by networks that learn to read items back from few numbers: VAEs and autoencoders."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor, nn

from alrun.cache import Making
from alrun.features.encoding import features_by
from alrun.features.fitting import Course, Fit, Record, Sums
from alrun.features.keepsakes import CodeNetwork, keep_codes
from alrun.features.matrices import variances
from alrun.features.pictures import keep_curves, keep_reconstructions
from alrun.models.coder import scale_of
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, Moments, stream
from alrun.training.seeding import seeded

log = logging.getLogger(__name__)

ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Reconstruction:
    """What such a network is and what it loses.

    Attributes:
        build: gives a fresh network for items of a shape and scale, from torch's current generator.
        beta: weight of the divergence. reduction: squared errors of an item are summed or averaged.
    """

    build: Callable[[tuple[int, ...], Moments], CodeNetwork]
    beta: float
    reduction: Literal["sum", "mean"]

    def features(
        self, course: Course, inputs: Inputs, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n l"]:
        """Codes of all inputs by a network trained on them, or trained further than `making` had kept it.

        All chance is drawn by epoch, so a continued training gives the same bits. The network, a table of
        its epochs and pictures of what it sees are left in `making.folder`.

        Raises:
            ValueError: inputs or a loss that are not finite, or convolutions for items that are no images.
        """
        seed = int(rng.integers(2**62))
        scale = scale_of(inputs)
        with seeded(stream(seed, "weights"), inputs.device):
            network = self.build(inputs.shape, scale)
        network = network.to(inputs.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit = Fit(course, _Task(network, self), inputs, seed)
        fit.run(making)
        features = features_by(network.encoder(), inputs, making, fit.diverged)
        making.facts |= _tell(network, features, fit.records)
        keep_codes(making.folder, network, scale)
        keep_curves(making.folder, "elbo", fit.records)
        with seeded(stream(seed, "pictures"), inputs.device):
            keep_reconstructions(making.folder, network, inputs)
        return features


class _Task:
    """Reads items back, as well as the divergence allows."""

    keeps_best = True

    def __init__(self, network: CodeNetwork, losses: Reconstruction) -> None:
        self.network: nn.Module = network
        self.terms, self.losses = network.terms, losses

    def step(self, x: Tensor) -> tuple[Tensor, Sums]:
        """Mean loss of the items; sums of its terms, of the codes and of their squares."""
        terms = self.terms(x, self.losses.reduction)
        errors, divergence, code = terms.reconstruction.sum(), terms.divergence.sum(), terms.code.detach()
        sums = {
            "errors": errors,
            "divergence": divergence,
            "code": code.sum(0),
            "square": code.square().sum(0),
        }
        return (errors + self.losses.beta * divergence) / len(x), sums

    def record(self, sums: Sums, items: int) -> Record:
        """Means over the items, and how many of the code's numbers have a variance above 0.01 among them."""
        errors, divergence = float(sums["errors"]) / items, float(sums["divergence"]) / items
        loss = errors + self.losses.beta * divergence
        variance = sums["square"] / items - (sums["code"] / items).square()
        return {
            "loss": loss,
            "elbo": -loss,
            "reconstruction": errors,
            "kl": divergence,
            "active": float((variance > ACTIVE_VARIANCE).sum()),
        }


def _tell(network: CodeNetwork, features: Float32[ndarray, "n l"], records: list[Record]) -> Record:
    """Says how training went, with a warning about a bad one; the facts to be listed."""
    best = min(records, key=lambda record: record["loss"])
    active = int((variances(features) > ACTIVE_VARIANCE).sum())
    log.info(
        "encoder: best of %d epochs is %d: squared error %.4g, divergence %.4g nats; "
        "%d of %d numbers differ among items",
        *(len(records), best["epoch"], best["reconstruction"], best["kl"], active, features.shape[1]),
    )
    if active == 0 and len(features) > 1:
        remedy = (
            "raise featurizer.epochs, lower featurizer.beta, or use featurizer.reconstruction=sum"
            if isinstance(network, VaeNetwork)
            else "raise featurizer.epochs or featurizer.learning_rate"
        )
        log.warning(
            "the encoder collapsed: none of its %d numbers has a variance above %g, so its features say "
            "nothing about the items; %s",
            *(features.shape[1], ACTIVE_VARIANCE, remedy),
        )
    return {"epochs": float(len(records)), "elbo": best["elbo"], "active": float(active)}
