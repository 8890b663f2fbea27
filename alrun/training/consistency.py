"""A teacher that is the average of the networks that its student has been."""

import copy
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from alrun.models.network import Network


class Disagreement(NamedTuple):
    """How far a student is from its teacher, and its heads from each other; means over items and classes."""

    consistency: Float32[Tensor, ""]
    logit_distance: Float32[Tensor, ""]


@dataclass(frozen=True)
class Consistency:
    """How much a student's disagreement costs, and how slowly its teacher follows.

    Attributes:
        weight: of the consistency from `ramp_up` epochs on, 100 in S3.
        ramp_up: epochs in which it grows to that as exp(-5 (1 - e / ramp_up)^2); 0 has none.
        decay: share of the teacher that stays in a step, at most; 1 - 1 / (t + 1) at most in the t-th, so
            that it begins as a true average.
        logit_distance: cost of the distance between the student's heads; None for one head only.
    """

    weight: float
    ramp_up: int
    decay: float
    logit_distance: float | None

    def weight_at(self, epoch: int) -> float:
        """The consistency's weight in an epoch, counted from 0."""
        phase = 1 - min(epoch, self.ramp_up) / self.ramp_up if self.ramp_up else 0.0
        return self.weight * exp(-5 * phase**2)


class Teacher:
    """A copy of a student that follows it, and the student's second head, which agrees with the teacher.

    It sees items in training mode, by moments of its own batches: its BatchNorm layers keep running moments
    of what passed through it, which are never averaged. Frozen layers are the student's own.

    Source: Tarvainen and Valpola 2017, as in S3's code. Departs: it starts as a copy of the student, where
    there it is drawn anew and forgotten within some steps.
    """

    def __init__(self, settings: Consistency, student: Network) -> None:
        self.settings, self.student = settings, student
        shared = {id(part): part for part in (student.adapt, student.frozen)}
        self.network = copy.deepcopy(student, shared).requires_grad_(False)
        both = zip(self.network.parameters(), student.parameters(), strict=True)
        moved = [(own, theirs) for own, theirs in both if theirs.requires_grad]
        self._own, self._theirs = (list[Tensor](each) for each in zip(*moved, strict=True))
        self.second: nn.Linear | None = None
        if settings.logit_distance is not None:
            head = student.head
            self.second = nn.Linear(head.in_features, head.out_features).to(head.weight.device)

    def restart(self) -> None:
        """Begins again as a copy of the student."""
        self.network.load_state_dict(self.student.state_dict())

    def disagreement(
        self, embeddings: Float[Tensor, "b d"], logits: Float32[Tensor, "b c"], items: Tensor
    ) -> Disagreement:
        """Of the student's embeddings and logits with what the teacher says of another look at the items.

        The student answers by its second head where it has one; the teacher's answer is taken as given.
        """
        with torch.no_grad():
            told = self.network.trainable(items).float().softmax(1)
        answer = logits if self.second is None else self.second(embeddings).float()
        return Disagreement(((answer.softmax(1) - told) ** 2).mean(), ((logits - answer) ** 2).mean())

    def cost(self, found: Disagreement, epoch: int) -> Float32[Tensor, ""]:
        """What disagreement costs in an epoch, counted from 0."""
        whole = self.settings.weight_at(epoch) * found.consistency
        if self.settings.logit_distance is None:
            return whole
        return whole + self.settings.logit_distance * found.logit_distance

    def follow(self, step: int) -> None:
        """Moves towards the student after a step of it, counted from 1."""
        decay = min(1 - 1 / (step + 1), self.settings.decay)
        get_ema_multi_avg_fn(decay)(self._own, self._theirs, step)
