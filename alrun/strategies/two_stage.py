"""One strategy restricts the candidates, another chooses among them."""

from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

from annotated_types import Ge

from alrun.rounds import Batch, Round, Strategy, name_of


@runtime_checkable
class Restriction(Protocol):
    """A first stage that says itself how many rows it leaves."""

    def restrict(self, current: Round, size: int) -> Batch:
        """`size` distinct candidates at least."""
        ...


@dataclass(frozen=True)
class TwoStage:
    """`first` leaves some rows, `second` picks the batch among them. Scores are the second's.

    `first_size` rows are left; null is ten times the batch (the ratio of S1, table 1, for MNIST and SVHN). A
    first stage with a `restrict` of its own leaves as many as it says, and takes no `first_size`. Each stage
    draws from its own stream, so with all rows left it equals `second` alone.
    """

    first: Strategy
    second: Strategy
    first_size: Annotated[int, Ge(1)] | None

    def __post_init__(self) -> None:
        """Refuses stages that do not fit.

        Raises:
            ValueError: the labels of rows that the second stage may leave out would be paid for nothing, or
                a size for a first stage that has its own.
        """
        if any("synthetic" in stage.needs for stage in (self.first, self.second)):
            raise ValueError("stages choose among rows, and one of these makes its own; use it alone")
        if "oracle" in self.first.needs:
            raise ValueError("first: may not buy labels inside a batch; use e.g. strategy.first.clamp=model")
        if isinstance(self.first, Restriction) and self.first_size is not None:
            name = name_of(self.first)
            raise ValueError(
                f"first_size: {name} says itself how many rows it leaves, got {self.first_size}; use null"
            )

    @property
    def needs(self) -> frozenset[str]:
        """What either stage needs."""
        return self.first.needs | self.second.needs

    def select(self, current: Round, size: int) -> Batch:
        """The second's choice; notes of the first stand under `first_`, `candidates` is what it left."""
        own = current.stage("first", name_of(self.first))
        if isinstance(self.first, Restriction):
            before = self.first.restrict(own, size)
        else:
            wanted = 10 * size if self.first_size is None else self.first_size
            before = self.first.select(own, max(size, min(wanted, len(current.candidates))))
        narrowed = current.narrow(before.rows).stage(name_of(self.second))
        batch = self.second.select(narrowed, size)
        notes = {f"first_{name}": value for name, value in before.notes.items()}
        return Batch(
            batch.rows, batch.scores, {"candidates": float(len(before.rows)), **notes, **batch.notes}
        )
