"""How a search tells its parts that the time is up."""

from typing import Protocol, runtime_checkable


class Over(Exception):  # noqa: N818
    """The time is up."""


@runtime_checkable
class Watch(Protocol):
    """Called between small pieces of work."""

    def __call__(self, spare: float = 0.0) -> None:
        """Raises `Over` where fewer than these seconds are left."""
        ...


def unwatched(spare: float = 0.0) -> None:
    """For work without a limit."""
