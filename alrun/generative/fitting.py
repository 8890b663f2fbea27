"""Training of a generator and its critic, iteration by iteration."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor, nn

from alrun.cache import Making
from alrun.generative.generator import scale
from alrun.generative.networks import Pair
from alrun.generative.objectives import Objective
from alrun.generative.witness import Witness, is_stage, shown
from alrun.models.network import Adapt, channels_first
from alrun.pool import Inputs, stream
from alrun.training.seeding import precision, seeded

BLOCK = 20  # iterations between reads from the device, records and chances to be kept
SETTLING = 32  # batches

Record = dict[str, float]


@dataclass(frozen=True)
class Course:
    """How long and how fast a pair is trained: by Adam, on shuffled passes through the pool.

    Attributes:
        iterations: steps of the generator, each after `critic_steps` of the critic.
        batch: real images, and generated ones, of a critic's step. generator_batch: of a generator's.
        rate: of both at first. falls: whether it falls linearly to 0. betas: of Adam.
        mixed_precision: bfloat16 where a GPU trains.
    """

    iterations: int
    critic_steps: int
    batch: int
    generator_batch: int
    rate: float
    falls: bool
    betas: tuple[float, float]
    mixed_precision: bool

    def rate_at(self, iteration: int) -> float:
        """The rate of this iteration, from 0."""
        return self.rate * (1 - iteration / self.iterations) if self.falls else self.rate


class Fit:
    """One training under way: a pair, its optimizers, a record a block of iterations.

    All chance is drawn by block, so that a training continued after a kill gives the same bits.
    """

    def __init__(
        self, course: Course, objective: Objective, pair: Pair, inputs: Inputs, *, latent: int, seed: int
    ) -> None:
        self.course, self.objective, self.inputs = course, objective, inputs
        self.latent, self.seed, self.passes = latent, seed, Passes(seed, len(inputs))
        device, channels = inputs.device, channels_first(inputs.shape)
        self.pair = pair
        self.adapt = Adapt(inputs.shape, scale(pair.darkest, channels[0]), channels).to(device)
        for network in (pair.generator, pair.critic):
            network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizers = [
            torch.optim.Adam(network.parameters(), course.rate, course.betas, fused=True)
            for network in (pair.generator, pair.critic)
        ]
        self.witness = Witness.of(inputs, latent, seed)
        self.records: list[Record] = []
        self.stages: dict[int, Tensor] = {}

    def run(self, making: Making) -> None:
        """All iterations, or those that are left since `making` kept a state; BatchNorm is settled then.

        Raises:
            ValueError: a loss that is not finite.
        """
        if (saved := making.load()) is not None:
            self._restore(saved)
        total = self.course.iterations
        while (done := self._done) < total:
            self.records.append(self._watched(done, min(done + BLOCK, total)))
            making.epoch(self._done, total)
            making.keep(self._done, self._kept)
        self._settle()

    @property
    def _done(self) -> int:
        return int(self.records[-1]["iteration"]) if self.records else 0

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        names = ("generator", "critic", "generator_optimizer", "critic_optimizer")
        return dict(zip(names, (self.pair.generator, self.pair.critic, *self.optimizers), strict=True))

    def _kept(self) -> dict[str, Any]:
        states = {name: part.state_dict() for name, part in self._parts().items()}
        return {**states, "records": self.records, "stages": self.stages}

    def _restore(self, saved: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self.records, self.stages = list(saved["records"]), dict(saved["stages"])

    def _watched(self, start: int, stop: int) -> Record:
        """The record of these iterations, with what the generator draws after them."""
        record = self._block(start, stop)
        drawn = self.witness.drawn(self.pair)
        if is_stage(start, stop, self.course.iterations):
            self.stages[stop] = shown(drawn)
        return {**record, **self.witness.variety(drawn).numbers}

    def _settle(self) -> None:
        """Gives BatchNorm the mean statistics of many batches; in training they follow the last few."""
        layers = [
            each
            for each in self.pair.generator.modules()
            if isinstance(each, nn.modules.batchnorm._BatchNorm)
        ]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        with seeded(stream(self.seed, "settled"), self.inputs.device), torch.no_grad():
            for _ in range(SETTLING if layers else 0):
                self.pair.generator(self._latents(self.course.generator_batch))

    def _block(self, start: int, stop: int) -> Record:
        begun, sums = time.perf_counter(), dict[str, Tensor]()
        device = self.inputs.device
        with seeded(stream(self.seed, "order", start), device):
            rows = self._rows(start, stop)
            for iteration in range(start, stop):
                self._set_rate(self.course.rate_at(iteration))
                for _ in range(self.course.critic_steps):
                    _add(sums, self.critic_step(next(rows)))
                _add(sums, self.generator_step())
        # read once a block: a read in each step would make the GPU wait
        means = {name: float(value) / (stop - start) for name, value in sums.items()}
        for name in means:
            means[name] /= 1 if name == "generator" else self.course.critic_steps
        if not all(math.isfinite(value) for value in means.values()):
            raise self.diverged(", ".join(f"{name} {value:g}" for name, value in means.items()))
        seconds = time.perf_counter() - begun
        return {"iteration": float(stop), "seconds": seconds, "rate": self.course.rate_at(start), **means}

    def diverged(self, what: str) -> ValueError:
        """The error for numbers that are none."""
        return ValueError(
            f"training a generator must stay finite, got {what} after iteration {self._done} at learning "
            f"rate {self.course.rate:g}; lower generator.learning_rate"
        )

    def _set_rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _rows(self, start: int, stop: int) -> Iterator[Tensor]:
        """The rows of each critic's step of these iterations."""
        size, steps = self.course.batch, self.course.critic_steps
        rows = self.passes.rows(start * steps * size, stop * steps * size)
        return iter(torch.from_numpy(rows).to(self.inputs.device).split(size))

    def critic_step(self, rows: Tensor) -> dict[str, Tensor]:
        """One step of the critic on these rows; what its loss consists of, on the device."""
        with precision(self.inputs.device, self.course.mixed_precision):
            with torch.no_grad():
                fake = self.pair.generator(self._latents(len(rows))).float()
            real = self.adapt(self.inputs.take(rows)).contiguous(memory_format=torch.channels_last)
            loss, terms = self.objective.of_critic(self.pair.critic, real, fake)
        self._step(1, loss)
        return {name: value.detach() for name, value in terms.items()}

    def generator_step(self) -> dict[str, Tensor]:
        """One step of the generator; its loss, on the device."""
        self.pair.critic.requires_grad_(False)
        with precision(self.inputs.device, self.course.mixed_precision):
            fake = self.pair.generator(self._latents(self.course.generator_batch))
            loss = self.objective.of_generator(self.pair.critic(fake.float()))
        self._step(0, loss)
        self.pair.critic.requires_grad_(True)
        return {"generator": loss.detach()}

    def _step(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()

    def _latents(self, count: int) -> Float32[Tensor, "b l"]:
        return torch.randn(count, self.latent, device=self.inputs.device)


class Passes:
    """Endless shuffled passes through `count` rows.

    The order of the pass under way is kept; it follows from the seed, so it is the same after a kill.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count
        self._under_way: tuple[int, Int64[ndarray, " n"]] = (-1, np.empty(0, np.int64))

    def rows(self, start: int, stop: int) -> Int64[ndarray, " rows"]:
        """Those at places `start` to `stop`."""
        found = []
        for number in range(start // self.count, -(-stop // self.count)):
            first = number * self.count
            found.append(self._order(number)[max(0, start - first) : stop - first])
        return np.concatenate(found)

    def _order(self, number: int) -> Int64[ndarray, " n"]:
        if self._under_way[0] != number:
            self._under_way = number, stream(self.seed, "pass", number).permutation(self.count)
        return self._under_way[1]


def _add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, 0) + value.double()
