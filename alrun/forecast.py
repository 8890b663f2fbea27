"""How long a run may take, from a few training steps on this machine."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from alrun.cache import scratch
from alrun.features.featurizer import Featurizer
from alrun.models.network import Architecture
from alrun.pool import Inputs, Pool, stream
from alrun.training.model import Model
from alrun.training.progress import Silent
from alrun.training.trainer import Trainer

STEPS = 2
CODER_ROWS = (128, 384)


class Forecast(NamedTuple):
    """Seconds at most, patience left out of account: making features, all fits, all evaluations."""

    features: float
    training: float
    evaluation: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.features + self.training + self.evaluation

    def __str__(self) -> str:
        parts = zip(self._fields, self, strict=True)
        told = ", ".join(f"{name} {spoken(seconds)}" for name, seconds in parts if seconds >= 1)
        return f"up to {spoken(self.total)} ({told})"


def forecast(
    trainer: Trainer,
    architecture: Architecture,
    featurizer: Featurizer | None,
    inputs: Inputs,
    classes: int,
    sizes: list[int],
    test_items: int,
) -> Forecast:
    """What is ahead when fits of these sizes follow each other, and a featurizer, if any, is trained first.

    A few training steps are made and thrown away; their labels are made up. A trainer or featurizer without
    `epochs` counts as nothing; what a trainer fits beside the network it says itself by `seconds_beside`.
    """
    with _quiet():
        features = 0.0 if featurizer is None else _coder_seconds(featurizer, inputs)
    if not sizes or not hasattr(trainer, "epochs"):
        return Forecast(features, 0.0, 0.0)
    few = min(len(inputs), STEPS * int(getattr(trainer, "batch_size", 64)))
    some = Inputs(inputs.array[:few], inputs.device)
    pool = Pool(some, np.arange(few) % classes, classes)
    once, again, model = _fit_seconds(trainer, architecture, pool)
    epochs: Any = getattr(trainer, "epochs")  # noqa: B009  not part of the protocol
    training = again / few * sum(sizes) * float(epochs)
    if (beside := getattr(trainer, "seconds_beside", None)) is not None:
        training += beside(inputs, _chance) * len(sizes)
    if model.network.is_frozen:
        training += max(0.0, once - again) / few * len(inputs)
    began = time.perf_counter()
    model.predict(np.arange(few))
    evaluation = (time.perf_counter() - began) / few * test_items * len(sizes)
    return Forecast(features, training, evaluation)


def spoken(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"


def _fit_seconds(trainer: Trainer, architecture: Architecture, pool: Pool) -> tuple[float, float, Model]:
    """Seconds of a first and a second epoch over the pool, and the model."""
    short = replace(trainer, epochs=1)  # type: ignore[type-var]
    seconds, model = [], None
    for _ in range(2):
        began = time.perf_counter()
        model = short.fit(architecture, pool, chance=_chance, start=None, progress=Silent())
        seconds.append(time.perf_counter() - began)
    assert model is not None
    return seconds[0], seconds[1], model


def _coder_seconds(featurizer: Featurizer, inputs: Inputs) -> float:
    epochs = getattr(featurizer, "epochs", None)
    if epochs is None or featurizer.depends_on_model:
        return 0.0
    short = replace(featurizer, epochs=1)  # type: ignore[type-var]
    few, seconds = [min(len(inputs), rows) for rows in CODER_ROWS], []
    for rows in few:
        began = time.perf_counter()
        with TemporaryDirectory() as folder:
            some = Inputs(inputs.array[:rows], inputs.device)
            short.make(some, _nothing, _chance("features"), scratch(Path(folder)))
        seconds.append(time.perf_counter() - began)
    # the difference is free of what does not grow with the rows
    more = few[1] - few[0]
    each = max(0.0, seconds[1] - seconds[0]) / more if more else seconds[1] / few[1]
    return each * len(inputs) * epochs


def _chance(*names: str | int) -> np.random.Generator:
    return stream(0, "forecast", *names)


@contextmanager
def _quiet() -> Iterator[None]:
    """What is made here is thrown away, so nobody need hear that it is bad."""
    logger = logging.getLogger("alrun")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _nothing(rows: ndarray) -> ndarray:
    raise ValueError("a forecast has no model to embed with")
