"""How many labels are bought when, and which rows come first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, MinLen
from jaxtyping import Int64
from numpy import ndarray

from alrun.rounds import Strategy


@dataclass(frozen=True)
class Budget:
    """The first labeled set, then purchases of `per_round` for `rounds` rounds, or an explicit list of sizes.

    Attributes:
        initial: labels bought before the first query; 0 is a cold start, "all" the supervised reference.
        initial_sampling: `random`; `balanced` (as many of each class as can be) and `proportional` (each
            class by its share of the pool) read hidden labels, and say so in the notes.
        initial_rows: a text file (one row a line) or `.npy` file of pool rows; replaces the sampling.
        per_round: labels a round, for `rounds` rounds; 0 rounds is a plain training run.
        sizes: the batch sizes one by one; replaces `per_round` and `rounds`.
        first: the strategy for the one batch that is bought before there is a model.
    """

    initial: Annotated[int, Ge(0)] | Literal["all"]
    initial_sampling: Literal["random", "balanced", "proportional"]
    initial_rows: str | None
    per_round: Annotated[int, Ge(1)]
    rounds: Annotated[int, Ge(0)]
    sizes: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)] | None
    first: Strategy

    @property
    def batches(self) -> list[int]:
        """Labels bought in rounds 1, 2, ..."""
        if self.initial == "all":
            return []
        return list(self.sizes) if self.sizes is not None else [self.per_round] * self.rounds

    @property
    def reads_labels(self) -> bool:
        """Whether the rows of round 0 follow from hidden labels."""
        return self.initial_sampling != "random" and self.initial_rows is None and self.initial != "all"

    def plan(self, pool_size: int) -> list[int]:
        """Labels bought in rounds 0, 1, ...

        Raises:
            ValueError: more labels than the pool has items, or none at all.
        """
        first = pool_size if self.initial == "all" else self.initial
        if self.initial_rows is not None:
            first = len(_read_rows(Path(self.initial_rows)))
        batches = self.batches
        if (wanted := first + sum(batches)) > pool_size:
            raise ValueError(
                f"budget: wants {wanted} labels ({first} first, then {sum(batches)} in {len(batches)} "
                f"rounds) but the pool has {pool_size}; lower budget.rounds, .per_round or .initial"
            )
        if wanted == 0:
            raise ValueError("budget: buys no label at all; raise budget.initial or budget.rounds")
        return [first, *batches]

    def first_rows(
        self, labels: Int64[ndarray, " n"], classes: int, rng: np.random.Generator
    ) -> Int64[ndarray, " b"]:
        """The rows of round 0: a function of the pool's size (or its labels, see above) and the stream.

        Raises:
            ValueError: rows of the file that are no pool rows, or a class with too few items.
        """
        n = len(labels)
        if self.initial_rows is not None:
            return _valid_rows(_read_rows(Path(self.initial_rows)), n, self.initial_rows)
        if self.initial == "all":
            return np.arange(n, dtype=np.int64)
        if self.initial_sampling == "random":
            return rng.permutation(n)[: self.initial].astype(np.int64)
        share = np.bincount(labels, minlength=classes) / n
        if self.initial_sampling == "balanced":
            share = np.full(classes, 1 / classes)
        return _stratified(labels, _rounded(share * self.initial, self.initial, rng), rng)


def _rounded(wanted: ndarray, total: int, rng: np.random.Generator) -> Int64[ndarray, " c"]:
    """Whole numbers near `wanted` that add up to `total`: largest remainders first, ties drawn."""
    whole = np.floor(wanted + 1e-9).astype(np.int64)
    ties = rng.permutation(len(wanted))
    order = np.lexsort((ties, -np.round(wanted - whole, 9)))
    whole[order[: total - whole.sum()]] += 1
    return whole


def _stratified(
    labels: Int64[ndarray, " n"], counts: Int64[ndarray, " c"], rng: np.random.Generator
) -> Int64[ndarray, " b"]:
    chosen = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(labels == label)
        if len(rows) < count:
            raise ValueError(
                f"budget.initial: wants {count} items of class {label} but the pool has {len(rows)}; "
                "lower budget.initial or use budget.initial_sampling=random"
            )
        chosen.append(rng.permutation(rows)[:count])
    return rng.permutation(np.concatenate(chosen)).astype(np.int64)


def _read_rows(path: Path) -> ndarray:
    path = path.expanduser()
    if not path.is_file():
        raise ValueError(
            f"budget.initial_rows: no file {path}; give a text file with one pool row a line or a .npy"
        )
    try:
        if path.suffix == ".npy":
            return np.atleast_1d(np.load(path, allow_pickle=False))
        return np.loadtxt(path, np.int64, ndmin=1)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"budget.initial_rows: cannot read {path} as rows ({error})") from None


def _valid_rows(rows: ndarray, n: int, name: str) -> Int64[ndarray, " b"]:
    whole = rows.ndim == 1 and rows.dtype.kind in "iu" and len(np.unique(rows)) == len(rows)
    if not whole or (len(rows) and (rows.min() < 0 or rows.max() >= n)):
        raise ValueError(f"budget.initial_rows: {name} must hold distinct whole numbers in 0..{n - 1}")
    return rows.astype(np.int64)
