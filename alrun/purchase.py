"""What a round buys: labels of pool rows, and of synthetic items that become pool rows by it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy import ndarray

from alrun.pool import Pool

Answer = Callable[[ndarray], ndarray]

SYNTHETIC = "synthetic"  # among a strategy's needs: it adds rows


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows in order of choice, one score a row (the strategy says what it means), notes (name -> number)."""

    rows: Int64[ndarray, " b"]
    scores: Float64[ndarray, " b"]
    notes: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Annotator(Protocol):
    """Labels items that no data set has labels for, given as they are stored."""

    def label(self, items: Shaped[ndarray, "b ..."]) -> Int64[ndarray, " b"]:
        """The class of each; an annotation each."""
        ...

    def divide(self, items: Shaped[ndarray, "b ..."]) -> Int64[ndarray, " b"]:
        """The classes of items that lie in a row, where the class changes at most once; one annotation."""
        ...


@dataclass(eq=False)
class Purchase:
    """The purchase of one round, under way: `size` annotations.

    An annotation is one question to the oracle: of which class a row is, or where in a line of synthetic
    items the class changes, which labels all of them.

    Attributes:
        answer: gives the labels of rows of the data set.
        annotator: labels synthetic items; None where nobody does.
        pool: the round's with the synthetic items that were added; None as long as there are none.
        asked: the answers bought so far, by row.
        lines: the rows of each line that was asked for.
    """

    size: int
    answer: Answer
    annotator: Annotator | None = None
    pool: Pool | None = None
    asked: dict[int, int] = field(default_factory=dict)
    lines: list[Int64[ndarray, " _b"]] = field(default_factory=list)
    _before: int = 0

    @property
    def new(self) -> Int64[ndarray, " s"]:
        """The rows of the synthetic items that were added, in order."""
        return np.arange(self._before, 0 if self.pool is None else len(self.pool), dtype=np.int64)

    @property
    def items(self) -> Shaped[ndarray, "s ..."] | None:
        """The synthetic items that were added, in the order of their rows; None where there are none."""
        return None if self.pool is None else self.pool.inputs.read(self.new)

    def add(self, pool: Pool, items: Shaped[ndarray, "m ..."]) -> Int64[ndarray, " m"]:
        """The new rows, behind those of the round's pool and of what was added before.

        Raises:
            ValueError: nobody labels synthetic items, or items that do not fit the pool.
        """
        if self.annotator is None:
            raise ValueError("nobody labels synthetic items here; choose oracle=reference")
        before = pool if self.pool is None else self.pool
        if self.pool is None:
            self._before = len(pool)
        self.pool = before.add(items)
        return np.arange(len(before), len(self.pool), dtype=np.int64)

    def ask(self, rows: Int64[ndarray, " b"], candidates: Int64[ndarray, " m"]) -> Int64[ndarray, " b"]:
        """Buys the labels of candidates or new rows, an annotation each.

        Raises:
            ValueError: another row, one that was asked before, or more annotations than the round buys.
        """
        if not (np.isin(rows, candidates) | np.isin(rows, self.new)).all() or self._known(rows).any():
            raise ValueError(f"ask takes candidates not asked before, got rows {rows.tolist()[:5]}")
        self._charge(len(rows))
        return self._remembered(rows, self._labels(rows))

    def ask_line(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """Buys where in a line of new rows the class changes: one annotation, a label for each row.

        Raises:
            ValueError: fewer than two rows, a row of the data set, one that is named twice or was asked
                before, or more annotations than the round buys.
        """
        fresh = np.isin(rows, self.new).all() and not self._known(rows).any()
        if len(rows) < 2 or len(np.unique(rows)) < len(rows) or not fresh:
            raise ValueError(
                f"ask_line takes two or more distinct new rows not asked before, got {rows.tolist()[:5]}"
            )
        assert self.annotator is not None  # it has new rows
        assert self.pool is not None
        self._charge(1)
        labels = self.annotator.divide(self.pool.inputs.read(rows))
        self.lines.append(rows.copy())
        return self._remembered(rows, labels)

    def annotations(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """For each row of a batch the number of its annotation, from 0 in order of choice.

        A row is one annotation, but all rows of a line are one.
        """
        heads: dict[int, int] = {row: int(line[0]) for line in self.lines for row in line.tolist()}
        numbers: dict[int, int] = {}
        found = [numbers.setdefault(heads.get(row, row), len(numbers)) for row in map(int, rows)]
        return np.array(found, np.int64)

    def check(self, batch: Batch, candidates: Int64[ndarray, " m"], size: int, name: str) -> None:
        """Nothing, if the strategy of this name returned what it may and must.

        Raises:
            ValueError: not exactly `size` annotations of distinct rows, a row that is neither candidate nor
                new, scores of another length, or rows left out that were asked for or added.
        """
        rows, distinct = batch.rows, len(np.unique(batch.rows))
        if len(batch.scores) != len(rows):
            raise ValueError(f"{name} must return one score a row, got {len(batch.scores)} for {len(rows)}")
        allowed = np.isin(rows, candidates) | np.isin(rows, self.new)
        if not allowed.all():
            raise ValueError(f"{name} must choose among the round's candidates, got row {rows[~allowed][0]}")
        if not np.isin(list(self.asked), rows).all():
            raise ValueError(f"{name} asked for {len(self.asked)} labels and left some out of its batch")
        if not np.isin(self.new, rows).all():
            raise ValueError(f"{name} added {len(self.new)} rows and left some out of its batch")
        annotations = len(np.unique(self.annotations(rows)))
        if annotations != size or distinct != len(rows):
            counted = f", {annotations} annotations" if self.lines else ""
            raise ValueError(
                f"{name} must return {size} distinct rows, got {distinct} of {len(rows)}{counted}"
            )

    def settled(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """The labels of a whole batch; what was not asked inside is asked now."""
        rest = rows[~self._known(rows)]
        self._remembered(rest, self._labels(rest))
        return np.array([self.asked[row] for row in rows.tolist()], np.int64)

    def _labels(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """The answers to these rows, in their order."""
        synthetic = np.isin(rows, self.new)
        labels = np.empty(len(rows), np.int64)
        labels[~synthetic] = self.answer(rows[~synthetic])
        if synthetic.any():
            assert self.annotator is not None
            assert self.pool is not None
            labels[synthetic] = self.annotator.label(self.pool.inputs.read(rows[synthetic]))
        return labels

    def _known(self, rows: Int64[ndarray, " b"]) -> Bool[ndarray, " b"]:
        return np.isin(rows, np.fromiter(self.asked, np.int64, len(self.asked)))

    def _charge(self, annotations: int) -> None:
        spent = len(self.asked) - sum(len(line) - 1 for line in self.lines)
        if spent + annotations > self.size:
            raise ValueError(
                f"this round buys {self.size} labels and ask wanted {spent + annotations}; ask for fewer"
            )

    def _remembered(self, rows: Int64[ndarray, " b"], labels: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        self.asked.update(zip(rows.tolist(), labels.tolist(), strict=True))
        return labels
