"""Features by an encoder that finds a generator's latents of images."""

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor, nn

from alrun.cache import Making
from alrun.features.encoding import features_by
from alrun.features.featurizer import Embed
from alrun.features.fitting import Course, Fit, Record, Sums
from alrun.features.keepsakes import fill_weights, keep_weights
from alrun.features.on_generator import standing_on
from alrun.features.pictures import keep_curves, keep_inversions
from alrun.generative.generator import Generator
from alrun.models.encoded import Encoder
from alrun.models.inverse import inverse
from alrun.models.trunk import Trunk
from alrun.pool import Inputs, Pool, stream
from alrun.training.parts import sizes_of
from alrun.training.seeding import seeded
from alrun.training.views import unit

log = logging.getLogger(__name__)

AS_BY_CHANCE = 0.95


@dataclass(frozen=True)
class GanInversion:
    """z(x): latents E(x) from which a generator G draws each image again, as well as one pass can find them.

    Each step shows E a mini-batch of the pool and as many images drawn from z ~ N(0, I). The loss is the mean
    over items of (1/l) ||E(G(z)) - z||^2 + `pixel_weight` (1/p) ||G(E(x)) - x||^2, l latents and p pixels in
    [0, 1]; G does not change. Latents are not refined item by item: an item met later, in a test set say,
    costs one pass.

    Attributes:
        width: channels of the encoder's first layer, see `alrun.models.inverse`.
        steps: mini-batches of an epoch, of the pool in an order of its own; null is all of them.

    Source: S4 says of ADBA (Huijser and van Gemert 2017) only that it labels in latent space. The loss of
    latents is that of Perarnau et al. 2016 (arXiv:1611.06355), that of pixels Zhu et al. 2016 (ECCV).
    """

    width: Annotated[int, Ge(1)]
    pixel_weight: Annotated[float, Ge(0)]
    epochs: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)] | None
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    mixed_precision: bool
    generator: Generator | None = None  # no setting: `on` gives it
    depends_on_model = False
    on_generator = True

    @property
    def identity(self) -> dict[str, Any]:
        """All settings; whoever binds it names the generator."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "generator"}

    def on(self, generator: Generator) -> "GanInversion":
        """The same on this generator."""
        return replace(self, generator=generator)

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n l"]:
        """Latents of all inputs; the encoder, a table of epochs and pictures are left in `making.folder`.

        All chance is drawn by epoch, so a training continued from what `making` kept gives the same bits.

        Raises:
            ValueError: no generator, one for other items, or a loss that is not finite.
        """
        del embed
        inputs, seed = pool.inputs, int(rng.integers(2**62))
        generator = standing_on(self.generator, inputs, "gan_inversion")
        with seeded(stream(seed, "weights"), inputs.device):
            trunk = self._trunk(generator, inputs)
        task = _Task(trunk, generator, self.pixel_weight)
        sizes = sizes_of(len(inputs), self.batch_size)[: self.steps]
        course = Course.steady(self.epochs, None, sizes, self.learning_rate, self.mixed_precision)
        fit = Fit(course, task, inputs, seed)
        fit.run(making)
        encoder = trunk.frozen().to(inputs.device)
        features = features_by(encoder, inputs, making, fit.diverged)
        making.facts |= _tell(fit.records)
        keep_weights(making.folder, trunk.layers)
        keep_curves(making.folder, "inversion", fit.records)
        keep_inversions(making.folder, encoder, generator, inputs, stream(seed, "pictures"))
        return features

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The encoder in the folder that `make` filled for these inputs.

        Raises:
            ValueError: no generator, or one for other items.
            OSError: its weights are not there.
        """
        generator = standing_on(self.generator, inputs, "gan_inversion")
        with torch.random.fork_rng([]):
            trunk = self._trunk(generator, inputs)
        fill_weights(folder, trunk.layers)
        return trunk.frozen().to(inputs.device)

    def _trunk(self, generator: Generator, inputs: Inputs) -> Trunk:
        return inverse(inputs.shape, inputs.moments, self.width, generator.latent)


class _Task:
    """Finds the latents of drawn images, and such as draw the pool's images again."""

    keeps_best = False

    def __init__(self, trunk: Trunk, generator: Generator, pixel_weight: float) -> None:
        self.adapt, self.generator = trunk.adapt.to(generator.device), generator
        self.network: nn.Module = trunk.layers.to(generator.device)
        self.pixel_weight = pixel_weight

    def step(self, x: Tensor) -> tuple[Tensor, Sums]:
        """The mean loss of these items and as many drawn ones; sums of both errors, of latents' squares."""
        z = torch.randn(len(x), self.generator.latent, device=x.device)
        with torch.no_grad():
            drawn = self.generator.images(z)
        both = torch.cat([unit(x), unit(drawn)])
        found = self.network(self.adapt(both)).float()
        own, others = found.chunk(2)
        again = unit(self.generator.images(own))
        latents = (others - z).square().mean(1)
        pixels = (again - both[: len(x)]).square().flatten(1).mean(1)
        sums = {"latents": latents.sum(), "pixels": pixels.sum(), "spread": own.square().mean(1).sum()}
        return (latents + self.pixel_weight * pixels).mean(), sums

    def record(self, sums: Sums, items: int) -> Record:
        """Means over the items; `spread` is 1 where latents of the pool are as wide as the normal ones."""
        means = {name: float(value) / items for name, value in sums.items()}
        return {"loss": means["latents"] + self.pixel_weight * means["pixels"], **means}


def _tell(records: list[Record]) -> Record:
    """Says how training went, with a warning about an encoder that knows nothing; the facts to be listed."""
    last = records[-1]
    log.info(
        "encoder: after %d epochs squared errors of %.3g in latents (1 by chance) and %.3g in pixels; the "
        "pool's latents are %.3g times as wide as the generator's",
        *(len(records), last["latents"], last["pixels"], last["spread"] ** 0.5),
    )
    if last["latents"] > AS_BY_CHANCE:
        log.warning(
            "the encoder does not find the generator's latents: its squared error of %.3g is about that of "
            "zeros, 1; raise featurizer.epochs or featurizer.learning_rate, and look at the generator's "
            "samples",
            last["latents"],
        )
    return {"epochs": float(len(records)), "latents": last["latents"], "pixels": last["pixels"]}
