"""Part of a data set: some of its classes, and a random part of its pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, MinLen
from jaxtyping import Int64
from numpy import ndarray

from alrun.data.data import Data, Items

Classes = Annotated[list[Annotated[int, Ge(0)]], MinLen(2)] | None
PoolSize = Annotated[int, Ge(1)] | None


@dataclass(frozen=True)
class Subset:
    """The settings that every data set with a pool of its own shares.

    `classes`: the original labels to keep, in pool, test set and source; they become 0, 1, ... in the order
    given.
    `pool_size`: number of pool rows, drawn at random after that; they keep their order. `balanced`: as many
    of each class; what does not divide evenly goes to classes drawn at random; without a pool size each class
    gets as many as the rarest has. Test set and source are never drawn from.
    """

    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def of(
        self,
        pool: Items,
        test: Items,
        *,
        names: Mapping[int, str],
        chance: np.random.Generator,
        source: Items | None = None,
    ) -> Data:
        """The chosen part; `names` maps each original label to its name, 0..c-1 unless `classes` chooses.

        Inputs are copied only where rows are left out, so a whole memory map stays one.

        Raises:
            ValueError: a repeated or unknown class, fewer items than asked for, or what Data refuses.
        """
        kept = sorted(names) if self.classes is None else self._known(names)
        rows, labels = self._of_classes(pool.labels)
        test = self._whole(test)
        if self.pool_size is not None or self.balanced:
            drawn = self._drawn(labels, [names[old] for old in kept], chance)
            rows, labels = rows[drawn], labels[drawn]
        return Data(
            _taken(pool.inputs, rows),
            labels,
            test.inputs,
            test.labels,
            tuple(names[old] for old in kept),
            None if pool.files is None else _taken(pool.files, rows),
            test.files,
            None if source is None else self._whole(source),
        )

    def _whole(self, items: Items) -> Items:
        """All items of the kept classes."""
        rows, labels = self._of_classes(items.labels)
        files = None if items.files is None else _taken(items.files, rows)
        return Items(_taken(items.inputs, rows), labels, files)

    def _known(self, names: Mapping[int, str]) -> list[int]:
        wanted = self.classes or []
        if len(wanted) < 2 or len(set(wanted)) < len(wanted):
            raise ValueError(f"classes must name at least two classes, each once, got {wanted}")
        if unknown := [old for old in wanted if old not in names]:
            raise ValueError(
                f"classes names {unknown[0]}, which is no label; there are {shown(sorted(names))}"
            )
        return wanted

    def _of_classes(self, labels: ndarray) -> tuple[Int64[ndarray, " k"], Int64[ndarray, " k"]]:
        """Rows of the kept classes and their new labels."""
        if self.classes is None:
            return np.arange(len(labels)), labels
        rows = np.flatnonzero(np.isin(labels, self.classes))
        renamed = np.empty(len(rows), dtype=np.int64)
        for new, old in enumerate(self.classes):
            renamed[labels[rows] == old] = new
        return rows, renamed

    def _drawn(self, labels: ndarray, names: list[str], chance: np.random.Generator) -> Int64[ndarray, " p"]:
        """Positions among `labels`, ascending."""
        if self.pool_size is not None and self.pool_size > len(labels):
            raise ValueError(
                f"pool_size wants {self.pool_size} items but there are {len(labels)}; lower dataset.pool_size"
            )
        if not self.balanced:
            return np.sort(chance.choice(len(labels), self.pool_size, replace=False, shuffle=False))
        there = np.bincount(labels, minlength=len(names))
        size = len(names) * int(there.min()) if self.pool_size is None else self.pool_size
        counts = _even_counts(there, size, names, chance)
        chosen = [
            chance.choice(np.flatnonzero(labels == label), count, replace=False, shuffle=False)
            for label, count in enumerate(counts)
        ]
        return np.sort(np.concatenate(chosen))


def shown(labels: list[int]) -> str:
    """The labels as text, at most ten of them."""
    return ", ".join(map(str, labels[:10])) + (f", ... ({len(labels)} labels)" if len(labels) > 10 else "")


def _even_counts(
    there: Int64[ndarray, " c"], size: int, names: list[str], chance: np.random.Generator
) -> Int64[ndarray, " c"]:
    """How many of each class: equal numbers, and one more for classes drawn among those that have it."""
    poor = int(there.argmin())
    if there[poor] == 0:
        raise ValueError(
            f"a balanced pool needs items of every class, {names[poor]!r} has none; "
            "leave it out with dataset.classes"
        )
    each, left = divmod(size, len(there))
    able = np.flatnonzero(there > each)
    if there[poor] < each or len(able) < left:
        wanted = each if there[poor] < each else each + 1
        raise ValueError(
            f"a balanced pool of {size} wants {wanted} of class {names[poor]!r}, which has {there[poor]}; "
            f"lower dataset.pool_size to {there[poor] * len(there)} or set dataset.balanced=false"
        )
    counts = np.full(len(there), each, dtype=np.int64)
    counts[chance.choice(able, left, replace=False)] += 1
    return counts


def _taken(inputs: ndarray, rows: ndarray) -> ndarray:
    return inputs if len(rows) == len(inputs) else inputs[rows]
