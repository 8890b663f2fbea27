"""One strategy restricts the candidates, another chooses among them."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alrun.rounds import Batch, Round, Strategy, name_of


@dataclass(frozen=True)
class TwoStage:
    """`first` picks `first_size` rows, `second` picks the batch among them. Scores are the second's.

    Each stage draws from its own stream, so with `first_size` = all of the pool it equals `second` alone.
    `first_size` null is ten times the batch (the ratio of S1, table 1, for MNIST and SVHN).
    """

    first: Strategy
    second: Strategy
    first_size: Annotated[int, Ge(1)] | None

    def __post_init__(self) -> None:
        """Refuses a first stage that buys labels.

        Raises:
            ValueError: the labels of rows that the second stage may leave out would be paid for nothing.
        """
        if "oracle" in self.first.needs:
            raise ValueError("first: may not buy labels inside a batch; use e.g. strategy.first.clamp=model")

    @property
    def needs(self) -> frozenset[str]:
        """What either stage needs."""
        return self.first.needs | self.second.needs

    def select(self, current: Round, size: int) -> Batch:
        """The second's choice; notes of the first stand under `first_`."""
        wanted = 10 * size if self.first_size is None else self.first_size
        wanted = max(size, min(wanted, len(current.candidates)))
        before = self.first.select(current.stage("first", name_of(self.first)), wanted)
        narrowed = current.narrow(before.rows).stage(name_of(self.second))
        batch = self.second.select(narrowed, size)
        notes = {f"first_{name}": value for name, value in before.notes.items()}
        return Batch(batch.rows, batch.scores, {"candidates": float(wanted), **notes, **batch.notes})
