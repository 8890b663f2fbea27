"""What is made once and kept on disk by content: fixed features, their graphs, trained generators.

A key says what an artifact follows from: fingerprints of the data, the settings that matter, the code of its
maker. It never is a name alone. An artifact is a folder that appears under its digest in one step; every file
in it has a checksum, which is compared whenever it is read. Who makes, reads or deletes one holds its lock,
which the operating system drops if the process dies.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from filelock import FileLock, Timeout

from alrun.config import content_digest, written
from alrun.files import Progress, sync, write_text

log = logging.getLogger(__name__)

VERSIONED = False  # see alrun.code

Key = Mapping[str, Any]
Made = TypeVar("Made")

LISTED = "artifact.json"
LISTS = {"kind", "made", "seconds", "facts", "files", "key"}
DIGITS = 16
STATE_SECONDS = 60.0
PATIENCE = 1.0  # seconds before a process that waits says so
DAMAGED = (OSError, ValueError, KeyError, TypeError)


@runtime_checkable
class Watch(Protocol):
    """Who is told how the making of an artifact goes."""

    def epoch(self, done: int, total: int) -> None:
        """`done` of `total` steps are over."""
        ...

    def say(self, news: str) -> None:
        """Something a person may want to know."""
        ...

    def tell(self, news: str) -> None:
        """How far something is, in the place of what was told before."""
        ...


class Making(Progress):
    """What a maker is given: a folder for what is kept, and progress that survives a kill.

    Attributes:
        folder: empty at first; what is in it when the maker returns is the artifact.
        facts: numbers and words to be kept in the artifact's listing.
        spent: the maker's own count of its seconds, in place of wall time.
    """

    def __init__(
        self, folder: Path, file: Path, mark: str, tell: Callable[[int, int], None], every: float
    ) -> None:
        super().__init__(file, mark, tell, every)
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self.spent: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A finished artifact's folder and its listing."""

    folder: Path
    listing: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """What making it took."""
        return float(self.listing["seconds"])

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(int(each["bytes"]) for each in self.listing["files"].values())


@dataclass(frozen=True)
class Kept(Generic[Made]):
    """What was read from an artifact, and whether it had been there before."""

    value: Made
    artifact: Artifact
    reused: bool


@dataclass(frozen=True)
class Cache:
    """Artifacts in `dir`, shared by all runs that use it; without `dir` nothing is kept."""

    dir: str | None

    def kept(
        self,
        kind: str,
        key: Key,
        make: Callable[[Making], None],
        load: Callable[[Path], Made],
        watch: Watch,
    ) -> Kept[Made]:
        """`load` of the artifact's folder, which `make` fills if there is none.

        Of several processes one makes it and the others wait. A damaged one is made anew, with a warning.
        What `make` raises leaves nothing behind but the state it kept.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.dir is None:
            with tempfile.TemporaryDirectory() as scratch:
                artifact = _made(Path(scratch) / kind, Path(scratch) / "state", kind, key, make, watch)
                return Kept(load(artifact.folder), artifact, False)
        home = self._home(kind, key)
        home.parent.mkdir(parents=True, exist_ok=True)
        with alone(_lock(home), home, watch):
            found = _whole(home, kind, key)
            artifact = found or self._anew(home, kind, key, make, watch)
            value = load(artifact.folder)
            (artifact.folder / LISTED).touch()
        return Kept(value, artifact, found is not None)

    def look(self, kind: str, key: Key) -> Artifact | None:
        """The artifact if there is one, its listing read but its files not compared."""
        if self.dir is None:
            return None
        try:
            artifact = _read(self._home(kind, key))
        except DAMAGED:
            return None
        return artifact if artifact.listing.get("key") == _plain(key) else None

    def artifacts(self) -> Iterator[Artifact]:
        """All that is kept, by kind and digest; the listing of a folder that cannot be read is empty."""
        for folder in sorted(Path(self.dir).expanduser().glob("*/[!.]*/")) if self.dir else []:
            try:
                yield _read(folder)
            except DAMAGED:
                yield Artifact(folder, {})

    def delete(self, artifact: Artifact) -> bool:
        """Deletes an artifact unless a process is at work with it; whether it did."""
        try:
            with FileLock(_lock(artifact.folder)).acquire(blocking=False):
                doomed = artifact.folder.with_name(f".{artifact.folder.name}.doomed")
                if artifact.folder.exists():
                    artifact.folder.rename(doomed)
                    shutil.rmtree(doomed)
        except Timeout:
            return False
        return True

    def leftovers(self) -> Iterator[Path]:
        """What broken-off makings left behind: the states they can go on from, and unfinished files."""
        if self.dir is not None:
            folder = Path(self.dir).expanduser()
            yield from sorted([*folder.glob("*/*.state"), *folder.glob("*/.*.*")])

    def clear(self, leftover: Path) -> bool:
        """Deletes a leftover unless its making is going on; whether it did."""
        home = leftover.with_name(leftover.name.removeprefix(".").split(".")[0])
        try:
            with FileLock(_lock(home)).acquire(blocking=False):
                _remove(leftover)
        except Timeout:
            return False
        return True

    def _home(self, kind: str, key: Key) -> Path:
        return Path(self.dir or "").expanduser() / kind / digest_of({"kind": kind, **key})[:DIGITS]

    def _anew(
        self, home: Path, kind: str, key: Key, make: Callable[[Making], None], watch: Watch
    ) -> Artifact:
        for leftover in [home, *home.parent.glob(f".{home.name}.*")]:
            _remove(leftover)
        state, part = home.with_name(f"{home.name}.state"), home.with_name(f".{home.name}.part")
        _made(part, state, kind, key, make, watch)
        part.rename(home)
        sync(home.parent)
        state.unlink(missing_ok=True)
        return _read(home)


def digest_of(key: Key) -> str:
    """sha256, 64 hex digits, of a key in canonical JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=written).encode()).hexdigest()


