"""Features by contrastive learning: two views of an image are to be told from the views of all others."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from alrun.cache import Making
from alrun.features.encoding import features_by, require_unit_images
from alrun.features.featurizer import Embed
from alrun.features.fitting import Course, Fit, Record, Sums
from alrun.features.keepsakes import fill_weights, keep_weights
from alrun.features.pictures import keep_curves, keep_views
from alrun.models.encoded import Encoder
from alrun.models.trunk import Trunk, Trunks
from alrun.pool import Inputs, Pool, stream
from alrun.training.seeding import seeded
from alrun.training.views import Views, unit

log = logging.getLogger(__name__)

AS_BY_CHANCE = 0.99


@dataclass(frozen=True)
class Simclr:
    """Outputs of an encoder trained once, without labels, on random views of the whole pool.

    Each step shows two views of every image of a mini-batch. Encoder and projection head (Linear, BatchNorm,
    ReLU, Linear) make unit vectors of them, and the loss is `nt_xent`. Mini-batches are full: what is left of
    an epoch's shuffled pool is left out of it. Features are the encoder's outputs for images as they are.

    Attributes:
        architecture, width: of the encoder, see `alrun.models.trunk.Trunks`.
        hidden, projection: widths of the head's two layers.
        learning_rate, final_rate: Adam's rate falls as half a cosine from the first to the last step.
        views: how images are changed.

    Source: Chen et al. 2020; S2 (Mahmood et al. 2022), section 5 and appendix E.1, table 6: its numbers of
    epochs, rates, temperature and hidden width are lost. Departs: Adam without weight decay, no warm-up.
    """

    architecture: Literal["resnet18", "resnet34", "cnn", "mlp"]
    width: Annotated[int, Ge(1)]
    hidden: Annotated[int, Ge(1)]
    projection: Annotated[int, Ge(1)]
    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    final_rate: Annotated[float, Ge(0)]
    temperature: Annotated[float, Gt(0)]
    views: Views
    mixed_precision: bool
    depends_on_model = False

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n w"]:
        """The encoder's outputs for all inputs; its weights and pictures are left in `making.folder`.

        All chance is drawn by epoch, so a training continued from what `making` kept gives the same bits.

        Raises:
            ValueError: items that are no gray or color images in [0, 1], or a loss that is not finite.
        """
        del embed
        inputs, seed = pool.inputs, int(rng.integers(2**62))
        require_unit_images(inputs, "simclr")
        with seeded(stream(seed, "weights"), inputs.device):
            trunk = self._trunk(inputs)
            head = _projection(trunk.width, self.hidden, self.projection)
        task = _Task(trunk, head, self, inputs.device)
        batch = min(self.batch_size, len(inputs))
        course = Course(
            self.epochs,
            patience=None,
            sizes=[batch] * (len(inputs) // batch),
            rate=self.learning_rate,
            final_rate=self.final_rate,
            mixed_precision=self.mixed_precision,
        )
        fit = Fit(course, task, inputs, seed)
        fit.run(making)
        features = features_by(trunk.frozen().to(inputs.device), inputs, making, fit.diverged)
        making.facts |= _tell(fit.records, batch)
        keep_weights(making.folder, trunk.layers)
        keep_curves(making.folder, "simclr", fit.records)
        with seeded(stream(seed, "pictures"), inputs.device):
            keep_views(making.folder, self.views, inputs)
        return features

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoder in the folder that `make` filled for these inputs.

        Raises:
            OSError: its weights are not there.
        """
        with torch.random.fork_rng([]):
            trunk = self._trunk(inputs)
        fill_weights(folder, trunk.layers)
        return trunk.frozen().to(inputs.device)

    def _trunk(self, inputs: Inputs) -> Trunk:
        return Trunks(self.architecture, self.width).build(inputs.shape, inputs.moments)


def nt_xent(
    first: Float32[Tensor, "n d"], second: Float32[Tensor, "n d"], temperature: float
) -> Float32[Tensor, ""]:
    """How badly each unit vector finds its partner among all 2n - 1 others, in nats, on average.

    The mean over i of -log( exp(u_i u_i' / t) / sum over k != i of exp(u_i u_k / t) ), i' the partner of i:
    about log(2n - 1) for random vectors, exactly that if all are the same.

    Source: Chen et al. 2020, equation (1).
    """
    both = torch.cat([first, second])
    similarity = both @ both.T / temperature
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    others = similarity.masked_fill(itself, -math.inf).logsumexp(1)
    partners = (first * second).sum(1) / temperature
    return others.mean() - partners.mean()


class _Task:
    """Tells two views of an image from all other views of the mini-batch."""

    keeps_best = False

    def __init__(self, trunk: Trunk, head: nn.Module, settings: Simclr, device: torch.device) -> None:
        self.adapt, self.settings = trunk.adapt.to(device), settings
        self.network: nn.Module = nn.Sequential(trunk.layers, head).to(device)

    def step(self, x: Tensor) -> tuple[Tensor, Sums]:
        """The loss of two views of each image; sums of it and of the partners' similarity."""
        # bfloat16 is for the network alone: it would coarsen colors and similarities
        with torch.autocast(x.device.type, enabled=False):
            images, views = unit(x), self.settings.views
            both = self.adapt(torch.cat([views.of(images), views.of(images)]))
        outputs = self.network(both)
        with torch.autocast(x.device.type, enabled=False):
            first, second = functional.normalize(outputs.float()).chunk(2)
            loss = nt_xent(first, second, self.settings.temperature)
        return loss, {"loss": loss * len(x), "positive": (first * second).sum()}

    def record(self, sums: Sums, items: int) -> Record:
        """Mean loss, and mean cosine between the two views of an image."""
        return {name: float(value) / items for name, value in sums.items()}


def _projection(width: int, hidden: int, projection: int) -> nn.Module:
    first = [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, nn.Linear(hidden, projection))


def _tell(records: list[Record], batch: int) -> Record:
    """Says how training went, with a warning about a collapsed encoder; the facts to be listed."""
    last, by_chance = records[-1], math.log(max(1, 2 * batch - 1))
    log.info(
        "encoder: after %d epochs a loss of %.4g (%.4g by chance), two views have a cosine of %.3g",
        *(len(records), last["loss"], by_chance, last["positive"]),
    )
    if batch > 1 and last["loss"] > AS_BY_CHANCE * by_chance:
        log.warning(
            "the encoder collapsed or learned nothing: its loss of %.4g is that of images that all look the "
            "same, log(2 * %d - 1) = %.4g; raise featurizer.epochs, or change featurizer.learning_rate",
            *(last["loss"], batch, by_chance),
        )
    return {"epochs": float(len(records)), "loss": last["loss"], "positive": last["positive"]}
