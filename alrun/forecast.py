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
from alrun.features.featurizer import Encoding, Featurizer
from alrun.features.on_generator import OnGenerator
from alrun.generative.gan import Gan
from alrun.models.encoded import Encoder, FrozenHead
from alrun.models.network import Architecture
from alrun.pool import Inputs, Pool, stream
from alrun.training.model import Model
from alrun.training.progress import Silent
from alrun.training.seeding import seeded
from alrun.training.trainer import Trainer
from alrun.training.trial import seconds_a_step

STEPS = 2
FEW = 8
CODER_ROWS = (16, 64, 256)
LONG = 3.0  # seconds; nothing larger is tried after a trial that took more


class Forecast(NamedTuple):
    """Seconds at most, patience left out of account: features, all fits, all evaluations, a generator."""

    features: float
    training: float
    evaluation: float
    generator: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)

    def __str__(self) -> str:
        parts = zip(self._fields, self, strict=True)
        told = ", ".join(f"{name} {spoken(seconds)}" for name, seconds in parts if seconds >= 1)
        return f"up to {spoken(self.total)} ({told})"


def forecast(
    trainer: Trainer,
    architecture: Architecture | FrozenHead,
    featurizer: Featurizer | None,
    pool: Pool,
    sizes: list[int],
    test_items: int,
) -> Forecast:
    """What is ahead when fits of these sizes follow each other, and a featurizer, if any, is trained first.

    A few training steps are made and thrown away; their labels are made up. They begin with a handful of
    items and take more only as far as that stays within seconds, so that a large network is not tried for
    longer than a forecast is worth. A trainer or featurizer without `epochs` counts as nothing. How many
    items a fit reads in training steps a trainer may say by `reads` (all labels in each epoch otherwise), and
    what it does beside them by `seconds_beside`. A head whose encoder is yet to be made is tried on one that
    has seen next to nothing.
    """
    with _quiet():
        features = 0.0 if featurizer is None else _coder_seconds(featurizer, pool.blank)
    if not sizes or not hasattr(trainer, "epochs"):
        return Forecast(features, 0.0, 0.0)
    known = isinstance(architecture, FrozenHead)  # then features are what frozen layers make of the pool
    if isinstance(architecture, FrozenHead):
        architecture = architecture.on(_some_encoder(featurizer, pool.blank))
    few = _rows_tried(trainer, architecture, pool)
    once, again, model = _fit_seconds(trainer, architecture, _labeled(pool, few))
    training = again / few * sum(_reads(trainer, size, len(pool) - size) for size in sizes)
    if (beside := getattr(trainer, "seconds_beside", None)) is not None:
        training += beside(architecture, pool, _chance) * len(sizes)
    if model.network.is_frozen and not known:
        training += max(0.0, once - again) / few * len(pool)
    return Forecast(features, training, _evaluation_seconds(model, few, len(sizes)) * test_items)


def rehearsed(featurizer: Featurizer | None, gan: Gan | None, pool: Pool) -> Featurizer | None:
    """The featurizer; one that stands on a generator stands on one of that size that has learned nothing."""
    if gan is None or not isinstance(featurizer, OnGenerator):
        return featurizer
    with seeded(_chance("generator"), pool.inputs.device):
        return featurizer.on(gan.untrained(pool.inputs))


