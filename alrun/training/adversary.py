"""A VAE and a discriminator that learn against each other which items are labeled."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, MinLen
from jaxtyping import Float32, Int64, Shaped
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from alrun.models.coder import Coding, scale_of
from alrun.models.discriminator import Discriminator, Familiarity
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, Pool
from alrun.training.batches import cycled
from alrun.training.progress import Progress
from alrun.training.seeding import precision, seeded
from alrun.training.trainer import Chance


class Plan(NamedTuple):
    """How long a fit is: its steps in all, those of an epoch (the last may have fewer), its epochs."""

    steps: int
    each: int
    epochs: int


@dataclass(frozen=True)
class Adversary:
    """The min-max game of VAAL between a VAE and a discriminator of its latent means.

    A step is `vae_steps` steps of the VAE, each on new batches, and one of the discriminator on the last of
    them. The VAE minimizes, over a labeled and an unlabeled batch, the means of squared errors + `beta` KL
    + `weight` BCE(D(mu), 1); the discriminator BCE(D(mu), 1) of the labeled and BCE(D(mu), 0) of the
    unlabeled. A batch of labeled items has at most as many as there are.

    Attributes:
        latent, architecture, width: of the VAE, see `alrun.models.coder.Coding`.
        hidden: widths of the discriminator's layers.
        epochs: of as many steps as whole batches fit into the pool, at least one.
        steps: steps in all, to make a fit shorter (or longer); null is `epochs`.
        reconstruction: whether an item's squared errors are summed over its numbers or averaged.

    Source: Sinha et al. 2019, eqs. (1) to (5); S1 appendix A. Departs from sinhasam/vaal: squared errors and
    KL are both sums over one item, averaged over the batch (there a mean and a sum over the whole batch, so
    that KL dominates); batches are full, drawn from shuffled passes joined end to end; scores are given in
    evaluation mode, so that BatchNorm makes no item's score depend on the others.
    """

    latent: Annotated[int, Ge(1)]
    architecture: Literal["auto", "cnn", "resnet18", "mlp"]
    width: Annotated[int, Ge(1)]
    hidden: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)]
    epochs: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)] | None
    batch_size: Annotated[int, Ge(1)]
    vae_steps: Annotated[int, Ge(1)]
    learning_rate: Annotated[float, Gt(0)]
    beta: Annotated[float, Ge(0)]
    weight: Annotated[float, Ge(0)]
    reconstruction: Literal["sum", "mean"]

    def plan(self, pool: Pool) -> Plan:
        """How long a fit to this pool is; nothing is fitted where nothing is left to tell apart."""
        each = max(1, len(pool) // self.batch_size)
        steps = self.steps or self.epochs * each
        return Plan(steps, each, -(-steps // each)) if len(pool.unlabeled) else Plan(0, each, 0)

    def parts(self, inputs: Inputs) -> tuple[VaeNetwork, Discriminator]:
        """Both networks for these inputs, with weights from torch's current generator."""
        scale = inputs.originals.derived("scale", lambda: scale_of(inputs.originals))
        vae = VaeNetwork(Coding(self.latent, self.architecture, self.width), inputs.shape, scale)
        discriminator = Discriminator(self.latent, self.hidden)
        # on a CPU, too, channels-last is half as fast again (VAE of width 16 on 28 x 28, one core)
        vae = vae.to(inputs.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return vae, discriminator.to(inputs.device)

    def blank(self, inputs: Inputs) -> Familiarity:
        """A head with any weights, to load a fitted one's into."""
        with torch.random.fork_rng([]):
            return _head(*self.parts(inputs))

    def fit(
        self, pool: Pool, *, mixed_precision: bool, chance: Chance, progress: Progress
    ) -> tuple[Familiarity, dict[str, float]]:
        """The head fitted to what is labeled and what is not, and the facts of the fit.

        Facts: `train_adversary_steps`, and means over the last epoch of squared errors, KL (nats) and the
        discriminator's loss (2 log 2 where it cannot tell). Where no row is unlabeled the head keeps its
        first weights.

        Raises:
            ValueError: a loss that is not finite, or inputs that are not.
        """
        fit = Game(self, pool, mixed_precision, chance)
        facts = fit.run(chance, progress)
        return _head(fit.vae, fit.discriminator).eval(), facts


class Game:
    """One fit under way: both networks, their optimizers, the losses of the last epoch."""

    def __init__(self, settings: Adversary, pool: Pool, mixed_precision: bool, chance: Chance) -> None:
        self.settings, self.pool, self.device = settings, pool, pool.inputs.device
        self.mixed = mixed_precision
        with seeded(chance("weights", "vaal"), self.device):
            self.vae, self.discriminator = settings.parts(pool.inputs)
        self.vae_optimizer = _adam(self.vae, settings.learning_rate)
        self.discriminator_optimizer = _adam(self.discriminator, settings.learning_rate)
        self.scale = torch.tensor([1.0, settings.beta, settings.weight], device=self.device)
        self.state: dict[str, Any] = {"epoch": 0, "losses": []}

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit."""
        if (saved := progress.load()) is not None:
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
            self.state = dict(saved["state"])
        plan = self.settings.plan(self.pool)
        for epoch in range(self.state["epoch"], plan.epochs):
            steps = min(plan.each, plan.steps - epoch * plan.each)
            self.state = {"epoch": epoch + 1, "losses": self._epoch(epoch, steps, chance)}
            progress.epoch(epoch + 1, plan.epochs)
            progress.keep(epoch + 1, self._kept)
        for network in (self.vae, self.discriminator):
            network.zero_grad(set_to_none=True)
        names = ("train_vae_errors", "train_vae_divergence", "train_discriminator_loss")
        facts = dict(zip(names, self.state["losses"], strict=False))
        return {"train_adversary_steps": float(plan.steps), **facts}

    def vae_step(
        self, labeled: Shaped[Tensor, " l *item"], unlabeled: Shaped[Tensor, " u *item"]
    ) -> Float32[Tensor, "3"]:
        """Moves the VAE; squared errors, KL and adversarial term before, each summed over both batches."""
        with precision(self.device, self.mixed):
            terms = self._terms(labeled) + self._terms(unlabeled)
        self.vae_optimizer.zero_grad()
        (terms @ self.scale).backward()
        self.vae_optimizer.step()
        return terms.detach()

    def discriminator_step(
        self, labeled: Shaped[Tensor, " l *item"], unlabeled: Shaped[Tensor, " u *item"]
    ) -> Float32[Tensor, ""]:
        """Moves the discriminator; its loss before, summed over both batches."""
        with precision(self.device, self.mixed):
            with torch.no_grad():
                means = [self.vae.code(x) for x in (labeled, unlabeled)]
            loss = self._told(means[0], 1.0) + self._told(means[1], 0.0)
        # the VAE's step has left gradients here, too
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.detach()

    def _terms(self, x: Tensor) -> Tensor:
        terms = self.vae.terms(x, self.settings.reconstruction)
        taken = self._told(terms.code, 1.0)
        return torch.stack([terms.reconstruction.mean(), terms.divergence.mean(), taken])

    def _told(self, mu: Tensor, target: float) -> Tensor:
        logits = self.discriminator(mu)
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def _epoch(self, epoch: int, steps: int, chance: Chance) -> list[float]:
        rng, turns = chance("order", "vaal", epoch), self.settings.vae_steps
        # to the device all at once: a copy in each step would make the GPU wait
        drawn = [
            torch.from_numpy(batches(rows, steps * turns, self.settings.batch_size, rng))
            .to(self.device)
            .reshape(steps, turns, -1)
            for rows in (self.pool.labeled, self.pool.unlabeled)
        ]
        self.vae.train()
        self.discriminator.train()
        losses = []
        with seeded(rng, self.device):
            for several in zip(*drawn, strict=True):
                losses.append(self._step(several))
        # read once an epoch: a read in each step would make the GPU wait
        means = torch.stack(losses).double().mean(0).tolist()
        if not all(math.isfinite(mean) for mean in means):
            raise ValueError(
                f"VAAL's VAE and discriminator must stay finite, got losses {means} in epoch {epoch + 1} at "
                f"learning rate {self.settings.learning_rate:g}; lower trainer.adversary.learning_rate, or "
                "look for NaN in the inputs"
            )
        return means

    def _step(self, rows: tuple[Int64[Tensor, "v l"], Int64[Tensor, "v u"]]) -> Tensor:
        """Means over both batches; `rows` are the labeled (v, l) and the unlabeled (v, u) of v turns."""
        *earlier, last = zip(*rows, strict=True)
        for turn in earlier:
            self.vae_step(*self._taken(turn))
        labeled, unlabeled = self._taken(last)
        terms = self.vae_step(labeled, unlabeled)
        told = self.discriminator_step(labeled, unlabeled)
        return torch.cat([terms[:2] / 2, told.reshape(1)])

    def _taken(self, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.pool.inputs.take(turn[0]), self.pool.inputs.take(turn[1])

    def _parts(self) -> dict[str, Any]:
        return {
            "vae": self.vae,
            "discriminator": self.discriminator,
            "vae_optimizer": self.vae_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def _kept(self) -> dict[str, Any]:
        return {**{name: part.state_dict() for name, part in self._parts().items()}, "state": self.state}


def batches(
    rows: Int64[ndarray, " m"], count: int, size: int, rng: np.random.Generator
) -> Int64[ndarray, "k b"]:
    """So many batches of `size` rows, or of all where there are fewer, from shuffled passes end to end."""
    size = min(size, len(rows))
    return cycled(rows, count * size, rng).reshape(count, size)


def _head(vae: VaeNetwork, discriminator: Discriminator) -> Familiarity:
    vae.coder.decoder = nn.Identity()  # a query decodes nothing: half the checkpoint
    return Familiarity(vae, discriminator)


def _adam(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), rate, fused=True)
