"""The pool: inputs, the labels bought so far, and the tree of random streams."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray

from alrun.inputs import BLOCK_BYTES as BLOCK_BYTES
from alrun.inputs import Inputs as Inputs
from alrun.inputs import Moments as Moments

NOT_BOUGHT = -1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent generator for a seed and a path of names; adding a consumer moves no other stream."""
    path = "/".join(f"{type(name).__name__}:{name}" for name in names)
    words = np.frombuffer(hashlib.sha256(path.encode()).digest(), dtype=np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


@dataclass(frozen=True)
class Seeds:
    """For each branch of chance a seed of its own, or None to follow the run's: so that one can vary alone.

    Branches: `split` (subsets of the data set), `initial` (first labeled rows), `weights` (initial weights),
    `order` (mini-batches, augmentation, dropout while training), `select` (strategies), `oracle`, and
    `artifacts` (encoders trained before round 0, which runs share that have the same seed here).
    """

    split: Annotated[int, Ge(0)] | None
    initial: Annotated[int, Ge(0)] | None
    weights: Annotated[int, Ge(0)] | None
    order: Annotated[int, Ge(0)] | None
    select: Annotated[int, Ge(0)] | None
    oracle: Annotated[int, Ge(0)] | None
    artifacts: Annotated[int, Ge(0)] | None

    def stream(self, seed: int, branch: str, *names: str | int) -> np.random.Generator:
        """The generator of a branch and further names in a run of this seed."""
        own = getattr(self, branch)
        return stream(seed if own is None else own, branch, *names)


@dataclass(frozen=True, eq=False)
class Source:
    """A second data set of the pool's kind and classes, all of whose labels (m,) are known and cost nothing.

    It is what domain adaptation learns from; its rows are in no index space but its own.
    """

    inputs: Inputs
    labels: Int64[ndarray, " m"]

    def __post_init__(self) -> None:
        """Refuses labels that do not fit.

        Raises:
            ValueError: another number of labels than of items, or a negative label.
        """
        if len(self.labels) != len(self.inputs):
            raise ValueError(
                f"a source of {len(self.inputs)} items needs as many labels, got {len(self.labels)}"
            )
        if self.labels.min() < 0:
            raise ValueError(f"all labels of a source are known, got {self.labels.min()}; give every label")


@dataclass(frozen=True, eq=False)
class Pool:
    """Inputs of n items and the labels bought so far; its rows are the one index space of the program.

    True labels are not here: `labels` is -1 (n,) wherever none was bought. Rows 0 to `real` - 1 are the data
    set's. Rows behind them are synthetic items, each bought in the round that made it: no strategy may pick
    them later, and models learn from them as from any other labeled row.
    """

    inputs: Inputs
    labels: Int64[ndarray, " n"]
    classes: int
    source: Source | None = None

    def __post_init__(self) -> None:
        """Refuses labels that do not fit, and a source of another kind.

        Raises:
            ValueError: another number of labels than of items, a label outside -1..classes-1, or a source
                whose items have another shape or type, or whose labels are no classes of the pool.
        """
        if len(self.labels) != len(self.inputs):
            raise ValueError(
                f"a pool of {len(self.inputs)} items needs as many labels, got {len(self.labels)}"
            )
        if self.labels.min() < NOT_BOUGHT or self.labels.max() >= self.classes:
            wrong = self.labels[(self.labels < NOT_BOUGHT) | (self.labels >= self.classes)][0]
            raise ValueError(f"labels must be in 0..{self.classes - 1} (-1 for not bought), got {wrong}")
        if self.source is not None:
            _require_kin(self.source, self.inputs, self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def real(self) -> int:
        """How many rows are the data set's; those behind them are synthetic."""
        return len(self.inputs.array)

    @cached_property
    def labeled(self) -> Int64[ndarray, " l"]:
        """Rows with a bought label, sorted; synthetic ones among them."""
        return np.flatnonzero(self.labels != NOT_BOUGHT).astype(np.int64)

    @cached_property
    def unlabeled(self) -> Int64[ndarray, " u"]:
        """Rows of the data set without a label, sorted; synthetic rows never are among them."""
        return np.flatnonzero(self.labels[: self.real] == NOT_BOUGHT).astype(np.int64)

    @property
    def blank(self) -> "Pool":
        """The same pool before any purchase, and so without synthetic rows."""
        return replace(self, inputs=self.inputs.originals, labels=np.full(self.real, NOT_BOUGHT, np.int64))

    def add(self, items: Shaped[ndarray, "m ..."]) -> "Pool":
        """A new pool with these synthetic items, as they are stored, as rows n, n+1, ... without a label.

        Raises:
            ValueError: items of another shape or type, none at all, or numbers that are not finite.
        """
        labels = np.full(len(items), NOT_BOUGHT, np.int64)
        inputs = self.inputs.extended(items)
        return replace(self, inputs=inputs, labels=np.concatenate([self.labels, labels]))

    def reveal(self, rows: Int64[ndarray, " b"], answers: Int64[ndarray, " b"]) -> "Pool":
        """A new pool that knows the answers for these rows too.

        Raises:
            ValueError: a row out of range, repeated or already labeled, or an answer that is no class.
        """
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(
                f"rows must be in 0..{len(self) - 1}, got {rows[(rows < 0) | (rows >= len(self))][0]}"
            )
        if len(np.unique(rows)) != len(rows):
            raise ValueError(
                f"a batch may name a row once, got {len(rows)} rows of which {len(np.unique(rows))} differ"
            )
        if (known := rows[self.labels[rows] != NOT_BOUGHT]).size:
            raise ValueError(f"row {known[0]} is already labeled; choose among pool.unlabeled")
        if len(answers) and (answers.min() < 0 or answers.max() >= self.classes):
            wrong = answers[(answers < 0) | (answers >= self.classes)][0]
            raise ValueError(f"answers must be in 0..{self.classes - 1}, got {wrong}")
        labels = self.labels.copy()
        labels[rows] = answers
        return replace(self, labels=labels)


def smallest(rows: Int64[ndarray, " m"], values: Float64[ndarray, " m"], size: int) -> Int64[ndarray, " b"]:
    """The `size` rows with the smallest values in ascending order, ties to the smaller row.

    A partial selection: only what may be chosen is sorted.

    Raises:
        ValueError: a value that is no number; NaN is never sorted.
    """
    if np.isnan(values).any():
        bad = rows[np.isnan(values)][0]
        raise ValueError(
            f"scores must be numbers, got NaN for row {bad}; check the inputs and the training loss"
        )
    if size < len(rows):
        near = np.flatnonzero(values <= np.partition(values, size - 1)[size - 1])
        rows, values = rows[near], values[near]
    return rows[np.lexsort((rows, values))][:size]


def _require_kin(source: Source, inputs: Inputs, classes: int) -> None:
    own, theirs = ((each.shape, each.array.dtype) for each in (inputs, source.inputs))
    if own != theirs:
        raise ValueError(
            f"items of pool and source must agree in shape and type, got {own} and {theirs}; "
            "prepare both the same way"
        )
    if source.labels.max() >= classes:
        raise ValueError(f"labels of the source must be in 0..{classes - 1}, got {source.labels.max()}")
