"""The checkerboard: points of the plane, colored like the fields of a board."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.data.data import Data


@dataclass(frozen=True)
class Checkerboard:
    """Uniform points on [-1, 1]^2; the class is the parity of the field on a board of `cells` x `cells`.

    Source: S0 (label diffusion), checkerboard experiment. The paper does not state the number of fields.
    """

    pool_size: Annotated[int, Ge(1)]
    test_size: Annotated[int, Ge(1)]
    cells: Annotated[int, Ge(2)]

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """Points drawn from `chance`, the test set first, so that it is the same for every pool size."""
        del data_dir
        test, pool = (
            chance.uniform(-1, 1, (size, 2)).astype(np.float32) for size in (self.test_size, self.pool_size)
        )
        return Data(pool, fields(pool, self.cells), test, fields(test, self.cells), ("red", "blue"))


def fields(points: Float32[ndarray, "n 2"], cells: int) -> Int64[ndarray, " n"]:
    """Parity of each point's field; the upper edge belongs to the last field, the lower left one is 0."""
    inside = np.floor((points.astype(np.float64) + 1) / 2 * cells).astype(np.int64)
    return np.minimum(inside, cells - 1).sum(axis=1) % 2
