"""Minimum distance: what lies nearest to the plane between two classes."""

from dataclasses import dataclass

import numpy as np

from alrun.pool import smallest
from alrun.rounds import Batch, Round, name_of
from alrun.strategies.two_classes import TWO_CLASSES, margins, not_two


@dataclass(frozen=True)
class MinDistance:
    """The smallest |z_1 - z_0| of a model of two classes, z its logits.

    Of model=linear that is |w.x + b|, with w the difference of both weight vectors and b that of the biases:
    the distance from the separating hyperplane times |w|, alike for all candidates. Logits are compared, not
    probabilities, which are all 0 and 1 where a model is sure.

    Scores are these differences, 0 or more, smallest first.
    Source: S4 (Mayer and Timofte), figures 8 and 11, with a linear model and the hinge loss
    (trainer.loss=hinge); Tong and Koller 2001, section 4 (simple margin).
    """

    needs = frozenset({"logits", TWO_CLASSES})

    def select(self, current: Round, size: int) -> Batch:
        """The candidates nearest to the boundary.

        Raises:
            ValueError: other than two classes.
        """
        if current.pool.classes != 2:
            raise ValueError(not_two(name_of(self), current.pool.classes))
        rows = current.candidates
        scores = np.abs(margins(current.logits(rows)))
        chosen = smallest(rows, scores, size)
        return Batch(chosen, scores[np.searchsorted(rows, chosen)])
