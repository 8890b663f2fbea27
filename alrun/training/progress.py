"""How far a fit is, and where the state of a long one is kept."""

from collections.abc import Callable
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
