"""How a network descends: for how long, at which rates, on items changed how."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from alrun.training.augment import Augmentation

# numbers; below it a plain step on flat weights is no slower than a fused one (9,800 and 9,000 a second,
# MLP 2-30-30-2), which on a busy machine also waits for threads
FUSED_FROM = 2**15


@dataclass(frozen=True)
class Recipe:
    """Settings of mini-batch gradient descent.

    Attributes:
        batch_size: items a step at most; an epoch's batches are as even as can be (see `sizes_of`), where
            usually the last one has what is left. A labeled set of one item trains on BatchNorm's running
            moments.
        nesterov: whether sgd looks ahead along its momentum.
        schedule: the rate of an epoch: constant, times `decay` every `step_epochs` or at `milestones`
            (epochs), or cosine to zero at `horizon` epochs (null: at the last).
        renewed: whether the rate changes with each epoch, or with each step, by shares of an epoch.
        loss: cross-entropy, or the hinge loss (see `Hinge`); probabilities are the softmax of the logits.
        patience: epochs without a lower loss after which the fit ends, with the best weights; null runs all.
        validation: share of the bought labels held out to watch the loss; where it rounds to none, the
            training loss is watched.
        crop, border, rotation, flip: see `Augmentation`.
        start: weights drawn anew, or those of the round before.
        mixed_precision: bfloat16 where a GPU computes; a CPU always uses float32.
    """

    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(1)]
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    nesterov: bool
    weight_decay: Annotated[float, Ge(0)]
    schedule: Literal["constant", "step", "milestones", "cosine"]
    horizon: Annotated[int, Ge(1)] | None
    renewed: Literal["epoch", "step"]
    step_epochs: Annotated[int, Ge(1)]
    milestones: list[Annotated[int, Ge(1)]]
    decay: Annotated[float, Gt(0), Le(1)]
    loss: Literal["cross_entropy", "hinge"]
    patience: Annotated[int, Ge(1)] | None
    validation: Annotated[float, Ge(0), Lt(1)]
    crop: Annotated[int, Ge(0)]
    border: Literal["zeros", "reflection"]
    rotation: Annotated[float, Ge(0), Le(180)]
    flip: bool
    start: Literal["fresh", "previous"]
    mixed_precision: bool

    def __post_init__(self) -> None:
        """Refuses a cosine that ends before the fit, and Nesterov's way without momentum.

        Raises:
            ValueError: fewer epochs of the horizon than of the fit, or no momentum to look ahead along.
        """
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise ValueError(
                "trainer.nesterov needs trainer.momentum above 0, got 0; use trainer.nesterov=false"
            )
        if self.horizon is not None and self.horizon < self.epochs:
            raise ValueError(
                f"trainer.horizon must be at least trainer.epochs, got {self.horizon} and {self.epochs}; "
                "raise it, or set trainer.horizon=null to end where the fit does"
            )

    @property
    def augmentation(self) -> Augmentation:
        """What happens to items that are trained on."""
        return Augmentation(self.crop, self.border, self.rotation, self.flip)

    def rate(self, epoch: int | float) -> float:
        """The learning rate after so many epochs and shares of one."""
        if self.schedule == "step":
            return self.learning_rate * self.decay ** (epoch // self.step_epochs)
        if self.schedule == "milestones":
            return self.learning_rate * self.decay ** sum(epoch >= stone for stone in self.milestones)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / (self.horizon or self.epochs)))
        return self.learning_rate


def optimizer_of(settings: Recipe, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """A new optimizer of these weights."""
    rate, decay = settings.learning_rate, settings.weight_decay
    fused = weights[0].device.type == "cuda" or sum(weight.numel() for weight in weights) >= FUSED_FROM
    foreach = None if fused else False
    if settings.optimizer == "sgd":
        momentum, nesterov = settings.momentum, settings.nesterov
        return torch.optim.SGD(
            weights,
            rate,
            momentum,
            weight_decay=decay,
            nesterov=nesterov,
            foreach=foreach,
            fused=fused or None,
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, rate, weight_decay=decay, foreach=foreach, fused=fused or None)
