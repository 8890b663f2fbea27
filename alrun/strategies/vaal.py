"""VAAL: what the discriminator takes for unlabeled with the most confidence."""

from dataclasses import dataclass

import numpy as np

from alrun.pool import smallest
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Vaal:
    """The candidates least like the labeled rows in the latent space of a VAE (GANVAE in S1).

    Scores are the discriminator's probabilities of being labeled, in [0, 1], smallest first.
    Source: Sinha et al. 2019, algorithm 2; S1 section 5.
    """

    needs = frozenset({"heads.discriminator"})

    def select(self, current: Round, size: int) -> Batch:
        """The candidates that look least labeled."""
        rows = current.candidates
        scores = current.head("discriminator", rows)[:, 0].astype(np.float64)
        chosen = smallest(rows, scores, size)
        return Batch(chosen, scores[np.searchsorted(rows, chosen)])
