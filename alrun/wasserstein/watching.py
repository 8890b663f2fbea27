"""What the parts of a search ask of the search."""

from typing import Protocol, runtime_checkable

from alrun.wasserstein.descent import Choice


@runtime_checkable
class Progress(Protocol):
    """Keeps the best selection and the highest bound, and says when to stop."""

    best: Choice | None
    bound: float | None

    def watch(self) -> None:
        """Ends the search by an exception when its time is up."""
        ...

    def seconds_for(self, most: float | None) -> float | None:
        """So many seconds, or those that are left if they are fewer."""
        ...

    def offer(self, found: Choice) -> bool:
        """Keeps a selection if it is the best so far."""
        ...

    def raise_bound(self, bound: float) -> None:
        """Keeps a bound on all selections if it is the highest so far."""
        ...
