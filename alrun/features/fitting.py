"""Training of a network on a whole pool without labels, epoch by epoch."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from alrun.cache import Making
from alrun.pool import Inputs, stream
from alrun.training.seeding import precision, seeded

Sums = Mapping[str, Tensor]
Record = dict[str, float]


@dataclass(frozen=True)
class Course:
    """How long and how fast a network is trained: by Adam, on mini-batches shuffled anew each epoch.

    Attributes:
        epochs: at most so many. patience: epochs without a lower loss after which training ends; null runs
            all.
        sizes: items of each mini-batch of an epoch; what is left of the pool waits for another shuffle.
        rate: of the first step. final_rate: of the last one; between them it falls as half a cosine.
        mixed_precision: bfloat16 where a GPU trains.
    """

    epochs: int
    patience: int | None
    sizes: list[int]
    rate: float
    final_rate: float
    mixed_precision: bool

    @classmethod
    def steady(
        cls, epochs: int, patience: int | None, sizes: list[int], rate: float, mixed_precision: bool
    ) -> "Course":
        """A course at one rate throughout."""
        return cls(epochs, patience, sizes, rate, rate, mixed_precision)

    def rate_at(self, share: float) -> float:
        """The rate when this share of all steps is done."""
        return self.final_rate + (self.rate - self.final_rate) * 0.5 * (1 + math.cos(math.pi * share))


@runtime_checkable
class Task(Protocol):
    """What is learned.

    Attributes:
        network: what is trained.
        keeps_best: whether the weights of the epoch with the lowest loss are kept, and not the last ones.
    """

    network: nn.Module
    keeps_best: bool

    def step(self, x: Tensor) -> tuple[Tensor, Sums]:
        """The loss of stored items, and what is summed over an epoch; torch's generator is seeded."""
        ...

    def record(self, sums: Sums, items: int) -> Record:
        """What an epoch's table line says of these sums over so many items, the mean `loss` among it."""
        ...


def diverged(what: str, epoch: int, rate: float) -> ValueError:
    """The error for numbers that are none, in this epoch counted from 1."""
    return ValueError(
        f"training an encoder must stay finite, got {what} in epoch {epoch} at learning rate {rate:g}; lower "
        "featurizer.learning_rate"
    )


class Fit:
    """One training under way: a task, its optimizer, a record an epoch, and the best weights so far.

    All chance is drawn by epoch, so that a training continued after a kill gives the same bits.
    """

    def __init__(self, course: Course, task: Task, inputs: Inputs, seed: int) -> None:
        self.course, self.task, self.inputs, self.seed = course, task, inputs, seed
        self.optimizer = torch.optim.Adam(task.network.parameters(), course.rate, fused=True)
        self.state: dict[str, Any] = {"best": math.inf, "stale": 0, "weights": None}
        self.records: list[Record] = []

    def run(self, making: Making) -> None:
        """All epochs, or those that are left since `making` kept a state; the network ends trained.

        Raises:
            ValueError: a loss that is not finite.
        """
        if (saved := making.load()) is not None:
            self.task.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.state, self.records = dict(saved["state"]), list(saved["records"])
        course = self.course
        while len(self.records) < course.epochs and self.state["stale"] < (course.patience or math.inf):
            self.records.append(self._epoch(len(self.records)))
            self._watch(self.records[-1]["loss"])
            making.epoch(len(self.records), course.epochs)
            making.keep(len(self.records), self._kept)
        if self.task.keeps_best:
            self.task.network.load_state_dict(self.state["weights"])

    def diverged(self, what: str) -> ValueError:
        """The error for numbers that are none."""
        return diverged(what, len(self.records) + 1, self.course.rate)

    def _kept(self) -> dict[str, Any]:
        network, optimizer = self.task.network.state_dict(), self.optimizer.state_dict()
        return {"network": network, "optimizer": optimizer, "state": self.state, "records": self.records}

    def _epoch(self, epoch: int) -> Record:
        begun = time.perf_counter()
        sizes, device = self.course.sizes, self.inputs.device
        rng, items = stream(self.seed, "order", epoch), sum(sizes)
        order = torch.from_numpy(rng.permutation(len(self.inputs))[:items]).to(device)
        self.task.network.train()
        sums: dict[str, Tensor] = {}
        with seeded(rng, device):
            for done, rows in enumerate(order.split(sizes)):
                self._set_rate((epoch + done / len(sizes)) / self.course.epochs)
                for name, value in self._step(rows).items():
                    sums[name] = sums.get(name, 0) + value.detach().double()
        # read once an epoch: a read in each step would make the GPU wait
        record = self.task.record({name: value.cpu() for name, value in sums.items()}, items)
        if not math.isfinite(record["loss"]):
            raise self.diverged(f"loss {record['loss']}")
        seconds = time.perf_counter() - begun
        return {
            "epoch": float(epoch + 1),
            "seconds": seconds,
            "images_per_second": items / seconds,
            "rate": self.course.rate_at(epoch / self.course.epochs),
            **record,
        }

    def _set_rate(self, share: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.course.rate_at(share)

    def _step(self, rows: Tensor) -> Sums:
        with precision(self.inputs.device, self.course.mixed_precision):
            loss, sums = self.task.step(self.inputs.take(rows))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return sums

    def _watch(self, loss: float) -> None:
        if loss >= self.state["best"]:
            self.state["stale"] += 1
            return
        self.state |= {"best": loss, "stale": 0}
        if self.task.keeps_best:
            weights = self.task.network.state_dict().items()
            self.state["weights"] = {name: value.clone() for name, value in weights}
