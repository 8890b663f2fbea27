"""The searches that a run recorded in `wasserstein.csv`."""

import csv
from pathlib import Path

import numpy as np

from alrun.report.reading import UnreadableError
from alrun.wasserstein.picture import Curve

TABLE = "wasserstein.csv"
NUMBERS = ("round", "part", "iteration", "seconds", "objective", "bound")


def read_searches(folder: Path) -> dict[tuple[int, int], Curve]:
    """The searches in a run folder by round and part (0 of an undivided pool); none without a table.

    Raises:
        UnreadableError: the table is damaged.
    """
    file = folder / TABLE
    if not file.exists():
        return {}
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = [[_number(line[name]) for name in NUMBERS] for line in csv.DictReader(opened)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(
            f"{file}: cannot be read as searches ({type(error).__name__}: {error})"
        ) from None
    table = np.array(lines, np.float64).reshape(-1, len(NUMBERS))
    found = {}
    for number, part in np.unique(table[:, :2], axis=0).astype(np.int64).tolist():
        own = table[(table[:, 0] == number) & (table[:, 1] == part)]
        _, _, iteration, seconds, objective, bound = own.T
        found[number, part] = Curve(seconds, iteration, objective, bound)
    return found


def _number(text: str) -> float:
    """A cell's number; NaN where it is blank."""
    return float("nan" if text == "" else text)