def spoken(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"


def _rows_tried(trainer: Trainer, architecture: Architecture, pool: Pool) -> int:
    """Items of a trial: those of a few steps, or as many as an epoch over them takes `LONG` seconds."""
    few = min(len(pool), FEW)
    whole = min(len(pool), STEPS * int(getattr(trainer, "batch_size", 64)))
    once, again, model = _fit_seconds(trainer, architecture, _labeled(pool, few))
    # what frozen layers say is kept from the first epoch to the second; other first epochs only warm up
    seconds = max(once if model.network.is_frozen else again, 1e-9)
    return min(whole, max(few, int(few * LONG / seconds)))


def _labeled(pool: Pool, count: int) -> Pool:
    """The first items of the pool, with made-up labels."""
    some = Inputs(pool.inputs.array[:count], pool.inputs.device)
    return Pool(some, np.arange(count) % pool.classes, pool.classes)


def _fit_seconds(trainer: Trainer, architecture: Architecture, pool: Pool) -> tuple[float, float, Model]:
    """Seconds of a first and a second epoch over the pool, and the model."""
    short: Any = replace(trainer, **dict.fromkeys(_lengths(trainer), 1))  # type: ignore[type-var]
    passes = _reads(short, len(pool), 0) / len(pool)
    seconds, model = [], None
    for _ in range(2):
        began = time.perf_counter()
        model = short.fit(architecture, pool, chance=_chance, start=None, progress=Silent())
        seconds.append((time.perf_counter() - began) / passes)
    assert model is not None
    return seconds[0], seconds[1], model


def _lengths(trainer: Trainer) -> list[str]:
    """The settings that say how many epochs a fit has."""
    return [name for name in ("epochs", "propagation_epochs") if hasattr(trainer, name)]


def _reads(trainer: Trainer, labeled: int, unlabeled: int) -> int:
    """Items that a fit to so many reads in training steps."""
    if (reads := getattr(trainer, "reads", None)) is not None:
        return reads(labeled, unlabeled)
    epochs: Any = getattr(trainer, "epochs")  # noqa: B009  not part of the protocol
    return labeled * int(epochs)


def _evaluation_seconds(model: Model, few: int, rounds: int) -> float:
    """Seconds that a test item takes in all rounds, from a few; frozen layers see it in the first alone."""
    fresh = model.on(Inputs(model.inputs.array, model.inputs.device))
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        fresh.predict(np.arange(few))
        seconds.append(time.perf_counter() - began)
    first, again = seconds
    encoding = max(0.0, first - again) if model.network.is_frozen else 0.0
    return (encoding + again * rounds) / few


def _coder_seconds(featurizer: Featurizer, pool: Pool) -> float:
    epochs = getattr(featurizer, "epochs", None)
    if epochs is None or featurizer.depends_on_model:
        return 0.0
    if (steps := getattr(featurizer, "steps", None)) is not None:
        return _step_seconds(featurizer, pool) * steps * epochs
    short = replace(featurizer, epochs=1)  # type: ignore[type-var]
    tried: list[int] = []
    seconds: list[float] = []
    for rows in sorted({min(len(pool), rows) for rows in CODER_ROWS}):
        began = time.perf_counter()
        with TemporaryDirectory() as folder:
            short.make(_first(pool, rows), _nothing, _chance("features"), scratch(Path(folder)))
        seconds.append(time.perf_counter() - began)
        tried.append(rows)
        if seconds[-1] > LONG:
            break
    if len(tried) == 1:
        return seconds[0] / tried[0] * len(pool) * epochs
    # the difference is free of what does not grow with the rows
    return max(0.0, seconds[-1] - seconds[-2]) / (tried[-1] - tried[-2]) * len(pool) * epochs


def _some_encoder(featurizer: Featurizer | None, pool: Pool) -> Encoder:
    """One as large as the featurizer's."""
    assert isinstance(featurizer, Encoding)  # settings are checked for it
    least = {name: 1 for name in ("epochs", "steps") if hasattr(featurizer, name)}
    short: Any = replace(featurizer, **least)  # type: ignore[type-var]
    some = _first(pool, min(len(pool), FEW))
    with _quiet(), TemporaryDirectory() as folder:
        short.make(some, _nothing, _chance("features"), scratch(Path(folder)))
        return short.encoder(Path(folder), some.inputs)


def _first(pool: Pool, rows: int) -> Pool:
    some = Inputs(pool.inputs.array[:rows], pool.inputs.device)
    return replace(pool, inputs=some, labels=pool.labels[:rows])


def _step_seconds(featurizer: Featurizer, pool: Pool) -> float:
    """Seconds of one step of a featurizer whose epochs have a number of them that is a setting."""

    def make(steps: int) -> None:
        short = replace(featurizer, epochs=1, steps=steps)  # type: ignore[type-var]
        with TemporaryDirectory() as folder:
            short.make(_first(pool, FEW), _nothing, _chance("features"), scratch(Path(folder)))

    return seconds_a_step(make)


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
