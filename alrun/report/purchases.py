"""What a run bought, in order, and from which pool."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alrun.report.reading import UnreadableError


class PoolMark(NamedTuple):
    """A pool's number of rows, and the sha256 of its inputs and of the source beside it, if there is one."""

    total: int
    inputs: str
    source: str | None


@dataclass(frozen=True, eq=False)
class Purchases:
    """Bought rows of the data set in the order of purchase, the round and the answer of each.

    Round 0 is the first set. `synthetic` counts what else was bought: images that a strategy made.
    """

    rounds: Int64[ndarray, " b"]
    rows: Int64[ndarray, " b"]
    answers: Int64[ndarray, " b"]
    synthetic: int = 0

    @property
    def numbers(self) -> list[int]:
        """The rounds in which something was bought, in order."""
        return np.unique(self.rounds).tolist()

    def of(self, number: int) -> "Purchases":
        """Those of one round."""
        there = self.rounds == number
        return Purchases(self.rounds[there], self.rows[there], self.answers[there])


def read_purchases(folder: Path, total: int) -> Purchases:
    """The purchases in a run folder's `selections.csv`, from a pool of so many rows.

    Raises:
        UnreadableError: the file is missing or damaged, or names a row twice or one that the pool has not.
    """
    file = folder / "selections.csv"
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            names = ("round", "rank", "row", "label")
            read = list(csv.DictReader(opened))
        lines = [[int(line[name]) for name in names] for line in read if not line.get("file")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{file}: cannot be read as purchases ({error})") from None
    rounds, _, rows, answers = np.array(sorted(lines), np.int64).reshape(-1, 4).T
    if (strange := rows[(rows < 0) | (rows >= total)]).size:
        raise UnreadableError(f"{file}: cannot be read as purchases (row {strange[0]} of a pool of {total})")
    if len(np.unique(rows)) < len(rows):
        raise UnreadableError(f"{file}: cannot be read as purchases (a row was bought twice)")
    return Purchases(rounds, rows, answers, len(read) - len(lines))


def pool_mark(folder: Path) -> PoolMark:
    """What a run folder's `environment.json` says of its pool.

    Raises:
        UnreadableError: the file is missing or damaged.
    """
    file = folder / "environment.json"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))["data"]
        return PoolMark(int(told["pool"][0]), str(told["inputs"]), told.get("source"))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableError(f"{file}: cannot be read ({type(error).__name__}); restore it") from None
