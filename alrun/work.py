"""What was made, bought and written in one round."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from matplotlib.figure import Figure
from numpy import ndarray

from alrun.clock import Clock
from alrun.purchase import Annotator, Answer, Purchase


class Work:
    """What was made, bought and written in one round, shared by all narrowed views of it."""

    def __init__(self, clock: Clock, answer: Answer, size: int, annotator: Annotator | None = None) -> None:
        """`answer` gives labels of pool rows and `annotator` those of synthetic items, if anybody does."""
        self.clock, self.purchase = clock, Purchase(size, answer, annotator)
        self.rows: dict[str, ndarray] = {}
        self.known: dict[str, ndarray] = {}
        self.made: dict[str, Any] = {}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.figures: dict[str, Callable[[Figure], None]] = {}
        self.arrays: dict[str, dict[str, ndarray]] = {}
        self.predicted = 0

    def remembered(
        self, name: str, rows: Int64[ndarray, " b"], total: int, make: Callable[[ndarray], ndarray]
    ) -> Float32[ndarray, "b w"]:
        """The rows of a table that is filled row by row, on demand."""
        known = self.known.setdefault(name, np.zeros(total, bool))
        missing = np.unique(rows[~known[rows]])
        if len(missing) or name not in self.rows:
            self.keep(name, missing, make(missing), total)
        return self.rows[name][rows]

    def keep(self, name: str, rows: Int64[ndarray, " b"], values: ndarray, total: int) -> None:
        """Fills rows of a table."""
        known = self.known.setdefault(name, np.zeros(total, bool))
        table = self.rows.setdefault(name, np.empty((total, values.shape[1]), np.float32))
        table[rows], known[rows] = values, True
