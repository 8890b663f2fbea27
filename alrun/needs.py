"""What a strategy cannot do without, and what follows from it."""

from typing import Protocol, runtime_checkable

from alrun.features.featurizer import Featurizer
from alrun.training.model import HEADS

AFTER_LABELS = frozenset({"probabilities", "logits", "embeddings", "dropout", "labels"})
OF_FEATURES = frozenset({"features", "graph", "encoded"})


@runtime_checkable
class Needing(Protocol):
    """A strategy, as far as its needs go; `alrun.rounds.Strategy` says what the words mean."""

    @property
    def needs(self) -> frozenset[str]:
        """What `select` asks of the round."""
        ...


def needs_model(strategy: Needing, featurizer: Featurizer | None) -> bool:
    """Whether a strategy cannot choose before the first label is bought."""
    features = bool(strategy.needs & OF_FEATURES) and featurizer is not None and featurizer.depends_on_model
    return bool(strategy.needs & AFTER_LABELS) or bool(needed_heads(strategy)) or features


def needed_heads(strategy: Needing) -> frozenset[str]:
    """Names of the trainer's further outputs that a strategy cannot do without."""
    return frozenset(need.removeprefix(HEADS) for need in strategy.needs if need.startswith(HEADS))
