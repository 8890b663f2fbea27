"""Where a run's artifacts are kept, and under which keys."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from alrun.cache import Artifact, Cache, Watch
from alrun.code import code_version


def name_of(part: object) -> str:
    """The word for a part in streams, tables and messages: its class in snake case."""
    letters = type(part).__name__
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(letters))


class Deaf:
    """Is told everything and shows nothing."""

    def epoch(self, done: int, total: int) -> None:
        """Nothing."""

    def say(self, news: str) -> None:
        """Nothing."""

    def tell(self, news: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Shelf:
    """Where a run's artifacts are kept.

    Attributes:
        fingerprint: of the pool's inputs, 64 hex digits.
        source: of the data set's source, its labels among it, 64 hex digits; None if there is none.
        show: called with the folder of each artifact that is used, to bring its pictures and tables out.
    """

    cache: Cache
    fingerprint: str
    source: str | None
    watch: Watch
    show: Callable[[str, Path], None]


NO_SHELF = Shelf(Cache(None), "", None, Deaf(), lambda kind, folder: None)


def identity(part: object) -> dict[str, Any]:
    """What a part's products follow from: its maker, the version of its code, its settings.

    A part may have a property `identity` with the settings that matter, files by their content; without one
    all fields of the dataclass count.
    """
    own = getattr(part, "identity", None)
    if own is None:
        own = asdict(part) if is_dataclass(part) and fields(part) else {}  # type: ignore[call-overload]
    kind = type(part)
    return {"maker": f"{kind.__module__}.{kind.__qualname__}", "code": code_version(kind.__module__), **own}


def told(found: Artifact | None) -> str:
    """What a plan says of an artifact that was looked for."""
    return f"reused, made {found.listing['made'][:10]} in {found.seconds:.0f} s" if found else "to be made"
