"""Training of autoencoders and VAEs on a whole pool without labels, and the features they give."""

import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor, nn

from alrun.cache import Making
from alrun.features.keepsakes import Encoder, keep_encoder, keep_pictures, keep_table
from alrun.models.coder import Coding, scale_of
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, stream
from alrun.training.batches import sizes_of
from alrun.training.model import parts
from alrun.training.seeding import seeded

log = logging.getLogger(__name__)

ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Fitting:
    """How an encoder is trained: Adam on mini-batches of the whole pool, shuffled anew each epoch.

    Attributes:
        epochs: at most so many. patience: epochs without a lower loss after which training ends; null runs
            all. Either way the weights of the epoch with the lowest loss are kept.
        beta: weight of the divergence. reconstruction: squared errors of an item are summed or averaged.
        mixed_precision: bfloat16 where a GPU trains; features are always made in float32.
    """

    epochs: int
    patience: int | None
    beta: float
    reconstruction: Literal["sum", "mean"]
    batch_size: int
    learning_rate: float
    mixed_precision: bool

    def features(
        self,
        kind: type[Encoder],
        coding: Coding,
        inputs: Inputs,
        rng: np.random.Generator,
        making: Making,
    ) -> Float32[ndarray, "n l"]:
        """Codes of all inputs by a network of this kind, trained on them or as far as `making` had kept.

        All chance is drawn by epoch, so a continued training gives the same bits. The network, a table of
        its epochs and pictures of what it sees are left in `making.folder`.

        Raises:
            ValueError: inputs or a loss that are not finite, or convolutions for items that are no images.
        """
        seed = int(rng.integers(2**62))
        scale = scale_of(inputs)
        with seeded(stream(seed, "weights"), inputs.device):
            network = kind(coding, inputs.shape, scale)
        network = network.to(inputs.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit = _Fit(self, network, inputs, seed)
        fit.run(making)
        features = codes(network, inputs)
        if not np.isfinite(features).all():
            raise fit.diverged("codes that are no numbers")
        making.facts |= _tell(network, features, fit)
        keep_encoder(making.folder, network, coding, scale)
        keep_table(making.folder, fit.records)
        with seeded(stream(seed, "pictures"), inputs.device):
            keep_pictures(making.folder, network, inputs, fit.records)
        return features


def codes(network: Encoder, inputs: Inputs) -> Float32[ndarray, "n l"]:
    """The code (of a VAE mu) of every item in float32, block by block."""
    network.eval()
    slices = parts(len(inputs), _largest(network), inputs.device)
    rows = np.arange(len(inputs))
    with torch.inference_mode():
        made = [network.code(inputs.take(rows[part])).cpu().numpy() for part in slices]
    return np.concatenate(made)


class _Fit:
    """One training under way: network, optimizer, and the best weights so far."""

    def __init__(self, settings: Fitting, network: Encoder, inputs: Inputs, seed: int) -> None:
        self.settings, self.network, self.inputs, self.seed = settings, network, inputs, seed
        self.optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, fused=True)
        self.state: dict[str, Any] = {"best": math.inf, "stale": 0, "weights": None}
        self.records: list[dict[str, float]] = []

    def run(self, making: Making) -> None:
        """All epochs, or those that are left; the network ends with the weights of the best one."""
        if (saved := making.load()) is not None:
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.state, self.records = dict(saved["state"]), list(saved["records"])
        settings = self.settings
        while len(self.records) < settings.epochs and self.state["stale"] < (settings.patience or math.inf):
            self.records.append(self._epoch(len(self.records)))
            self._watch(-self.records[-1]["elbo"])
            making.epoch(len(self.records), settings.epochs)
            making.keep(len(self.records), self._kept)
        self.network.load_state_dict(self.state["weights"])

    def diverged(self, what: str) -> ValueError:
        """The error for numbers that are none."""
        return ValueError(
            f"training an encoder must stay finite, got {what} in epoch {len(self.records) + 1} at learning "
            f"rate {self.settings.learning_rate:g}; lower featurizer.learning_rate"
        )

    def _kept(self) -> dict[str, Any]:
        network, optimizer = self.network.state_dict(), self.optimizer.state_dict()
        return {"network": network, "optimizer": optimizer, "state": self.state, "records": self.records}

    def _epoch(self, epoch: int) -> dict[str, float]:
        begun = time.perf_counter()
        rng = stream(self.seed, "order", epoch)
        count, device = len(self.inputs), self.inputs.device
        order = torch.from_numpy(rng.permutation(count)).to(device)
        self.network.train()
        losses, moments = torch.zeros(2, device=device, dtype=torch.float64), torch.zeros((), device=device)
        with seeded(rng, device):
            for rows in order.split(sizes_of(count, self.settings.batch_size)):
                step, spread = self._step(rows)
                losses, moments = losses + step, moments + spread
        # read once an epoch: a read in each step would make the GPU wait
        errors, divergence = (losses.cpu() / count).tolist()
        loss = errors + self.settings.beta * divergence
        if not math.isfinite(loss):
            raise self.diverged(f"loss {loss}")
        seconds = time.perf_counter() - begun
        return {
            "epoch": float(epoch + 1),
            "seconds": seconds,
            "images_per_second": count / seconds,
            "elbo": -loss,
            "reconstruction": errors,
            "kl": divergence,
            "active": _active(moments.cpu(), count),
        }

    def _step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the batch: of both terms, and of the code's numbers and their squares."""
        with self._precision():
            terms = self.network.terms(self.inputs.take(rows), self.settings.reconstruction)
        sums = torch.stack([terms.reconstruction.sum(), terms.divergence.sum()])
        self.optimizer.zero_grad()
        ((sums[0] + self.settings.beta * sums[1]) / len(rows)).backward()
        self.optimizer.step()
        code = terms.code.detach()
        return sums.detach().double(), torch.stack([code.sum(0), code.square().sum(0)])

    def _precision(self) -> AbstractContextManager[object]:
        mixed = self.settings.mixed_precision and self.inputs.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if mixed else nullcontext()

    def _watch(self, loss: float) -> None:
        if loss < self.state["best"]:
            weights = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.state |= {"best": loss, "stale": 0, "weights": weights}
        else:
            self.state["stale"] += 1


def _active(moments: Tensor, count: int) -> float:
    """How many of the code's numbers differ among items: variance above 0.01."""
    mean, square = moments.double() / count
    return float((square - mean.square() > ACTIVE_VARIANCE).sum())


def _largest(network: Encoder) -> int:
    """Numbers of one item where the network is widest: of the first layer's output."""
    canvas = network.coder.canvas
    if canvas is None:
        return prod(network.coder.adapt.out)
    first = next(part for part in network.coder.encoder.modules() if isinstance(part, nn.Conv2d))
    return first.out_channels * prod(canvas.padded) // prod(first.stride)


def _tell(network: Encoder, features: Float32[ndarray, "n l"], fit: _Fit) -> dict[str, float]:
    """Says how training went, with a warning about a bad one; the facts to be listed."""
    best = max(fit.records, key=lambda record: record["elbo"])
    active = int((features.var(axis=0) > ACTIVE_VARIANCE).sum())
    log.info(
        "encoder: best of %d epochs is %d: squared error %.4g, divergence %.4g nats; "
        "%d of %d numbers differ among items",
        *(len(fit.records), best["epoch"], best["reconstruction"], best["kl"], active, features.shape[1]),
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
    return {"epochs": float(len(fit.records)), "elbo": best["elbo"], "active": float(active)}
