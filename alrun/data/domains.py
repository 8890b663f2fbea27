"""Two domains with the same classes: a labeled source, and a target divided into pool and test set."""

from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from alrun.data.data import Data, Items
from alrun.data.subset import Subset

Share = Annotated[float, Gt(0), Lt(1)]


def adapted(
    source: Items,
    target: Items,
    share: float,
    subset: Subset,
    *,
    names: dict[int, str],
    chance: np.random.Generator,
) -> Data:
    """The whole source beside the target, whose items go to pool and test set at random.

    `share` of the target's items, rounded, are the pool; it and the test set are in random order, whatever
    their classes. Then `subset` chooses.

    Raises:
        ValueError: a share that leaves the pool or the test set empty, or what Subset and Data refuse.
    """
    count = round(share * len(target.labels))
    if not 0 < count < len(target.labels):
        raise ValueError(
            f"pool_share={share:g} of {len(target.labels)} target items leaves pool or test set empty; "
            "choose another dataset.pool_share"
        )
    order = chance.permutation(len(target.labels))
    pool, test = (
        Items(target.inputs[rows], target.labels[rows], None if target.files is None else target.files[rows])
        for rows in (order[:count], order[count:])
    )
    return subset.of(pool, test, names=names, chance=chance, source=source)


def two_domains(source: str, target: str) -> None:
    """Refuses a domain adapted to itself.

    Raises:
        ValueError: source and target are the same.
    """
    if source == target:
        raise ValueError(f"source must be another domain than the target, got {source} for both")
