"""One fit of a network to labeled items, epoch by epoch."""

import math
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.network import Network
from alrun.pool import Pool
from alrun.training.augment import UNTOUCHED
from alrun.training.batches import Batches, flattened
from alrun.training.losses import criterion_of
from alrun.training.model import Model
from alrun.training.parts import sizes_of
from alrun.training.progress import Progress, Sight
from alrun.training.recipe import Recipe, optimizer_of
from alrun.training.seeding import precision, seeded
from alrun.training.trainer import Chance

HELD_ITEMS = 256


class Fit:
    """One fit under way: network, optimizer, further outputs, and the best weights so far."""

    def __init__(
        self,
        settings: Recipe,
        network: Network,
        pool: Pool,
        rows: ndarray,
        held: ndarray,
        beside: nn.Module | None = None,
    ) -> None:
        """Before its first epoch; `beside` learns with the network, by the same optimizer."""
        self.settings, self.network, self.pool = settings, network, pool
        self.device, self.heads, self.norms = pool.inputs.device, nn.ModuleDict(), norms_of(network)
        if self.norms and settings.batch_size == 1 and len(rows) > 1:
            raise ValueError(
                "BatchNorm cannot learn from one item at a time, got trainer.batch_size 1; use 2 or more, "
                "or a model without BatchNorm"
            )
        parts = [network] if beside is None else [network, beside]
        self.trained = [each for part in parts for each in part.parameters() if each.requires_grad]
        # on a GPU flat weights would lose channels_last, and a fused step is one call anyway
        self.weights = self.trained if self.device.type == "cuda" else [flattened(self.trained)]
        self.optimizer = optimizer_of(settings, self.weights)
        self.criterion = criterion_of(settings.loss, "mean")
        self.train = Batches(network, pool, rows, settings.augmentation)
        self.held = Batches(network, pool, held, UNTOUCHED) if len(held) else None
        self.state: dict[str, Any] = {"epoch": 0, "images": 0, "loss": math.nan}
        self.state |= {"best": math.inf, "stale": 0, "weights": None}
        self.seconds = 0.0

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit."""
        if (saved := progress.load()) is not None:
            for name, part in self.parts().items():
                part.load_state_dict(saved[name])
            self.state = dict(saved["state"])
        state = self.state
        while not self.is_over:
            began = perf_counter()
            self._epoch(state["epoch"], chance)
            state["epoch"] += 1
            self.seconds = perf_counter() - began
            self.follow_up(chance)
            progress.epoch(state["epoch"], self.total)
            progress.watch(self.sight())
            progress.keep(state["epoch"], self._kept)
        self.take_best()
        if not all(bool(weight.isfinite().all()) for weight in self.weights):
            raise self._diverged("weights that are no numbers")
        self.network.zero_grad(set_to_none=True)
        for weight in self.trained:
            # out of the flat vector: a restored network lies in memory the same way, and gives the same bits
            weight.data = weight.data.clone()
        return {
            "train_loss": state["loss"],
            "train_epochs": float(state["epoch"]),
            "train_images": float(state["images"]),
        }

    @property
    def total(self) -> int:
        """Epochs of the fit, where patience does not end it earlier."""
        return self.settings.epochs

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left."""
        return self.state["epoch"] >= self.settings.epochs or self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether patience has ended it."""
        return self.state["stale"] >= (self.settings.patience or math.inf)

    def follow_up(self, chance: Chance) -> None:
        """What follows an epoch before it is shown and kept."""

    def sight(self) -> Sight:
        """The epoch that just ended, as others see it."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        numbers = {"loss": self.state["loss"], "learning_rate": rate, "train_seconds": self.seconds}
        return Sight("supervised", self.state["epoch"], numbers, None, self.model)

    def model(self) -> Model:
        """The model as it stands, without facts."""
        return Model(self.network.eval(), self.pool.inputs, {}, self.heads)

    def take_best(self) -> None:
        """Goes back to the best weights, where patience watches for them."""
        if self.state["weights"] is not None:
            self.network.load_state_dict(self.state["weights"])

    def parts(self) -> dict[str, Any]:
        """What has a state_dict to be kept and loaded, by name."""
        return {"network": self.network, "optimizer": self.optimizer}

    def steps(self, rng: np.random.Generator) -> tuple[list[Tensor], list[int]]:
        """The steps of one epoch; the loss before each, and its items."""
        order, losses, sizes = rng.permutation(len(self.train)), [], []
        count = len(sizes_of(len(order), self.settings.batch_size))
        with seeded(rng, self.device):
            for x, y in self.train.each(order, self.settings.batch_size):
                self.pace(len(losses) / count)
                losses.append(self._step(x, y))
                sizes.append(len(y))
        return losses, sizes

    def pace(self, share: float) -> None:
        """Sets the rate of the step that has this share of its epoch behind it."""
        if share and self.settings.renewed == "epoch":
            return
        rate = self.rate(share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def rate(self, share: float) -> float:
        """The learning rate when this share of the epoch under way is over."""
        return self.settings.rate(self.state["epoch"] + share)

    def costs(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of these items, and what a step descends: that loss, and more where more is learned."""
        loss = self.criterion(self.network.trainable(x).float(), y)
        return loss, loss

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
        self.pace(0.0)
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
            loss, whole = self.costs(x, y)
        self.descend(whole)
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
        epoch, rate = min(self.state["epoch"] + 1, self.total), self.optimizer.param_groups[0]["lr"]
        return ValueError(
            f"training must stay finite, got {what} in epoch {epoch} at learning rate {rate:g}; "
            "lower trainer.learning_rate, or look for NaN in the inputs"
        )


def norms_of(network: Network) -> list[nn.Module]:
    """The trained BatchNorm layers, which in training mode cannot read a single item."""
    kind = nn.modules.batchnorm._BatchNorm
    return [part for part in network.body.modules() if isinstance(part, kind)]
