"""A generator and how it is trained, once and without labels, on the whole pool."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt

from alrun.cache import Making
from alrun.data.data import array_digest
from alrun.files import atomic
from alrun.generative.fitting import Course, Fit
from alrun.generative.generator import Generator
from alrun.generative.networks import Networks, Pair, drawable
from alrun.generative.objectives import Objective, Wasserstein
from alrun.generative.pictures import keep_losses, keep_samples, keep_stages, keep_variety
from alrun.generative.variety import Variety
from alrun.generative.witness import as_array
from alrun.models.coder import extremes
from alrun.pool import Inputs, stream
from alrun.training.seeding import seeded
from alrun.training.trial import LONG

log = logging.getLogger(__name__)

SAMPLES = 108
LEAST_SPREAD, LEAST_REACH = 0.5, 0.3  # below one of them a generator is called collapsed

Rate = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class Gan:
    """A generator and a critic that learn against each other, without labels (S4, appendix A and table 3).

    Attributes:
        iterations: steps of the generator, each after `critic_steps` of the critic.
        batch_size: real images, and generated ones, of a critic's step. generator_batch: of a generator's.
        learning_rate, beta1, beta2: of Adam, for both. falls: whether the rate falls linearly to 0.
    """

    networks: Networks
    objective: Objective
    iterations: Annotated[int, Ge(1)]
    critic_steps: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(2)]
    generator_batch: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    beta1: Rate
    beta2: Rate
    falls: bool
    mixed_precision: bool

    def __post_init__(self) -> None:
        """Refuses a consistency term that is 0 whatever the critic does.

        Raises:
            ValueError: a weight of the consistency term for a critic without dropout.
        """
        weighed = isinstance(self.objective, Wasserstein) and self.objective.consistency > 0
        if weighed and not self.networks.has_dropout:
            raise ValueError(
                "objective.consistency compares two passes that differ by dropout, and the critic has none; "
                "set generator.networks.dropout above 0, or generator.objective.consistency=0"
            )

    @property
    def latent(self) -> int:
        """Numbers an image is made from."""
        return self.networks.latent

    def make(self, inputs: Inputs, rng: np.random.Generator, making: Making) -> None:
        """Trains on all inputs, or goes on from what `making` kept; networks and pictures go to its folder.

        Raises:
            ValueError: no images in [0, 1] of a size it can draw, or a loss that is not finite.
        """
        fit = self._begun(inputs, int(rng.integers(2**62)))
        fit.run(making)
        drawn = fit.witness.drawn(fit.pair)
        if not torch.isfinite(drawn).all():
            raise fit.diverged("images that are no numbers")
        found = fit.witness.variety(drawn)
        making.facts |= {"digest": _digest(fit.pair), "iterations": self.iterations, **_tell(found)}
        with atomic(making.folder / "generator.pt") as part:
            torch.save({name: _on_cpu(getattr(fit.pair, name)) for name in ("generator", "critic")}, part)
        keep_losses(making.folder, fit.records)
        keep_samples(making.folder, as_array(fit.witness.others), as_array(drawn[:SAMPLES]))
        keep_stages(making.folder, {done: as_array(images) for done, images in fit.stages.items()})
        keep_variety(making.folder, found)

    def load(self, folder: Path, inputs: Inputs) -> Generator:
        """The generator in the folder that `make` filled for these inputs, on their device.

        Raises:
            OSError: its weights are not there.
        """
        kept = torch.load(folder / "generator.pt", map_location="cpu", weights_only=True)
        with torch.random.fork_rng([]):
            pair = self.networks.build(inputs.shape)
        pair.generator.load_state_dict(kept["generator"])
        pair.critic.load_state_dict(kept["critic"])
        return Generator.of(pair, self.latent, inputs.shape, inputs.device)

    def untrained(self, inputs: Inputs) -> Generator:
        """A generator of the same size that has learned nothing; torch's current generator is drawn from."""
        return Generator.of(self.networks.build(inputs.shape), self.latent, inputs.shape, inputs.device)

    def seconds(self, inputs: Inputs) -> float:
        """What training on such inputs may take here, from a step of each network or two.

        Raises:
            ValueError: no images in [0, 1] of a size it can draw.
        """
        fit = self._begun(Inputs(inputs.array[: self.batch_size], inputs.device), 0)
        rows = torch.arange(self.batch_size, device=inputs.device) % len(fit.inputs)
        with seeded(stream(0, "forecast"), inputs.device):
            critic = _seconds_of(lambda: fit.critic_step(rows))
            generator = _seconds_of(fit.generator_step)
        return self.iterations * (self.critic_steps * critic + generator)

    def _begun(self, inputs: Inputs, seed: int) -> Fit:
        require_unit_images(inputs)
        with seeded(stream(seed, "weights"), inputs.device):
            pair = self.networks.build(inputs.shape)
        course = Course(
            self.iterations,
            self.critic_steps,
            self.batch_size,
            self.generator_batch,
            self.learning_rate,
            self.falls,
            (self.beta1, self.beta2),
            self.mixed_precision,
        )
        return Fit(course, self.objective, pair, inputs, latent=self.latent, seed=seed)


def require_unit_images(inputs: Inputs) -> None:
    """Refuses what a generator cannot draw, and pixels outside [0, 1] (uint8 counts as value / 255).

    Raises:
        ValueError: other items, or numbers that are not finite.
    """
    drawable(inputs.shape)
    low, high = extremes(inputs)
    if low < 0 or high > 1:
        raise ValueError(
            f"generators draw pixels in [0, 1], got numbers from {low:g} to {high:g}; store uint8, or floats "
            "scaled to [0, 1]"
        )


def _seconds_of(step: Callable[[], object]) -> float:
    """Seconds of a step after a first one that warms up, unless that alone is long."""
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
        if seconds > LONG:
            break
    return seconds


def _tell(found: Variety) -> dict[str, float]:
    """Says how training went, with a warning about a collapsed generator; the facts to be listed."""
    numbers = found.numbers
    log.info(
        "generator: spread %.3g, nearness %.3g, reach %.3g beside the pool's images (1 is as they are)",
        *(numbers["spread"], numbers["nearness"], numbers["reach"]),
    )
    if numbers["spread"] < LEAST_SPREAD or numbers["reach"] < LEAST_REACH:
        log.warning(
            "the generator collapsed or learned little: its images are %.2g times as far apart as the pool's "
            "(at least %g) and come near %.2g times as many of them (at least %g); see diversity.png, and "
            "raise generator.iterations, or choose generator=wgan_gp",
            *(numbers["spread"], LEAST_SPREAD, numbers["reach"], LEAST_REACH),
        )
    return numbers


def _on_cpu(network: torch.nn.Module) -> dict[str, Any]:
    return {name: value.cpu() for name, value in network.state_dict().items()}


def _digest(pair: Pair) -> str:
    """sha256, 64 hex digits, of both networks' weights."""
    states = (_on_cpu(pair.generator), _on_cpu(pair.critic))
    return array_digest(*(np.atleast_1d(value.numpy()) for state in states for value in state.values()))