def scratch(folder: Path) -> Making:
    """A making in a plain folder, whose state is kept at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    return Making(folder, folder / "state.pt", "scratch", lambda done, total: None, 0.0)


def _made(
    part: Path, state: Path, kind: str, key: Key, make: Callable[[Making], None], watch: Watch
) -> Artifact:
    """Fills the folder and lists what is in it."""
    part.mkdir(parents=True)
    making = Making(part, state, digest_of(key), watch.epoch, STATE_SECONDS)
    make(making)
    seconds = making.seconds if making.spent is None else making.spent
    files = {}
    for file in sorted(path for path in part.rglob("*") if path.is_file()):
        sync(file)
        name = file.relative_to(part).as_posix()
        files[name] = {"bytes": file.stat().st_size, "sha256": content_digest(file)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    listing = {"kind": kind, "made": now, "seconds": round(seconds, 3), "facts": making.facts}
    write_text(part / LISTED, json.dumps({**listing, "files": files, "key": _plain(key)}, indent=1) + "\n")
    return _read(part)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _plain(key: Key) -> dict[str, Any]:
    return json.loads(json.dumps(key, default=written))


def _read(folder: Path) -> Artifact:
    listing = json.loads((folder / LISTED).read_text(encoding="utf-8"))
    if not isinstance(listing, dict) or not set(listing) >= LISTS:
        raise ValueError(f"{folder / LISTED} is no whole listing")
    return Artifact(folder, listing)


def _whole(home: Path, kind: str, key: Key) -> Artifact | None:
    """The artifact, if every file is as it was made."""
    if not home.exists():
        return None
    try:
        artifact = _read(home)
        if artifact.listing["key"] != _plain(key):
            raise ValueError("its key is another one")
        if damaged := next(damages(artifact), None):
            raise ValueError(damaged)
    except DAMAGED as error:
        log.warning("cache: %s %s is damaged (%s) and is made anew", kind, home, error)
        return None
    return artifact


def damages(artifact: Artifact) -> Iterator[str]:
    """What is wrong with an artifact's files."""
    for name, each in artifact.listing["files"].items():
        file = artifact.folder / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != each["bytes"] or content_digest(file) != each["sha256"]:
            yield f"{name} is not as it was written"


def _lock(home: Path) -> Path:
    return home.with_name(f"{home.name}.lock")


@contextmanager
def alone(file: Path, work: Path, watch: Watch) -> Iterator[None]:
    """Holds the lock of this file; says which work it waits for when another process has it."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        watch.say(f"waiting for another process that is at work with {work}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
