"""Supervised training on the labels bought so far."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.network import Architecture, Network
from alrun.pool import Pool
from alrun.training.batches import Batches, flattened
from alrun.training.model import Model, placed, restored
from alrun.training.progress import Progress
from alrun.training.seeding import precision, seeded
from alrun.training.trainer import Chance

# numbers; below it a plain step on flat weights is no slower than a fused one (9,800 and 9,000 a second,
# MLP 2-30-30-2), which on a busy machine also waits for threads
FUSED_FROM = 2**15
HELD_ITEMS = 256


@dataclass(frozen=True)
class Supervised:
    """Mini-batch gradient descent on the bought labels.

    Attributes:
        batch_size: items a step; a last single item joins the batch before: BatchNorm cannot learn from one
            (a labeled set of one item trains on BatchNorm's running moments).
        schedule: the rate of an epoch: constant, times `decay` every `step_epochs` or at `milestones`
            (epochs), or cosine to zero.
        loss: cross-entropy, or the multi-class hinge loss; probabilities are the softmax of the logits.
        patience: epochs without a lower loss after which the fit ends, with the best weights; null runs all.
        validation: share of the bought labels held out to watch the loss; where it rounds to none, the
            training loss is watched.
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
    heads = frozenset[str]()

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

        `chance(branch, *names)` gives generators (`weights`, and `order` for each epoch); `start` is the
        model of the round before, which is never changed.

        Raises:
            ValueError: no label yet, augmentation of items that are no images, BatchNorm with batch_size 1,
                or a loss that is not finite.
        """
        self._refuse(pool)
        device = pool.inputs.device
        with seeded(chance("weights"), device):
            network = architecture.build(pool.inputs.shape, pool.inputs.moments, pool.classes)
        network = placed(network, device)
        if self.start == "previous" and start is not None:
            network.load_state_dict(start.network.state_dict())
        held = self._held_out(pool.labeled, chance)
        fit = self.begun(network, pool, np.setdiff1d(pool.labeled, held), held, chance)
        facts = fit.run(chance, progress)
        return Model(network.eval(), pool.inputs, facts, fit.heads)

    def begun(self, network: Network, pool: Pool, rows: ndarray, held: ndarray, chance: Chance) -> "Fit":
        """A fit to these labeled rows before its first epoch; the loss of the rows held out may end it."""
        del chance
        return Fit(self, network, pool, rows, held)

    def restored(
        self, architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
    ) -> Model:
        """The model that these weights, a fit's, belong to."""
        return restored(architecture, pool, weights, facts)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "step":
            return self.learning_rate * self.decay ** (epoch // self.step_epochs)
        if self.schedule == "milestones":
            return self.learning_rate * self.decay ** sum(epoch >= stone for stone in self.milestones)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.learning_rate

    def _refuse(self, pool: Pool) -> None:
        if len(pool.labeled) == 0:
            raise ValueError("a fit needs labels and none was bought; raise budget.initial")
        if (self.crop or self.flip) and not pool.inputs.is_image:
            raise ValueError(
                f"trainer.crop and trainer.flip need images, got items of shape {pool.inputs.shape}; "
                "use trainer.crop=0 trainer.flip=false"
            )

    def _held_out(self, labeled: ndarray, chance: Chance) -> ndarray:
        count = min(round(self.validation * len(labeled)), len(labeled) - 1)
        return np.sort(chance("order", "validation").permutation(labeled)[:count])


class Fit:
    """One fit under way: network, optimizer, further outputs, and the best weights so far."""

    def __init__(
        self, settings: Supervised, network: Network, pool: Pool, rows: ndarray, held: ndarray
    ) -> None:
        self.settings, self.network, self.device = settings, network, pool.inputs.device
        self.heads = nn.ModuleDict()
        kind = nn.modules.batchnorm._BatchNorm
        self.norms = [part for part in network.body.modules() if isinstance(part, kind)]
        if self.norms and settings.batch_size == 1 and len(rows) > 1:
            raise ValueError(
                "BatchNorm cannot learn from one item at a time, got trainer.batch_size 1; use 2 or more, "
                "or a model without BatchNorm"
            )
        weights = _trained(network)
        # on a GPU flat weights would lose channels_last, and a fused step is one call anyway
        self.weights = weights if self.device.type == "cuda" else [flattened(weights)]
        self.optimizer = optimizer_of(settings, self.weights)
        self.criterion = nn.CrossEntropyLoss() if settings.loss == "cross_entropy" else nn.MultiMarginLoss()
        self.train = Batches(network, pool, rows, crop=settings.crop, flip=settings.flip)
        self.held = Batches(network, pool, held, crop=0, flip=False) if len(held) else None
        self.state: dict[str, Any] = {"epoch": 0, "images": 0, "loss": math.nan}
        self.state |= {"best": math.inf, "stale": 0, "weights": None}

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit."""
        if (saved := progress.load()) is not None:
            for name, part in self.parts().items():
                part.load_state_dict(saved[name])
            self.state = dict(saved["state"])
        state, settings = self.state, self.settings
        while state["epoch"] < settings.epochs and state["stale"] < (settings.patience or math.inf):
            self._epoch(state["epoch"], chance)
            state["epoch"] += 1
            progress.epoch(state["epoch"], settings.epochs)
            progress.keep(state["epoch"], self._kept)
        if state["weights"] is not None:
            self.network.load_state_dict(state["weights"])
        if not all(bool(weight.isfinite().all()) for weight in self.weights):
            raise self._diverged("weights that are no numbers")
        self.network.zero_grad(set_to_none=True)
        for weight in _trained(self.network):
            # out of the flat vector: a restored network lies in memory the same way, and gives the same bits
            weight.data = weight.data.clone()
        return {
            "train_loss": state["loss"],
            "train_epochs": float(state["epoch"]),
            "train_images": float(state["images"]),
        }

    def parts(self) -> dict[str, Any]:
        """What has a state_dict to be kept and loaded, by name."""
        return {"network": self.network, "optimizer": self.optimizer}

    def steps(self, rng: np.random.Generator) -> tuple[list[Tensor], list[int]]:
        """The steps of one epoch; the loss before each, and its items."""
        order, losses, sizes = rng.permutation(len(self.train)), [], []
        with seeded(rng, self.device):
            for x, y in self.train.each(order, self.settings.batch_size):
                losses.append(self._step(x, y))
                sizes.append(len(y))
        return losses, sizes

    def descend(self, loss: Tensor) -> None:
        """One step of the network down this loss."""
        flat = self.weights[0].grad if self.device.type != "cuda" else None
        if flat is not None:
            flat.zero_()  # the weights' gradients are views in it and must stay
        else:
            self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _kept(self) -> dict[str, Any]:
        return {**{name: part.state_dict() for name, part in self.parts().items()}, "state": self.state}

    def _epoch(self, epoch: int, chance: Chance) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(epoch)
        self.network.train()
        losses, sizes = self.steps(chance("order", epoch))
        # read once an epoch: a read in each step would make the GPU wait
        loss = float(torch.stack(losses).double().cpu() @ torch.tensor(sizes).double()) / sum(sizes)
        if not math.isfinite(loss):
            raise self._diverged(f"loss {loss}")
        self.state["loss"] = loss
        self.state["images"] += sum(sizes)
        if self.settings.patience is not None:
            self._watch(loss if self.held is None else self._held_loss(self.held))

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        if len(y) == 1:
            for norm in self.norms:
                norm.eval()
        with precision(self.device, self.settings.mixed_precision):
            loss = self.criterion(self.network.trainable(x).float(), y)
        self.descend(loss)
        return loss.detach()

    def _watch(self, loss: float) -> None:
        if loss < self.state["best"]:
            weights = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.state |= {"best": loss, "stale": 0, "weights": weights}
        else:
            self.state["stale"] += 1

    def _held_loss(self, held: Batches) -> float:
        self.network.eval()
        with torch.no_grad():
            losses = [
                self.criterion(self.network.trainable(x).float(), y).double() * len(y)
                for x, y in held.each(np.arange(len(held)), max(self.settings.batch_size, HELD_ITEMS))
            ]
        return float(torch.stack(losses).sum()) / len(held)

    def _diverged(self, what: str) -> ValueError:
        epoch = min(self.state["epoch"] + 1, self.settings.epochs)
        return ValueError(
            f"training must stay finite, got {what} in epoch {epoch} at learning rate "
            f"{self.settings.rate(epoch - 1):g}; lower trainer.learning_rate, or look for NaN in the inputs"
        )


def _trained(network: Network) -> list[nn.Parameter]:
    return [weight for weight in network.parameters() if weight.requires_grad]


def optimizer_of(settings: Supervised, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """A new optimizer of these weights."""
    rate, decay = settings.learning_rate, settings.weight_decay
    fused = weights[0].device.type == "cuda" or sum(weight.numel() for weight in weights) >= FUSED_FROM
    foreach = None if fused else False
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(
            weights, rate, momentum, weight_decay=decay, foreach=foreach, fused=fused or None
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, rate, weight_decay=decay, foreach=foreach, fused=fused or None)
