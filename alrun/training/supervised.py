"""Supervised training on the labels bought so far."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.network import Architecture, Network
from alrun.pool import Pool
from alrun.training.augment import augmented
from alrun.training.model import Model, fixed_reader, placed
from alrun.training.progress import Progress
from alrun.training.seeding import seeded

RESIDENT_BYTES = 2**30

Chance = Callable[..., np.random.Generator]


@dataclass(frozen=True)
class Supervised:
    """Mini-batch gradient descent on the bought labels.

    Attributes:
        batch_size: items a step; a last single item joins the batch before (BatchNorm cannot learn from one).
        schedule: the rate of an epoch: constant, times `decay` every `step_epochs` or at `milestones` (epochs),
            or cosine to zero.
        loss: cross-entropy, or the multi-class hinge loss; probabilities are the softmax of the scores in both.
        patience: epochs without a lower loss after which the fit ends, with the best weights; null runs all.
        validation: share of the bought labels that is held out to watch the loss; 0 watches the training loss.
        crop: pixels of a random crop's zero border. flip: mirror left-right by chance.
        start: weights drawn anew, or those of the round before.
        mixed_precision: bfloat16 where a GPU computes; a CPU always uses float32.
    """

    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(1)]
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    weight_decay: Annotated[float, Ge(0)]
    schedule: Literal["constant", "step", "milestones", "cosine"]
    step_epochs: Annotated[int, Ge(1)]
    milestones: list[Annotated[int, Ge(1)]]
    decay: Annotated[float, Gt(0), Le(1)]
    loss: Literal["cross_entropy", "hinge"]
    patience: Annotated[int, Ge(1)] | None
    validation: Annotated[float, Ge(0), Lt(1)]
    crop: Annotated[int, Ge(0)]
    flip: bool
    start: Literal["fresh", "previous"]
    mixed_precision: bool

    def fit(
        self,
        architecture: Architecture,
        pool: Pool,
        *,
        chance: Chance,
        start: Model | None,
        progress: Progress,
    ) -> Model:
        """A model of the pool's bought labels.

        `chance(branch, *names)` gives generators (`weights`, and `order` for each epoch); `start` is the model
        of the round before, which is never changed.

        Raises:
            ValueError: no label yet, augmentation of what cannot be augmented, or a loss that is not finite.
        """
        if len(pool.labeled) == 0:
            raise ValueError("a fit needs labels and none was bought; raise budget.initial")
        device = pool.inputs.device
        with seeded(chance("weights"), device):
            network = architecture.build(pool.inputs.shape, pool.inputs.moments, pool.classes)
        network = placed(network, device)
        if self.start == "previous" and start is not None:
            network.load_state_dict(start.network.state_dict())
        if network.is_frozen and (self.crop or self.flip):
            raise ValueError("trainer.crop and flip cannot act on kept outputs; use model.freeze=false")
        held = self._held_out(pool.labeled, chance)
        fit = _Fit(self, network, pool, np.setdiff1d(pool.labeled, held), held)
        return Model(network.eval(), pool.inputs, fit.run(chance, progress))

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "step":
            return self.learning_rate * self.decay ** (epoch // self.step_epochs)
        if self.schedule == "milestones":
            return self.learning_rate * self.decay ** sum(epoch >= stone for stone in self.milestones)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.learning_rate

    def _held_out(self, labeled: ndarray, chance: Chance) -> ndarray:
        count = min(round(self.validation * len(labeled)), len(labeled) - 1)
        return np.sort(chance("order", "validation").permutation(labeled)[:count])

    def _optimizer(self, network: Network) -> torch.optim.Optimizer:
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        rate, decay = self.learning_rate, self.weight_decay
        # fused: one call a step for all weights, twice as fast as a loop on small networks
        if self.optimizer == "sgd":
            return torch.optim.SGD(weights, rate, self.momentum, weight_decay=decay, fused=True)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(weights, rate, weight_decay=decay, fused=True)


class _Fit:
    """One fit under way: network, optimizer, and the best weights so far."""

    def __init__(
        self, settings: Supervised, network: Network, pool: Pool, rows: ndarray, held: ndarray
    ) -> None:
        self.settings, self.network, self.device = settings, network, pool.inputs.device
        self.optimizer = settings._optimizer(network)
        self.criterion = nn.CrossEntropyLoss() if settings.loss == "cross_entropy" else nn.MultiMarginLoss()
        self.norms = [
            module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self.train = _Items(settings, network, pool, rows)
        self.held = _Items(settings, network, pool, held) if len(held) else None
        self.state: dict[str, Any] = {"epoch": 0, "images": 0, "loss": math.nan}
        self.state |= {"best": math.inf, "stale": 0, "weights": None}

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit."""
        if (saved := progress.load()) is not None:
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.state = saved["state"]
        state, settings = self.state, self.settings
        while state["epoch"] < settings.epochs and state["stale"] < (settings.patience or math.inf):
            self._epoch(state["epoch"], chance)
            state["epoch"] += 1
            progress.epoch(state["epoch"], settings.epochs)
            progress.keep(state["epoch"], self._kept)
        if state["weights"] is not None:
            self.network.load_state_dict(state["weights"])
        return {
            "train_loss": state["loss"],
            "train_epochs": float(state["epoch"]),
            "train_images": float(state["images"]),
        }

    def _kept(self) -> dict[str, Any]:
        network, optimizer = self.network.state_dict(), self.optimizer.state_dict()
        return {"network": network, "optimizer": optimizer, "state": self.state}

    def _epoch(self, epoch: int, chance: Chance) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(epoch)
        rng = chance("order", epoch)
        order = torch.from_numpy(rng.permutation(len(self.train))).to(self.device)
        self.network.train()
        with seeded(rng, self.device):
            total = torch.zeros((), device=self.device)
            for x, y in self.train.batches(order):
                total += self._step(x, y).detach() * len(y)
        loss = float(total) / len(order)
        if not math.isfinite(loss):
            raise ValueError(
                f"training diverged: loss {loss} in epoch {epoch + 1} at learning rate "
                f"{self.settings.rate(epoch):g}; lower trainer.learning_rate"
            )
        self.state["loss"] = loss
        self.state["images"] += len(order)
        if self.settings.patience is not None:
            self._watch(loss if self.held is None else self._held_loss(self.held))

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        if len(y) == 1:
            for norm in self.norms:
                norm.eval()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._mixed):
            loss = self.criterion(self.network.trainable(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    @property
    def _mixed(self) -> bool:
        return self.settings.mixed_precision and self.device.type == "cuda"

    def _watch(self, loss: float) -> None:
        if loss < self.state["best"]:
            weights = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.state |= {"best": loss, "stale": 0, "weights": weights}
        else:
            self.state["stale"] += 1

    def _held_loss(self, held: "_Items") -> float:
        self.network.eval()
        with torch.no_grad():
            losses = [self.criterion(self.network.trainable(x), y) * len(y) for x, y in held.plain_batches()]
        return float(sum(losses)) / len(held)


class _Items:
    """Labeled items as the trainable part of the network receives them, batch by batch."""

    def __init__(self, settings: Supervised, network: Network, pool: Pool, rows: ndarray) -> None:
        self.settings, self.network, self.inputs, self.rows = settings, network, pool.inputs, rows
        self.labels = torch.from_numpy(pool.labels[rows]).to(pool.inputs.device)
        self.augments = bool(settings.crop or settings.flip)
        self.read = fixed_reader(network, pool.inputs)
        # Small sets are adapted once, so that a step is one gather and the trainable layers.
        fits = 4 * math.prod(pool.inputs.shape) * len(rows) <= RESIDENT_BYTES
        self.kept = self.read(rows) if fits and not self.augments else None

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, order: Tensor) -> list[tuple[Tensor, Tensor]] | Any:
        """Training batches in this order of positions, augmented where asked."""
        sizes = _sizes(len(order), self.settings.batch_size)
        if self.kept is not None:
            return zip(self.kept[order].split(sizes), self.labels[order].split(sizes), strict=True)
        return ((self._read(part), self.labels[part]) for part in order.split(sizes))

    def plain_batches(self) -> Any:
        """All items in order, never augmented."""
        order = torch.arange(len(self), device=self.labels.device)
        parts = order.split(max(self.settings.batch_size, 256))
        return ((self.read(self.rows[part.cpu().numpy()]), self.labels[part]) for part in parts)

    def _read(self, part: Tensor) -> Tensor:
        rows = self.rows[part.cpu().numpy()]
        if not self.augments:
            return self.read(rows)
        images = augmented(self.inputs.take(rows), self.settings.crop, self.settings.flip)
        return self.network.fixed(images)


def _sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of mini-batches; a last single item joins the batch before."""
    sizes = [batch_size] * (count // batch_size) + ([count % batch_size] if count % batch_size else [])
    if len(sizes) > 1 and sizes[-1] == 1 and batch_size > 1:
        sizes[-2:] = [batch_size + 1]
    return sizes
