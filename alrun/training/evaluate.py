"""How good a model is on labeled items."""

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.training.model import Model

BINS = 15
TOP = 5
MANY_CLASSES = 10


def evaluate(model: Model, labels: Int64[ndarray, " m"]) -> dict[str, float]:
    """Accuracy, nll (nats) and ece of a model on all its inputs, top5_accuracy beyond ten classes.

    Of equal probabilities the smaller class counts first.

    Raises:
        ValueError: another number of labels than of inputs.
    """
    if len(labels) != len(model.inputs):
        raise ValueError(f"evaluation needs a label an item, got {len(labels)} for {len(model.inputs)} items")
    probabilities = model.predict(np.arange(len(labels)))
    result = {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": calibration_error(probabilities, labels),
    }
    if probabilities.shape[1] > MANY_CLASSES:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        result["top5_accuracy"] = float((best == labels[:, None]).any(axis=1).mean())
    return result


def negative_log_likelihood(probabilities: Float32[ndarray, "m c"], labels: Int64[ndarray, " m"]) -> float:
    """Mean of -log p of the true class, p not below the smallest normal float32."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def calibration_error(probabilities: Float32[ndarray, "m c"], labels: Int64[ndarray, " m"]) -> float:
    """Gap between confidence and accuracy, averaged over items in 15 equal bins of confidence, in [0, 1].

    Source: Guo et al. 2017, eq. (3).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(place, confidence - right, BINS)
    return float(np.abs(gaps).sum() / len(labels))
