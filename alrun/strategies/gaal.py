"""GAAL: the images that the model is unsure of, asked of a generator, are themselves labeled."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from alrun.generative.search import LatentSearch, Score
from alrun.rounds import Batch, Round, name_of
from alrun.strategies.synthesis import synthesized
from alrun.strategies.two_classes import needed_by


@dataclass(frozen=True)
class Gaal:
    """Synthetic images that a latent search has found, each an annotation; no row of the data set is bought.

    The search is ASAL's, from the prior in each round; what it finds is stored as the pool stores items and
    becomes pool rows. The round's time does not depend on the pool.

    Attributes:
        score, steps, learning_rate, latents: see `alrun.generative.search.LatentSearch`.

    Scores are those of the search, in the order of generation: entropies in nats, or distances |w.x + b|.
    Source: Zhu and Bento 2017, as S4 section 5.3 compares with it (ASAL's generator in place of a DCGAN).
    Departs: entropy is offered beside their minimum distance.
    """

    score: Score
    steps: Annotated[int, Ge(1)]
    learning_rate: Annotated[float, Gt(0)]
    latents: Annotated[int, Ge(1)]

    @property
    def needs(self) -> frozenset[str]:
        """A model, of two classes for their distance; a generator, and somebody who labels images."""
        return frozenset({"labels", "generator", "synthetic"}) | needed_by(self.score)

    def select(self, current: Round, size: int) -> Batch:
        """New rows, in the order of generation.

        Raises:
            ValueError: no model, nobody who labels images, or scores or images that are no numbers.
        """
        search = LatentSearch(self.score, self.steps, self.learning_rate, self.latents)
        with current.timed("predict", 0):
            found = synthesized(current, search, size, current.stage(name_of(self), "latents").rng)
        rows = current.add(current.pool.inputs.stored(found.images))
        for row, before, after in zip(rows.tolist(), found.before, found.after, strict=True):
            current.write("gaal", {"row": row, "before": float(before), "after": float(after)})
        notes = {
            "candidates": 0.0,  # none of the data set's
            "synthetic": float(size),
            "synthetic_before": float(found.before.mean()),
            "synthetic_after": float(found.after.mean()),
        }
        return Batch(rows, found.after, notes)
