"""Who watches a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from alrun.cache import Watch

VERSIONED = False  # see alrun.code


@runtime_checkable
class Screen(Watch, Protocol):
    """Who watches a run; `epoch` tells of a fit, too."""

    def already(self, folder: Path) -> None:
        """The run in this folder is finished; nothing is left to do."""
        ...

    def begin(self, rounds: int, done: int) -> None:
        """`done` of `rounds` fits are over already."""
        ...

    def round(self, record: Mapping[str, Any]) -> None:
        """A round is whole."""
        ...
