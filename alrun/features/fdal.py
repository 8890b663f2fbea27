"""Features by f-domain adversarial learning: of an encoder in which source and pool look alike."""

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from alrun.cache import Making
from alrun.features.encoding import features_by, require_unit_images
from alrun.features.featurizer import Embed
from alrun.features.fitting import diverged
from alrun.features.keepsakes import fill_weights, keep_weights
from alrun.features.pictures import keep_curves
from alrun.models.encoded import Encoder
from alrun.models.fdal import Backbone, Divergence, FdalNetwork, discrepancy
from alrun.pool import Inputs, Pool, Source, stream
from alrun.training.seeding import precision, seeded

log = logging.getLogger(__name__)

POWER = 0.75
LEARNED = 0.5


@dataclass(frozen=True)
class Fdal:
    """Outputs of a bottleneck trained on a labeled source and the unlabeled pool by f-DAL.

    The encoder g and the head h learn the source's labels; at the class that h predicts, the auxiliary head
    h' tells source from pool, and g learns, by a reversed gradient, that it cannot. The loss of a step is
    CE(h(g(x_s)), y_s) - `weight` * d, d the discrepancy that h' sees (see `alrun.models.fdal`).

    Attributes:
        bottleneck: numbers an item becomes.
        head: two linear layers with a ReLU, or such with spectral norm 1 and a LeakyReLU.
        epochs, steps: so many epochs of so many steps, each of `batch_size` items of source and of pool.
        learning_rate: eta_i = `learning_rate` * (1 + `decay` * i)^-0.75 in step i, counted from 0; times
            `backbone_rate` for a backbone.
        reversal: largest coefficient of the reversed gradient, approached as
            `reversal` * (2 / (1 + exp(-i / `reversal_steps`)) - 1).
        clip: largest norm of a step's gradients, all weights together.
        mixed_precision: bfloat16 where a GPU trains; features are always made in float32.

    Source: Acuna et al. 2021 (f-DAL), with the numbers of the authors' Office-31 demo
    (github.com/nv-tlabs/fDAL), which S2, appendix E.1, takes over with plain heads. Departs: all chance is
    drawn by epoch, passes through the items are joined end to end where theirs leave out what fills no batch,
    and random parts of images lie at any place, not at whole pixels.
    """

    divergence: Divergence
    backbone: Backbone
    bottleneck: Annotated[int, Ge(1)]
    head: Literal["plain", "spectral"]
    dropout: Annotated[float, Ge(0), Lt(1)]
    epochs: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(1)]
    learning_rate: Annotated[float, Gt(0)]
    backbone_rate: Annotated[float, Ge(0)]
    decay: Annotated[float, Ge(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    weight_decay: Annotated[float, Ge(0)]
    weight: Annotated[float, Ge(0)]
    reversal: Annotated[float, Ge(0)]
    reversal_steps: Annotated[int, Ge(1)]
    clip: Annotated[float, Gt(0)]
    mixed_precision: bool
    depends_on_model = False
    reads_source = True

    @property
    def identity(self) -> dict[str, Any]:
        """All settings, weights by what is in them."""
        return {**asdict(self), "backbone": self.backbone.identity}

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n b"]:
        """Features of all rows; encoder, a table of epochs and its curves are left in `making.folder`.

        All chance is drawn by epoch, so a continued training gives the same bits.

        Raises:
            ValueError: a pool without source, a loss or features that are not finite, a backbone that does
                not fit the items, or, where it is pretrained, images with pixels outside [0, 1].
            FileNotFoundError: the backbone's weights are not there.
        """
        del embed
        if pool.source is None:
            raise ValueError(
                "featurizer=fdal adapts from a labeled source to the pool, and the data set has none; choose "
                "e.g. dataset=office_caltech10"
            )
        if self.backbone.pretrained and pool.inputs.is_image:
            for inputs in (pool.inputs, pool.source.inputs):
                require_unit_images(inputs, "fdal")
        fit = _Fit(self, pool, pool.source, int(rng.integers(2**62)))
        fit.run(making)
        encoder = fit.network.encoder()
        features = features_by(encoder, pool.inputs, making, fit.diverged)
        keep_weights(making.folder, encoder)
        keep_curves(making.folder, "fdal", fit.records)
        making.facts |= _tell(fit.records)
        return features

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoder in the folder that `make` filled."""
        with torch.random.fork_rng([]):
            encoder = self.network(inputs, classes=1, filled=False).encoder()
        fill_weights(folder, encoder)
        return encoder.to(inputs.device)

    def network(self, inputs: Inputs, classes: int, *, filled: bool) -> FdalNetwork:
        """A fresh network on the CPU; without `filled`, pretrained weights are not read."""
        return FdalNetwork(
            self.backbone.build(inputs, filled=filled),
            self.bottleneck,
            classes,
            dropout=self.dropout,
            spectral=self.head == "spectral",
        )

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * (1 + self.decay * step) ** -POWER

    def coefficient(self, step: int) -> float:
        """By what the reversed gradient of a step is multiplied, from 0 towards `reversal`."""
        return self.reversal * (2 / (1 + math.exp(-step / self.reversal_steps)) - 1)


class _Fit:
    """One training under way: network, optimizer, and a record for each epoch that is over."""

    def __init__(self, settings: Fdal, pool: Pool, source: Source, seed: int) -> None:
        self.settings, self.pool, self.source, self.seed = settings, pool, source, seed
        self.device = pool.inputs.device
        self.labels = torch.from_numpy(source.labels).to(self.device)
        with seeded(stream(seed, "weights"), self.device):
            network = settings.network(pool.inputs, pool.classes, filled=True)
        self.network = network.to(self.device)
        backbone = set(self.network.backbone.parameters())
        groups = [
            {"params": [weight for weight in self.network.parameters() if weight in backbone]},
            {"params": [weight for weight in self.network.parameters() if weight not in backbone]},
        ]
        self.optimizer = torch.optim.SGD(
            groups,
            settings.learning_rate,
            settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        self.records: list[dict[str, float]] = []

    def run(self, making: Making) -> None:
        """All epochs, or those that are left since `making` kept a state.

        Raises:
            ValueError: a loss that is not finite.
        """
        if (saved := making.load()) is not None:
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.records = list(saved["records"])
        while len(self.records) < self.settings.epochs:
            self.records.append(self._epoch(len(self.records)))
            making.epoch(len(self.records), self.settings.epochs)
            making.keep(len(self.records), self._kept)

    def diverged(self, what: str) -> ValueError:
        """The error for numbers that are none."""
        return diverged(what, len(self.records) + 1, self.settings.learning_rate)

    def _kept(self) -> dict[str, Any]:
        network, optimizer = self.network.state_dict(), self.optimizer.state_dict()
        return {"network": network, "optimizer": optimizer, "records": self.records}

    def _epoch(self, epoch: int) -> dict[str, float]:
        begun, settings = time.perf_counter(), self.settings
        first = epoch * settings.steps
        rng, items = stream(self.seed, "order", epoch), settings.steps * settings.batch_size
        orders = [_shuffled(rng, len(part), items) for part in (self.source.labels, self.pool)]
        batches = zip(*(order.split(settings.batch_size) for order in orders), strict=True)
        self.network.train()
        sums = torch.zeros(3, device=self.device, dtype=torch.float64)
        with seeded(rng, self.device):
            for step, (ours, theirs) in enumerate(batches, first):
                sums += self._step(step, ours, theirs)
        # read once an epoch: a read in each step would make the GPU wait
        loss, apart, right = (sums.cpu() / torch.tensor([settings.steps, settings.steps, items])).tolist()
        if not math.isfinite(loss + apart):
            raise self.diverged(f"loss {loss} and discrepancy {apart}")
        return {
            "epoch": float(epoch + 1),
            "seconds": time.perf_counter() - begun,
            "source_loss": loss,
            "source_accuracy": right,
            "discrepancy": apart,
            "rate": settings.rate(first),
            "reversal": settings.coefficient(first),
        }

    def _step(self, step: int, ours: Tensor, theirs: Tensor) -> Tensor:
        """One step on these rows of source and pool: cross-entropy, discrepancy, and how many are right."""
        settings, network = self.settings, self.network
        x = torch.cat([self.source.inputs.take(ours), self.pool.inputs.take(theirs)])
        y = self.labels[ours.to(self.device)]
        with precision(self.device, settings.mixed_precision):
            logits, told = network(x, settings.coefficient(step))
        loss = functional.cross_entropy(logits[: len(y)], y)
        apart = discrepancy(settings.divergence, told[: len(y)], told[len(y) :])
        for group, factor in zip(self.optimizer.param_groups, (settings.backbone_rate, 1.0), strict=True):
            group["lr"] = factor * settings.rate(step)
        self.optimizer.zero_grad()
        (loss - settings.weight * apart).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        self.optimizer.step()
        right = (logits[: len(y)].argmax(1) == y).sum()
        return torch.stack([loss.detach().double(), apart.detach().double(), right.double()])


def _shuffled(rng: np.random.Generator, count: int, items: int) -> Tensor:
    """Rows of `count` for so many items: all of them in random order, then all again in another."""
    passes = [rng.permutation(count) for _ in range(-(-items // count))]
    return torch.from_numpy(np.concatenate(passes)[:items])


def _tell(records: list[dict[str, float]]) -> dict[str, float]:
    """Says how training went, with a warning about a bad one; the facts to be listed."""
    last = records[-1]
    log.info(
        "encoder: after %d epochs %.1f %% of the source's items are known, discrepancy from the pool %.3g",
        *(len(records), 100 * last["source_accuracy"], last["discrepancy"]),
    )
    if last["source_accuracy"] < LEARNED:
        log.warning(
            "the encoder has hardly learned the source's classes (%.1f %% right); raise featurizer.epochs or "
            "featurizer.learning_rate, or lower featurizer.weight",
            100 * last["source_accuracy"],
        )
    return {name: last[name] for name in ("source_loss", "source_accuracy", "discrepancy")}
