"""Trainings of encoders that are killed, and go on."""

from pathlib import Path

import numpy as np
import pytest

from alrun.cache import scratch
from alrun.pool import Pool

KILLED_AFTER = 3


def made_in_two_goes(featurizer, pool: Pool, folder: Path) -> np.ndarray:
    """Features by a training that is killed after three epochs and is then begun again in the same folder."""

    def run(watch) -> np.ndarray:
        making = scratch(folder)
        making.epoch = watch
        return featurizer.make(pool, lambda rows: 1 / 0, np.random.default_rng(0), making)

    def die(done: int, total: int) -> None:
        if done == KILLED_AFTER:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(die)
    seen: list[int] = []
    features = run(lambda done, total: seen.append(done))
    assert seen[0] == KILLED_AFTER, "begun anew"
    return features
