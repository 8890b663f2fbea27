"""What the parts of a search ask of the search."""

from typing import Protocol, runtime_checkable

from alrun.wasserstein.descent import Choice


@runtime_checkable
class Progress(Protocol):
    """Keeps the best selection and the highest bound, and says when to stop.

    `pricing`: seconds that it took to price a selection.
    """

    best: Choice | None
    bound: float | None
    pricing: float

    def watch(self, spare: float = 0.0) -> None:
        """Ends the search where fewer than these seconds are left.

        Raises:
            Over: so it is.
        """
        ...

    def in_time(self, spare: float = 0.0) -> bool:
        """Whether these seconds are left."""
        ...

    def seconds_for(self, most: float | None) -> float | None:
        """So many seconds, or those that are left before a selection must be priced, if they are fewer."""
        ...

    def offer(self, found: Choice) -> bool:
        """Keeps a selection if it is the best so far."""
        ...

    def raise_bound(self, bound: float) -> None:
        """Keeps a bound on all selections if it is the highest so far."""
        ...
