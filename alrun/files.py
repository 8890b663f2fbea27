"""Files that are whole or not there: written under a temporary name, synced, and renamed."""

import csv
import io
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

VERSIONED = False  # see alrun.code

# What torch raises for bytes that hold no state of ours.
UNREADABLE = (OSError, RuntimeError, TypeError, EOFError, KeyError, ValueError, pickle.UnpicklingError)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name to write to; on success the file is synced and takes the place of `path` in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # still there only if something failed
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """The text in the file, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def save_figure(figure: "Figure", path: Path) -> None:
    """The figure as a file of the kind its name ends in, PNG or PDF, whole or not at all.

    The same figure gives the same bytes: a PDF does not say when it was made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    kind = path.suffix.removeprefix(".")
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with atomic(path) as part:
        figure.savefig(part, dpi=150, format=kind, metadata=metadata)


class Progress:
    """Tells how far a long work is, and keeps its state at the end of an epoch, to go on after a kill.

    `mark` names the work: a state kept for another one is not given back.
    """

    def __init__(self, file: Path, mark: Any, tell: Callable[[int, int], None], every: float) -> None:
        """A state is saved at most once in `every` seconds."""
        self._file, self._mark, self._tell, self._every = file, mark, tell, every
        self._last = self._begun = time.monotonic()
        self.before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds spent so far, those before a kill included as far as its state was kept."""
        return self.before + time.monotonic() - self._begun

    def epoch(self, done: int, total: int) -> None:
        """Says that `done` of `total` epochs are over."""
        self._tell(done, total)

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """Saves `make()` if the last save is long enough ago."""
        import torch

        del epoch
        if time.monotonic() - self._last < self._every:
            return
        with atomic(self._file) as part:
            torch.save({"mark": self._mark, "seconds": self.seconds, "state": make()}, part)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state saved last for this work, if there is one."""
        import torch

        if not self._file.exists():
            return None
        try:
            saved = torch.load(self._file, map_location="cpu", weights_only=True)
            if saved["mark"] != self._mark:
                return None
            self.before, state = float(saved["seconds"]), saved["state"]
        except UNREADABLE as error:
            log.warning("%s cannot be read (%s); the work begins anew", self._file, error)
            return None
        return state


def columns_of(lines: Iterable[Mapping[str, Any]], first: Sequence[str] = ()) -> list[str]:
    """`first`, then what else the lines have, in order of appearance."""
    return list(dict.fromkeys([*first, *(name for line in lines for name in line)]))


def csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, Any]], head: bool = True) -> str:
    """The lines as a CSV file has them, blank where one lacks a column; below their names, if `head`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
