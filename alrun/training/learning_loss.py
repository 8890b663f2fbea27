"""Supervised training of a network together with a module that predicts its losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor, nn

from alrun.models.loss_predictor import LossPredictor
from alrun.models.maps import map_widths, mapped
from alrun.models.network import Architecture, Network
from alrun.pool import Pool
from alrun.training.fit import Fit
from alrun.training.losses import criterion_of
from alrun.training.model import HEADS, Model, restored
from alrun.training.progress import Progress
from alrun.training.seeding import seeded
from alrun.training.supervised import Supervised
from alrun.training.trainer import Chance

HEAD = "learning_loss"


@dataclass(frozen=True)
class LearningLoss(Supervised):
    """A network trained on labels, and with it a module that tells which of two items has the larger loss.

    A step descends the mean loss of its items plus `weight` times `ranking_loss` of the module's predictions,
    by one optimizer for both. The module reads averages of the network's maps (see `map_layers`), and for
    `joint_epochs` it moves the network, too.

    Attributes:
        weight, margin: of the ranking loss.
        module_hidden: width of the module's layer on each map.
        joint_epochs: epochs in which the ranking loss reaches the network; None is all.

    Source: Yoo and Kweon 2019, sections 3.2, 3.3 and 4.1 (weight 1, margin 1, hidden 128, 120 of 200 epochs);
    ALGORITHMS 6.5. Departs: `map_layers` where a network has not four stages; in a step of an odd number of
    items the one in the middle has no partner, where theirs drops what would not be a whole batch.
    """

    weight: Annotated[float, Ge(0)]
    margin: Annotated[float, Ge(0)]
    module_hidden: Annotated[int, Ge(1)]
    joint_epochs: Annotated[int, Ge(0)] | None
    heads = frozenset({HEAD})

    def begun(
        self, network: Network, pool: Pool, rows: ndarray, held: ndarray, chance: Chance
    ) -> "RankedFit":
        """A fit of both to these labeled rows before its first epoch.

        Raises:
            ValueError: the network has no maps, or what `Fit` refuses.
        """
        widths = map_widths(network, network.fixed(pool.inputs.take(np.arange(1))))
        with seeded(chance("weights", HEAD), pool.inputs.device):
            predictor = LossPredictor(widths, self.module_hidden).to(pool.inputs.device)
        return RankedFit(self, network, pool, rows, held, predictor)

    def restored(
        self, architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
    ) -> Model:
        """The model that these weights, a fit's, belong to."""
        narrow = f"{HEADS}{HEAD}.narrow."
        count = sum(name.startswith(narrow) and name.endswith(".weight") for name in weights)
        widths = [weights[f"{narrow}{place}.weight"].shape[1] for place in range(count)]
        with torch.random.fork_rng([]):
            predictor = LossPredictor(widths, self.module_hidden)
        heads = nn.ModuleDict({HEAD: predictor.to(pool.inputs.device)})
        return restored(architecture, pool, weights, facts, heads)


class RankedFit(Fit):
    """One fit under way: the network, its module, and what the ranking loss was over the last epoch."""

    settings: LearningLoss

    def __init__(
        self,
        settings: LearningLoss,
        network: Network,
        pool: Pool,
        rows: ndarray,
        held: ndarray,
        predictor: LossPredictor,
    ) -> None:
        super().__init__(settings, network, pool, rows, held, predictor)
        self.predictor = self.heads[HEAD] = predictor
        self.each_loss = criterion_of(settings.loss, "none")
        self.told: list[Tensor] = []
        self.state |= {"ranking": float("nan"), "predictor_weights": None}

    def run(self, chance: Chance, progress: Progress) -> dict[str, float]:
        """All epochs, or those that are left; the facts of the fit.

        `train_ranking_loss` is the mean over the last epoch's steps.
        """
        facts = super().run(chance, progress)
        self.predictor.zero_grad(set_to_none=True)
        return {**facts, "train_ranking_loss": self.state["ranking"]}

    def parts(self) -> dict[str, Any]:
        """What has a state_dict to be kept and loaded, by name."""
        return {**super().parts(), HEAD: self.predictor}

    def take_best(self) -> None:
        """Goes back to the best weights of both, where patience watches for them."""
        super().take_best()
        if self.state["predictor_weights"] is not None:
            self.predictor.load_state_dict(self.state["predictor_weights"])

    def steps(self, rng: np.random.Generator) -> tuple[list[Tensor], list[int]]:
        """The steps of one epoch; the loss before each, and its items."""
        self.told = []
        self.predictor.train()
        done = super().steps(rng)
        self.state["ranking"] = float(torch.stack(self.told).double().mean())
        return done

    def costs(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of these items, and with it what wrong predictions cost."""
        embeddings, averages = mapped(self.network, x)
        losses = self.each_loss(self.network.head(embeddings).float(), y)
        joint = self.settings.joint_epochs
        if joint is not None and self.state["epoch"] >= joint:
            averages = averages.detach()
        predicted = self.predictor(averages)[:, 0]
        ranking = ranking_loss(predicted, losses.detach(), self.settings.margin)
        self.told.append(ranking.detach())
        loss = losses.mean()
        return loss, loss + self.settings.weight * ranking

    def _watch(self, loss: float) -> None:
        super()._watch(loss)
        if self.state["stale"] == 0:
            weights = {name: value.clone() for name, value in self.predictor.state_dict().items()}
            self.state["predictor_weights"] = weights


def ranking_loss(
    predicted: Float32[Tensor, " b"], losses: Float32[Tensor, " b"], margin: float
) -> Float32[Tensor, ""]:
    """How far predictions are from the order of the losses, by `margin`: the mean over pairs, 0 without any.

    Of b items the i-th and the (b + 1 - i)-th are a pair, floor(b / 2) in all. With losses l and predictions
    p it costs max(0, margin - s (p_i - p_j)), where s is 1 if l_i > l_j and -1 otherwise.
    Source: Yoo and Kweon 2019, eq. (2); ALGORITHMS 6.5.
    """
    pairs = len(losses) // 2
    sign = torch.where(losses > losses.flip(0), 1.0, -1.0)[:pairs]
    apart = (predicted - predicted.flip(0))[:pairs]
    return (margin - sign * apart).clamp(min=0).sum() / max(1, pairs)
