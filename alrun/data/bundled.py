"""Real data that come with a dependency, so nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from alrun.data.data import Data, Items
from alrun.data.subset import Classes, PoolSize, Subset

POOL = 1400


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, 8 x 8 gray: the first 1400 are the pool, the last 397 the test set.

    The 17 gray levels 0..16 of scikit-learn's copy become uint8, round(value * 255 / 16).
    Source: E. Alpaydin and C. Kaynak, UCI "Optical Recognition of Handwritten Digits".
    """

    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The digits; `data_dir` is not read."""
        del data_dir
        levels, digits = load_digits(return_X_y=True)
        images = np.rint(np.asarray(levels) * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
        labels = np.asarray(digits, dtype=np.int64)
        return Subset(self.classes, self.pool_size, self.balanced).of(
            Items(images[:POOL], labels[:POOL]),
            Items(images[POOL:], labels[POOL:]),
            names={digit: str(digit) for digit in range(10)},
            chance=chance,
        )
