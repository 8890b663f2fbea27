"""What strategies for two classes have alike."""

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray

from alrun.generative.search import Score

TWO_CLASSES = "two_classes"  # among a strategy's `needs`


def needed_by(score: Score) -> frozenset[str]:
    """What a score of synthetic images adds to a strategy's needs."""
    return frozenset({TWO_CLASSES} if score == "min_distance" else set[str]())


def not_two(name: str, classes: int) -> str:
    """Says that a strategy of this name cannot choose among so many classes, and what helps."""
    return f"{name} knows two classes and the data have {classes}; keep two, e.g. dataset.classes=[5,7]"


def margins(logits: Float32[ndarray, "b 2"]) -> Float64[ndarray, " b"]:
    """z_1 - z_0 of logits z: above 0 where class 1 is the likelier."""
    return logits[:, 1].astype(np.float64) - logits[:, 0]
