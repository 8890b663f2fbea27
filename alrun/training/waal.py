"""Training of a network against a critic of Wasserstein distances between labeled and unlabeled items."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Lt, MinLen
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.critic import Critic
from alrun.models.network import Architecture, Network
from alrun.pool import NOT_BOUGHT, Inputs, Pool
from alrun.training.adversary import Plan, batches
from alrun.training.batches import Batches
from alrun.training.fit import Fit
from alrun.training.model import HEADS, Model, restored
from alrun.training.progress import Progress, Silent
from alrun.training.recipe import optimizer_of
from alrun.training.seeding import precision, seeded
from alrun.training.supervised import Supervised
from alrun.training.trainer import Chance
from alrun.training.trial import seconds_a_step

HEAD = "critic"


@dataclass(frozen=True)
class Waal(Supervised):
    """A network trained on labels, and against a critic D that tells its features of unlabeled items.

    A step takes a labeled and an unlabeled batch; both streams are cycled to the length of the longer one.
    With g the network's features (`Network.stages`), r the number of labeled items over that of unlabeled
    ones, and gap = mean D(g(unlabeled)) - r mean D(g(labeled)), first the network descends
    loss(labeled) + alpha gap, then D, on the new features, -alpha gap + alpha penalty gp (see
    `gradient_penalty`). Where features are frozen, the gap moves no weight and only hidden layers, output and
    D learn. Both have the optimizer and the rates of these settings, from fresh weights of the critic.

    Attributes:
        epochs: passes through the longer stream; the first, where patience ends the fit earlier.
        steps: steps in all, to make a fit shorter (or longer); None is `epochs`.
        alpha, penalty: see above.
        critic_hidden, critic_dropout: widths of the critic's ReLU layers, dropout after each.
        repo_sign: whether the penalty is subtracted, so that steep gradients are rewarded.

    Where no item is unlabeled the network is trained as by `Supervised`, and the critic stays as drawn.

    Source: Shui et al. 2020, algorithm 1; cjshui/WAAL. Departs from that code: the sign of the penalty
    (`repo_sign` has theirs); its weight is that of the code's first step, where it moves nothing and is left
    out here (theirs in the second is 2); a batch has at most as many labeled items as there are, and an epoch
    whole batches only, from shuffled passes joined end to end; settings may end it early or hold out labels.
    """

    steps: Annotated[int, Ge(1)] | None
    alpha: Annotated[float, Ge(0)]
    penalty: Annotated[float, Ge(0)]
    critic_hidden: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)]
    critic_dropout: Annotated[float, Ge(0), Lt(1)]
    repo_sign: bool
    heads = frozenset({HEAD})

    def plan(self, labeled: int, unlabeled: int) -> Plan:
        """How long a fit to so many items is at most."""
        each = -(-max(labeled, unlabeled) // self.batch_size)
        steps = self.steps or self.epochs * each
        return Plan(steps, each, -(-steps // each))

    def begun(self, network: Network, pool: Pool, rows: ndarray, held: ndarray, chance: Chance) -> "Fit":
        """A fit of both to these labeled rows and all that are unlabeled, before its first epoch."""
        with seeded(chance("weights", HEAD), pool.inputs.device):
            critic = self._critic(_width(network, pool.inputs)).to(pool.inputs.device)
        if len(pool.unlabeled):
            return Game(self, network, pool, rows, held, critic)
        fit = super().begun(network, pool, rows, held, chance)
        fit.heads[HEAD] = critic
        return fit

    def restored(
        self, architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
    ) -> Model:
        """The model that these weights, a fit's, belong to."""
        with torch.random.fork_rng([]):
            critic = self._critic(weights[f"{HEADS}{HEAD}.layers.0.weight"].shape[1])
        heads = nn.ModuleDict({HEAD: critic.to(pool.inputs.device)})
        return restored(architecture, pool, weights, facts, heads)

    def seconds_beside(self, architecture: Architecture, pool: Pool, chance: Chance) -> float:
        """Seconds that a fit to this pool takes, from a few trial steps."""
        some = Inputs(pool.inputs.array[: 2 * self.batch_size], pool.inputs.device)
        labels = np.full(len(some), NOT_BOUGHT, np.int64)
        labels[: (len(some) + 1) // 2] = 0
        few = Pool(some, labels, pool.classes)

        def fit(steps: int) -> None:
            short = replace(self, steps=steps, patience=None)
            short.fit(architecture, few, chance=chance, start=None, progress=Silent())

        return seconds_a_step(fit) * self.plan(0, len(pool)).steps

    def _critic(self, width: int) -> Critic:
        return Critic(width, self.critic_hidden, self.critic_dropout)


class Game(Fit):
    """One fit under way: network and critic, their optimizers, means over the last epoch."""

    settings: Waal

    def __init__(
        self, settings: Waal, network: Network, pool: Pool, rows: ndarray, held: ndarray, critic: Critic
    ) -> None:
        self.plan = settings.plan(len(rows), len(pool.unlabeled))
        super().__init__(replace(settings, epochs=self.plan.epochs), network, pool, rows, held)
        self.extract, self.hidden = network.stages()
        self.critic = self.heads[HEAD] = critic
        self.critic_optimizer = optimizer_of(settings, list(critic.parameters()))
        self.others = Batches(network, pool, pool.unlabeled, settings.augmentation)
        self.ratio = len(rows) / len(pool.unlabeled)
        self.state |= {"critic": [], "critic_weights": None}

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit."""
        facts = super().run(chance, progress)
        if self.state["critic_weights"] is not None:
            self.critic.load_state_dict(self.state["critic_weights"])
        self.critic.zero_grad(set_to_none=True)
        steps = min(self.plan.steps, self.state["epoch"] * self.plan.each)
        means = dict(zip(("train_critic_gap", "train_critic_penalty"), self.state["critic"], strict=True))
        return {**facts, "train_critic_steps": float(steps), **means}

    def parts(self) -> dict[str, Any]:
        """What has a state_dict to be kept and loaded, by name."""
        return {**super().parts(), HEAD: self.critic, "critic_optimizer": self.critic_optimizer}

    def pace(self, share: float) -> None:
        """Sets the rate of both for the step that has this share of its epoch behind it."""
        super().pace(share)
        for group in self.critic_optimizer.param_groups:
            group["lr"] = self.optimizer.param_groups[0]["lr"]

    def steps(self, rng: np.random.Generator) -> tuple[list[Tensor], list[int]]:
        """The steps of one epoch; the loss of the labels before each, and their number."""
        epoch, size = self.state["epoch"], self.settings.batch_size
        count = min(self.plan.each, self.plan.steps - epoch * self.plan.each)
        drawn = [batches(np.arange(len(each)), count, size, rng) for each in (self.train, self.others)]
        self.critic.train()
        losses, told = [], []
        with seeded(rng, self.device):
            for labeled, unlabeled in zip(*drawn, strict=True):
                self.pace(len(losses) / count)
                (x, y), (others, _) = _taken(self.train, labeled), _taken(self.others, unlabeled)
                losses.append(self.network_step(x, y, others))
                told.append(self.critic_step(x, others))
        self._note(epoch, torch.stack(told).double().mean(0).tolist())
        self.state["images"] += drawn[1].size
        return losses, [drawn[0].shape[1]] * count

    def network_step(self, x: Tensor, y: Tensor, others: Tensor) -> Float32[Tensor, ""]:
        """Moves the network; the loss of the labels before."""
        if min(len(y), len(others)) == 1:
            for norm in self.norms:
                norm.eval()
        with precision(self.device, self.settings.mixed_precision):
            features = self.extract(x)
            loss = self.criterion(self.network.head(self.hidden(features)).float(), y)
            far = self.extract(others)
        self.descend(loss + self.settings.alpha * self.gap(features.flatten(1), far.flatten(1)))
        return loss.detach()

    def critic_step(self, x: Tensor, others: Tensor) -> Float32[Tensor, "2"]:
        """Moves the critic, the network's features given; the gap and the penalty before."""
        with torch.no_grad(), precision(self.device, self.settings.mixed_precision):
            features, far = (self.extract(each).flatten(1).float() for each in (x, others))
        gap, penalty = self.gap(features, far), gradient_penalty(self.critic, features, far)
        sign = -1.0 if self.settings.repo_sign else 1.0
        # the network's step has left gradients here, too
        self.critic_optimizer.zero_grad()
        (self.settings.alpha * (sign * self.settings.penalty * penalty - gap)).backward()
        self.critic_optimizer.step()
        return torch.stack([gap.detach(), penalty.detach()])

    def gap(self, labeled: Tensor, unlabeled: Tensor) -> Float32[Tensor, ""]:
        """How much larger the critic is on features of unlabeled items."""
        return self.critic(unlabeled).mean() - self.ratio * self.critic(labeled).mean()

    def _note(self, epoch: int, means: list[float]) -> None:
        if not all(math.isfinite(mean) for mean in means):
            raise ValueError(
                f"WAAL's critic must stay finite, got gap {means[0]:g} and penalty {means[1]:g} in epoch "
                f"{epoch + 1} at learning rate {self.settings.rate(epoch):g}; lower trainer.learning_rate, "
                "or look for NaN in the inputs"
            )
        self.state["critic"] = means

    def _watch(self, loss: float) -> None:
        super()._watch(loss)
        if self.state["stale"] == 0:
            weights = {name: value.clone() for name, value in self.critic.state_dict().items()}
            self.state["critic_weights"] = weights


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], labeled: Float32[Tensor, "l f"], unlabeled: Float32[Tensor, "u f"]
) -> Float32[Tensor, ""]:
    """Mean of (|grad D| - 1)^2 over the features themselves and over points drawn between pairs of them.

    A pair is a labeled and an unlabeled item; the fewer are gone through again and again. For D(z) = w z it
    is (|w| - 1)^2. Draws from torch's current generator.
    Source: Gulrajani et al. 2017, eq. (3); Shui et al. 2020 (the features themselves, too).
    """
    place = torch.arange(max(len(labeled), len(unlabeled)), device=labeled.device)
    near, far = labeled[place % len(labeled)], unlabeled[place % len(unlabeled)]
    between = far + torch.rand(len(place), 1, device=place.device) * (near - far)
    points = torch.cat([between, unlabeled, labeled]).requires_grad_()
    slopes = torch.autograd.grad(critic(points).sum(), points, create_graph=True)[0]
    return ((slopes.norm(dim=1) - 1) ** 2).mean()


def _taken(items: Batches, places: Int64[ndarray, " b"]) -> tuple[Tensor, Tensor]:
    return next(items.each(places, len(places)))


def _width(network: Network, inputs: Inputs) -> int:
    """Features of an item; no weight and no running moment is moved."""
    extract, _ = network.stages()
    network.eval()
    with torch.no_grad():
        return extract(network.fixed(inputs.take(np.arange(1)))).flatten(1).shape[1]
