"""Bayesian dropout: uncertainty of the mean over stochastic passes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Ge
from jaxtyping import Float32, Float64
from numpy import ndarray

from alrun.rounds import Batch, Round
from alrun.strategies.uncertainty import confidence_gap, entropy, largest
from alrun.training.dropout import dropout_passes


class Passes(NamedTuple):
    """Over all passes: the mean probabilities, and the mean of each pass's entropy in nats."""

    mean: Float64[ndarray, "b c"]
    expected_entropy: Float64[ndarray, " b"]


def averaged(passes: Iterable[Float32[ndarray, "b c"]]) -> Passes:
    """Softmax outputs averaged pass by pass, so that memory does not grow with their number."""
    count, mean, expected = 0, 0.0, 0.0
    for count, probabilities in enumerate(passes, start=1):  # noqa: B007  the last count is their number
        mean, expected = mean + probabilities.astype(np.float64), expected + entropy(probabilities)
    return Passes(np.asarray(mean) / count, np.asarray(expected) / count)


def passes_of(current: Round, passes: int) -> Passes:
    """`passes` stochastic passes over the round's candidates, timed as predict.

    Raises:
        ValueError: no model yet.
    """
    if current.model is None:
        raise ValueError("dropout passes need a model, but no label was bought yet")
    with current.timed("predict", len(current.candidates)):
        return averaged(dropout_passes(current.model, current.candidates, passes, current.rng))


@dataclass(frozen=True)
class DropoutConfidence:
    """1 - max_c of the mean softmax output over dropout passes, largest first.

    Source: S0 section 6.2, Bayesian dropout with Uncertainty (Gal et al. 2017). Softmax outputs are averaged,
    never logits; the masks are the same for all candidates within a pass (ALGORITHMS 6.4).
    """

    passes: Annotated[int, Ge(1)]
    needs = frozenset({"dropout"})

    def select(self, current: Round, size: int) -> Batch:
        """The candidates with the least confident mean prediction."""
        return largest(current.candidates, confidence_gap(passes_of(current, self.passes).mean), size)


@dataclass(frozen=True)
class DropoutEntropy:
    """Entropy in nats of the mean softmax output over dropout passes, largest first.

    Source: S0 section 6.2, Bayesian dropout with Entropy (Gal et al. 2017).
    """

    passes: Annotated[int, Ge(1)]
    needs = frozenset({"dropout"})

    def select(self, current: Round, size: int) -> Batch:
        """The candidates with the most spread mean prediction."""
        return largest(current.candidates, entropy(passes_of(current, self.passes).mean), size)


@dataclass(frozen=True)
class Bald:
    """Mutual information of prediction and weights: H(mean p) - mean H(p), in [0, log C] nats, largest first.

    Source: Houlsby et al. 2011; Gal et al. 2017. One pass, or dropout of rate zero, scores 0 everywhere.
    """

    passes: Annotated[int, Ge(1)]
    needs = frozenset({"dropout"})

    def select(self, current: Round, size: int) -> Batch:
        """The candidates on which the passes disagree most."""
        mean, expected = passes_of(current, self.passes)
        return largest(current.candidates, np.maximum(entropy(mean) - expected, 0.0), size)
