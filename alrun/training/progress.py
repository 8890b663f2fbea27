"""How far a fit is, and where the state of a long one is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Watches one fit. All chance in a fit is drawn per epoch, so a continued fit gives the same bits."""

    def epoch(self, done: int, total: int) -> None:
        """`done` of `total` epochs are over."""
        ...

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """May save `make()`, the state after `epoch` epochs: tensors, numbers, lists and dictionaries."""
        ...

    def load(self) -> dict[str, Any] | None:
        """The state saved last, if this fit was broken off."""
        ...


class Silent:
    """Watches nothing and keeps nothing."""

    def epoch(self, done: int, total: int) -> None:
        """Says nothing."""

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """Keeps nothing."""

    def load(self) -> dict[str, Any] | None:
        """Nothing to continue from."""
        return None


@dataclass(frozen=True)
class Phase:
    """One part of a longer fit as a Progress of its own.

    Attributes:
        name: under which its state lies in the whole fit's.
        state: what was kept of this part.
        before: epochs of the parts before it. after: those of the parts behind it.
        beside: what stands in the whole fit's state beside this part's (what the parts before gave).
    """

    whole: Progress
    name: str
    state: dict[str, Any] | None
    before: int
    after: int
    beside: Mapping[str, Any]

    def epoch(self, done: int, total: int) -> None:
        """`done` of this part's `total` epochs are over."""
        self.whole.epoch(self.before + done, self.before + total + self.after)

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """May save `make()`, with all that stands beside it."""
        self.whole.keep(self.before + epoch, lambda: {**self.beside, self.name: make()})

    def load(self) -> dict[str, Any] | None:
        """What was kept of this part."""
        return self.state
