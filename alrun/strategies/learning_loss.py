"""Learning loss: what the loss module expects to be learned worst."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from alrun.rounds import Batch, Round
from alrun.strategies.uncertainty import largest


@dataclass(frozen=True)
class LearningLoss:
    """The largest predicted loss among candidates drawn at random.

    Attributes:
        subset: candidates drawn, at least the batch; None takes all.

    Scores are the predictions, on a scale of their own (only their order was learned), largest first.
    Source: Yoo and Kweon 2019, sections 3.1 and 4.1; S4 (Mayer and Timofte), table 2, with all candidates.
    """

    subset: Annotated[int, Ge(1)] | None
    needs = frozenset({"heads.learning_loss"})

    def select(self, current: Round, size: int) -> Batch:
        """The candidates with the largest predicted loss; the note `candidates` says among how many."""
        rows = current.candidates
        if self.subset is not None and self.subset < len(rows):
            rows = np.sort(current.rng.choice(rows, max(self.subset, size), replace=False))
        scores = current.head("learning_loss", rows)[:, 0].astype(np.float64)
        batch = largest(rows, scores, size)
        return Batch(batch.rows, batch.scores, {"candidates": float(len(rows))})
