"""A fit to a whole pool: bought labels, and pseudo-labels of the other rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from alrun.graph.pseudo_labels import PseudoLabels
from alrun.models.network import Network
from alrun.pool import NOT_BOUGHT, Pool
from alrun.training.batches import Batches, cycled
from alrun.training.consistency import Teacher
from alrun.training.fit import Fit, norms_of
from alrun.training.losses import criterion_of
from alrun.training.model import Model, breadth
from alrun.training.parts import parts, sizes_of
from alrun.training.progress import Progress, Sight
from alrun.training.recipe import Recipe
from alrun.training.seeding import precision, seeded
from alrun.training.trainer import Chance

LOSSES = ("loss", "labeled_loss", "pseudo_loss", "consistency", "logit_distance")

# of a step: items, another look at them, their classes and weights
Lesson = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Curriculum:
    """What a fit to a pool learns from, stage by stage.

    Attributes:
        labeled: bought rows of a step that has unlabeled ones, too.
        variant: `repo` makes pseudo-labels from augmented items, and begins the second stage with a new
            teacher.
        second: the recipe of a second stage, which learns from pseudo-labels; None has one stage.
        pseudo: how these are made.
        teacher: with whom the network agrees; None learns alone.
    """

    labeled: int
    variant: Literal["paper", "repo"]
    second: Recipe | None
    pseudo: PseudoLabels | None
    teacher: Teacher | None


class PoolFit(Fit):
    """One fit under way: a stage as `Fit`, then one that learns from pseudo-labels, renewed after each epoch.

    In its state `turn` is the epoch at which the second stage begins, once that is known; `pseudo` is what
    the next epoch learns from; `told` are means over the last epoch; `steps` are those since a teacher began.
    """

    def __init__(
        self,
        settings: Recipe,
        network: Network,
        pool: Pool,
        rows: ndarray,
        held: ndarray,
        curriculum: Curriculum,
    ) -> None:
        """Before its first epoch; a teacher's second head learns with the network."""
        teacher = curriculum.teacher
        super().__init__(settings, network, pool, rows, held, None if teacher is None else teacher.second)
        if teacher is not None:
            self.norms = [*self.norms, *norms_of(teacher.network)]
        self.curriculum, self.made = curriculum, None
        self.each_loss = criterion_of(settings.loss, "none")
        self.state |= {"turn": None, "pseudo": None, "told": {}, "seconds": {}, "unconverged": 0, "steps": 0}

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit.

        `train_<loss>` are means over the last epoch, `train_<part>_seconds` sums over all; `pseudo_*` are the
        facts of the last pseudo-labels, and `pseudo_unconverged_epochs` says how many solves were cut off.
        """
        facts = super().run(chance, progress)
        state = self.state
        facts |= {f"train_{name}": value for name, value in state["told"].items()}
        facts |= {f"train_{part}_seconds": value for part, value in state["seconds"].items()}
        if state["pseudo"] is not None:
            facts |= {f"pseudo_{name}": value for name, value in state["pseudo"]["facts"].items()}
            facts["pseudo_unconverged_epochs"] = float(state["unconverged"])
        return facts

    @property
    def total(self) -> int:
        """Epochs of both stages, where patience does not end the first earlier."""
        second, turn = self.curriculum.second, self.state["turn"]
        return (self.settings.epochs if turn is None else turn) + (0 if second is None else second.epochs)

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left."""
        if self.curriculum.second is None:
            return super().is_over
        return self.state["turn"] is not None and self.state["epoch"] >= self.total

    @property
    def since_turn(self) -> int | None:
        """Epochs of the second stage that are over; None in the first."""
        return None if self.state["turn"] is None else self.state["epoch"] - self.state["turn"]

    @property
    def reads_all(self) -> bool:
        """Whether the epoch under way reads unlabeled rows."""
        return self.since_turn is not None

    def follow_up(self, chance: Chance) -> None:
        """Ends the first stage where it is over; makes what an epoch of the second learns from."""
        self.made = None
        self._count_seconds({"steps": self.seconds})
        maker, state = self.curriculum.pseudo, self.state
        if maker is None:
            return
        if state["turn"] is None and super().is_over:
            self.take_best()
            state |= {"turn": state["epoch"], "weights": None}
        if state["turn"] is not None and not self.is_over:
            self._renew(maker, chance)

    def sight(self) -> Sight:
        """The epoch that just ended, as others see it."""
        seen = super().sight()
        numbers = {**seen.numbers, **self.state["told"]}
        if self.made is not None:
            numbers |= {f"{part}_seconds": value for part, value in self.made.seconds.items()}
        stage = "semi_supervised" if self.since_turn else "supervised"
        return Sight(stage, seen.epoch, numbers, self.made, self.model)

    def rate(self, share: float) -> float:
        """The learning rate when this share of the epoch under way is over; each stage has its own course."""
        if self.curriculum.second is None or self.since_turn is None:
            return super().rate(share)
        return self.curriculum.second.rate(self.since_turn + share)

    @cached_property
    def everything(self) -> Batches:
        """All rows of the pool, by row."""
        return Batches(self.network, self.pool, np.arange(len(self.pool)), self.settings.augmentation)

    def steps(self, rng: np.random.Generator) -> tuple[list[Tensor], list[int]]:
        """The steps of one epoch; the loss before each, and its items."""
        if not self.reads_all:
            return super().steps(rng)
        order, told = self._order(rng), []
        sizes = sizes_of(len(order), self.settings.batch_size)
        with seeded(rng, self.device):
            for lesson in self._lessons(order, sizes):
                self.pace(len(told) / len(sizes))
                told.append(self.learn(*lesson))
        losses = torch.stack(told)
        means = torch.tensor(sizes).double() @ losses.double().cpu() / sum(sizes)
        absent = {"loss"} if self.state["pseudo"] is not None else {"loss", "pseudo_loss"}
        named = zip(LOSSES, means.tolist(), strict=False)
        self.state["told"] = {name: mean for name, mean in named if name not in absent}
        return list(losses[:, 0]), sizes

    def looks(self, order: Int64[ndarray, " m"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Items in this order of rows, step by step, and again what a teacher sees of them."""
        return ((x, x) for x, _ in self.everything.each(order, self.settings.batch_size))

    def learn(self, x: Tensor, twin: Tensor, y: Tensor, weight: Tensor) -> Float32[Tensor, " losses"]:
        """Moves the network; `LOSSES` before."""
        if len(y) == 1:
            for norm in self.norms:
                norm.eval()
        with precision(self.device, self.settings.mixed_precision):
            embeddings = self.network.body(x)
            logits = self.network.head(embeddings).float()
            cost, told = self.cost_beside(embeddings, logits, twin)
        losses = weight * self.each_loss(logits, y) / len(y)
        bought = self.curriculum.labeled if len(self.pool.unlabeled) else len(y)
        own, pseudo = losses[:bought].sum(), losses[bought:].sum()
        loss = own + pseudo + cost
        self.descend(loss)
        return torch.stack([loss, own, pseudo, *told]).detach()

    def cost_beside(
        self, embeddings: Tensor, logits: Tensor, twin: Tensor
    ) -> tuple[Tensor | float, tuple[Tensor, ...]]:
        """What is added to the loss of classes and pseudo-classes, and the numbers behind it."""
        del embeddings, logits, twin
        return 0.0, ()

    def _order(self, rng: np.random.Generator) -> Int64[ndarray, " m"]:
        """Rows of one epoch, in steps that `sizes_of` cuts them into; of each the bought ones come first."""
        bought, rest = self.pool.labeled, rng.permutation(self.pool.unlabeled)
        if not len(rest):
            return rng.permutation(bought)
        own = self.curriculum.labeled
        others = np.array_split(rest, -(-len(rest) // (self.settings.batch_size - own)))
        firsts = cycled(bought, own * len(others), rng).reshape(-1, own)
        return np.concatenate([part for both in zip(firsts, others, strict=True) for part in both])

    def _lessons(self, order: Int64[ndarray, " m"], sizes: list[int]) -> Iterator[Lesson]:
        labels = self.pool.labels
        classes, weights = np.maximum(labels, 0), (labels != NOT_BOUGHT).astype(np.float32)
        if self.state["pseudo"] is not None:
            classes, weights = (self.state["pseudo"][name].numpy() for name in ("classes", "weights"))
        told = [torch.from_numpy(each[order]).to(self.device).split(sizes) for each in (classes, weights)]
        return ((*look, y, weight) for look, y, weight in zip(self.looks(order), *told, strict=True))

    def _renew(self, maker: PseudoLabels, chance: Chance) -> None:
        """Makes pseudo-labels by the network as it stands.

        Raises:
            ValueError: embeddings or weights that are no numbers.
        """
        began = perf_counter()
        embeddings = self._descriptors(maker, chance)
        seconds = {"embed": perf_counter() - began}
        ask = Model(self.network, self.pool.inputs, {}).predict
        made = maker.of(embeddings, self.pool.labels, self.pool.classes, ask, self.device)
        weights = made.weights * made.class_weights[made.labels]
        if not np.isfinite(weights).all():
            wrong, epoch = weights[~np.isfinite(weights)][0], self.state["epoch"]
            raise ValueError(
                f"weights of pseudo-labels must be finite, got {wrong} after epoch {epoch}; "
                "lower trainer.learning_rate, or look for NaN in the inputs"
            )
        self.made = replace(made, seconds={**seconds, **made.seconds})
        self._count_seconds(self.made.seconds)
        self.state["unconverged"] += int(made.facts.get("unconverged", 0) > 0)
        kept = {"classes": torch.from_numpy(made.labels), "weights": torch.from_numpy(weights)}
        self.state["pseudo"] = {**kept, "facts": dict(made.facts)}

    def _descriptors(self, maker: PseudoLabels, chance: Chance) -> Float32[ndarray, "n d"]:
        """Embeddings of all rows in eval mode; none where only predictions are asked."""
        inputs, rows = self.pool.inputs, np.arange(len(self.pool))
        if maker.kind == "network":
            return np.empty((len(rows), 0), np.float32)
        if self.curriculum.variant == "paper" or not self.settings.augmentation:
            return Model(self.network, inputs, {}).embed(rows)
        each = parts(len(rows), breadth(self.network, inputs), self.device)[0].stop
        self.network.eval()
        with seeded(chance("order", "descriptors", self.state["epoch"]), self.device), torch.no_grad():
            found = [self.network.body(x).float().cpu().numpy() for x, _ in self.everything.each(rows, each)]
        return np.concatenate(found)

    def _count_seconds(self, seconds: Mapping[str, float]) -> None:
        for part, value in seconds.items():
            self.state["seconds"][part] = self.state["seconds"].get(part, 0.0) + value

    def _watch(self, loss: float) -> None:
        if self.state["turn"] is None:
            super()._watch(loss)
