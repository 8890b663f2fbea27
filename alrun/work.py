"""What was made, bought and written in one round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from matplotlib.figure import Figure
from numpy import ndarray

from alrun.clock import Clock
from alrun.files import columns_of, csv_text, write_text
from alrun.purchase import Annotator, Answer, Purchase

Line = dict[str, Any]
MARK = "open-"


@dataclass(eq=False)
class OpenTables:
    """The tables of one round under way, in the run folder: each line is in its file at once.

    A kill loses no line; a power cut may, for lines are not synced one by one. An empty file `open-<name>`
    says that the table has lines of a round that is not whole: who goes on takes them out.

    Attributes:
        folder: of the run.
        marks: where the files `open-<name>` are.
        whole: the lines of whole rounds, by table.
    """

    folder: Path
    marks: Path
    whole: Mapping[str, list[Line]]
    _columns: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, own: list[Line]) -> None:
        """Brings out the last of the round's `own` lines: appended, if the file has its columns."""
        file, line = self._file(name), own[-1]
        columns = self._columns.pop(name, [])
        if line.keys() <= set(columns):
            with file.open("ab") as opened:
                opened.write(csv_text(columns, [line], head=False).encode())
        else:
            lines = [*self.whole.get(name, []), *own]
            columns = columns_of(lines)
            write_text(self.marks / f"{MARK}{name}", "")
            write_text(file, csv_text(columns, lines))
        self._columns[name] = columns  # only now: after a write that failed, the next one is of all lines

    def drop(self) -> None:
        """Takes out the lines of a round that was broken off; a table of no others is deleted."""
        for name in self._marked():
            if (lines := self.whole.get(name)) is None:
                self._file(name).unlink(missing_ok=True)
            else:
                write_text(self._file(name), csv_text(columns_of(lines), lines))
        self.close()

    def close(self) -> None:
        """Says that all lines are of whole rounds."""
        for name in self._marked():
            (self.marks / f"{MARK}{name}").unlink()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def _marked(self) -> list[str]:
        return [mark.name.removeprefix(MARK) for mark in self.marks.glob(f"{MARK}*")]


class Work:
    """What was made, bought and written in one round, shared by all narrowed views of it."""

    def __init__(self, clock: Clock, answer: Answer, size: int, annotator: Annotator | None = None) -> None:
        """`answer` gives labels of pool rows and `annotator` those of synthetic items, if anybody does."""
        self.clock, self.purchase = clock, Purchase(size, answer, annotator)
        self.rows: dict[str, ndarray] = {}
        self.known: dict[str, ndarray] = {}
        self.made: dict[str, Any] = {}
        self.tables: dict[str, list[Line]] = {}
        self.opened: OpenTables | None = None  # where there is a run folder
        self.figures: dict[str, Callable[[Figure], None]] = {}
        self.arrays: dict[str, dict[str, ndarray]] = {}
        self.predicted = 0

    def write(self, name: str, line: Line) -> None:
        """One more line for a table; bringing it out is charged to the clock's part `watch`."""
        own = self.tables.setdefault(name, [])
        own.append(line)
        if self.opened is not None:
            with self.clock.part("watch"):
                self.opened.add(name, own)

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
