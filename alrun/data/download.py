"""Files that are read where they lie, or fetched once: whole or not at all."""

import http.client
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from alrun.data.data import Items

# Each connection and each read; torchvision sets no limit of its own.
TIMEOUT_SECONDS = 20
# What torchvision's readers raise for files that are absent or damaged.
UNREADABLE = (RuntimeError, ValueError, TypeError, AssertionError, KeyError, IndexError, EOFError, OSError)
log = logging.getLogger(__name__)


class Contents(NamedTuple):
    """What a source's files hold: pool, test set, class names in the order of the labels."""

    pool: Items
    test: Items
    names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a data set lies under `data_dir`, and how it is read.

    `files` and `archives` (packed forms that are unpacked when found) are relative to `folder`;
    `read(root, download)` reads them under `root`, after fetching what is missing if asked to.
    """

    folder: str
    files: tuple[str, ...]
    archives: tuple[str, ...]
    url: str
    read: Callable[[Path, bool], Contents]


def opened(name: str, source: Source, data_dir: Path) -> Contents:
    """A data set's contents, downloaded into `data_dir` if files are missing there.

    Raises:
        FileNotFoundError: files are missing and cannot be downloaded.
        ValueError: all files are there, but damaged.
    """
    data_dir = data_dir.absolute()
    try:
        return source.read(data_dir, False)
    except UNREADABLE as error:
        if not _missing(source, data_dir):
            raise ValueError(
                f"data set {name}: damaged files in {_folder(source, data_dir)} ({_line(error)}); "
                "delete them and start again, or put whole ones there"
            ) from None
    try:
        return _fetched(name, source, data_dir)
    except (*UNREADABLE, http.client.HTTPException) as error:
        wanted = ", ".join(_missing(source, data_dir))
        raise FileNotFoundError(
            f"data set {name}: files are missing and cannot be downloaded ({_line(error)}); "
            f"put {wanted} in {_folder(source, data_dir)} (source: {source.url})"
        ) from None


def _fetched(name: str, source: Source, data_dir: Path) -> Contents:
    """The contents after download, by one process at a time, in a folder of its own until all is read."""
    made = _made_folders(data_dir)
    lock = data_dir / f".{name}.lock"
    try:
        with FileLock(lock):
            if not _missing(source, data_dir):
                return source.read(data_dir, False)
            log.info("downloading %s into %s", name, data_dir)
            with tempfile.TemporaryDirectory(dir=data_dir, prefix=f".{name}-") as stage, _bounded():
                return _staged(source, data_dir, Path(stage))
    finally:
        # two processes may come to hold different lock files; each moves whole files only, so none is harmed
        lock.unlink(missing_ok=True)
        _remove_empty(made)


def _staged(source: Source, data_dir: Path, stage: Path) -> Contents:
    for packed in source.archives:
        found, copy = (Path(os.path.normpath(root / source.folder / packed)) for root in (data_dir, stage))
        if found.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, copy)
    contents = source.read(stage, True)
    target = data_dir / source.folder
    target.mkdir(parents=True, exist_ok=True)
    for file in source.files:
        os.replace(stage / source.folder / file, target / file)
    return contents


@contextmanager
def _bounded() -> Iterator[None]:
    """No connection made inside waits longer than TIMEOUT_SECONDS for an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _missing(source: Source, data_dir: Path) -> list[str]:
    return [file for file in source.files if not (data_dir / source.folder / file).is_file()]


def _folder(source: Source, data_dir: Path) -> Path:
    return data_dir / source.folder


def _made_folders(folder: Path) -> list[Path]:
    """The folders that had to be made for this one to exist, innermost first."""
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _line(error: BaseException) -> str:
    """The last line that says something; torchvision lists mirrors before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
