"""What tests of trainers that learn from unlabeled rows share."""

from dataclasses import replace
from functools import cache

import numpy as np
from conftest import CPU, part
from fits import PLAIN, chance

from alrun.pool import Pool
from alrun.training.pool_fit import PoolFit
from alrun.training.progress import Silent
from alrun.training.seeding import seeded

SMALL = {"epochs": 3, "propagation_epochs": 3, "batch_size": 8, "labeled_batch_size": 3, "k": 5}
KINDS = ("label_propagation", "mean_teacher", "mean_teacher_label_propagation")


@cache
def made(kind: str):
    return part("trainer", f"trainer={kind}")


def trainer(kind: str = "label_propagation", **changes):
    """Small, unless changed."""
    whole = made(kind)
    small = {name: value for name, value in SMALL.items() if hasattr(whole, name)}
    return replace(whole, **{**small, **changes})


def begun(who, data: Pool, architecture=PLAIN) -> PoolFit:
    with seeded(np.random.default_rng(3), CPU):
        network = architecture.build(data.inputs.shape, data.inputs.moments, data.classes)
    fit = who.begun(network, data, data.labeled, np.empty(0, np.int64), chance)
    assert isinstance(fit, PoolFit)
    return fit


def lasting(facts) -> dict[str, float]:
    return {name: value for name, value in facts.items() if not name.endswith("_seconds")}


def some_bought(data: Pool, count: int) -> Pool:
    return replace(data, labels=np.where(np.arange(len(data)) < count, data.labels, -1))


class Seen(Silent):
    """Remembers what was shown, and looks at each model."""

    def __init__(self) -> None:
        self.sights, self.accuracy, self.told = [], [], []

    def epoch(self, done, total) -> None:
        self.told.append((done, total))

    def watch(self, sight) -> None:
        self.sights.append(sight)
        model = sight.model()
        self.accuracy.append(model.predict(np.arange(len(model.inputs))).argmax(1))
