"""A fit to a whole pool whose network also agrees with a teacher that follows it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from alrun.training.consistency import Teacher
from alrun.training.model import Model
from alrun.training.pool_fit import PoolFit


class TaughtFit(PoolFit):
    """One fit under way, of a student with a teacher."""

    @property
    def teacher(self) -> Teacher:
        """Whom the student agrees with."""
        assert self.curriculum.teacher is not None
        return self.curriculum.teacher

    @property
    def reads_all(self) -> bool:
        """Always: agreement needs no labels."""
        return True

    def model(self) -> Model:
        """The teacher as it stands, without facts."""
        return Model(self.teacher.network.eval(), self.pool.inputs, {}, self.heads)

    def parts(self) -> dict[str, Any]:
        """What has a state_dict to be kept and loaded, by name."""
        second = {} if self.teacher.second is None else {"second_head": self.teacher.second}
        return {**super().parts(), "teacher": self.teacher.network, **second}

    def steps(self, rng: np.random.Generator) -> tuple[list[Tensor], list[int]]:
        """The steps of one epoch; the loss before each, and its items."""
        if self.restarts and self.since_turn == 0:
            self.teacher.restart()
            self.state["steps"] = 0
        self.teacher.network.train()
        return super().steps(rng)

    def looks(self, order: Int64[ndarray, " m"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Items in this order of rows, step by step, each augmented twice: for student and teacher."""
        return ((x, twin) for x, twin, _ in self.everything.twice(order, self.settings.batch_size))

    def learn(self, x: Tensor, twin: Tensor, y: Tensor, weight: Tensor) -> Float32[Tensor, " losses"]:
        """Moves the network, and its teacher after it; `LOSSES` before."""
        told = super().learn(x, twin, y, weight)
        self.state["steps"] += 1
        self.teacher.follow(self.state["steps"])
        return told

    def cost_beside(
        self, embeddings: Tensor, logits: Tensor, twin: Tensor
    ) -> tuple[Tensor | float, tuple[Tensor, ...]]:
        """What disagreement costs, and how large it is."""
        found = self.teacher.disagreement(embeddings, logits, twin)
        since = self.since_turn if self.restarts else None
        return self.teacher.cost(found, self.state["epoch"] if since is None else since), found

    @property
    def restarts(self) -> bool:
        """Whether the second stage begins with a new teacher, and the cost of disagreement anew."""
        return self.curriculum.variant == "repo"
