"""BADGE: k-means++ on the gradients of the last layer."""

from dataclasses import dataclass

from alrun.coverage.gradients import gradient_sampling
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Badge:
    """Candidates whose gradients, for the model's own labels, are long and differ from each other.

    Scores are squared distances between gradients, to the nearest one chosen before (inf for the first).
    Source: Ash et al. 2020, as in S1 (DGBADGE). Departs: see `gradient_sampling`.
    """

    needs = frozenset({"probabilities", "embeddings"})

    def select(self, current: Round, size: int) -> Batch:
        """A draw among the candidates."""
        rows = current.candidates
        # Embeddings first: probabilities then take no second pass through the network.
        embeddings = current.embeddings(rows)
        picks, squared = gradient_sampling(current.probabilities(rows), embeddings, size, current.rng)
        return Batch(rows[picks], squared)
