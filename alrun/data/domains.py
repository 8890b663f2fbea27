"""Two domains with the same classes: a labeled source, and a target divided into pool and test set."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from alrun.data.data import Data, Items
from alrun.data.subset import Classes, PoolSize, Subset

Share = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class Domains:
    """The whole source beside the target, whose items go to pool and test set at random.

    `pool_share` of the target's items, rounded, are the pool; it and the test set are in random order,
    whatever their classes. Then the others choose, as in `Subset`.
    """

    source: str
    target: str
    pool_share: Share
    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def __post_init__(self) -> None:
        """Refuses a domain adapted to itself.

        Raises:
            ValueError: source and target are the same.
        """
        if self.source == self.target:
            raise ValueError(f"source must be another domain than the target, got {self.source} for both")

    def adapted(
        self, source: Items, target: Items, names: dict[int, str], chance: np.random.Generator
    ) -> Data:
        """What these items of both domains are to a run.

        Raises:
            ValueError: a share that leaves the pool or the test set empty, or what Subset and Data refuse.
        """
        share = self.pool_share
        count = round(share * len(target.labels))
        if not 0 < count < len(target.labels):
            raise ValueError(
                f"pool_share={share:g} of {len(target.labels)} target items leaves pool or test set empty; "
                "choose another dataset.pool_share"
            )
        order = chance.permutation(len(target.labels))
        pool, test = (
            Items(
                target.inputs[rows], target.labels[rows], None if target.files is None else target.files[rows]
            )
            for rows in (order[:count], order[count:])
        )
        subset = Subset(self.classes, self.pool_size, self.balanced)
        return subset.of(pool, test, names=names, chance=chance, source=source)
