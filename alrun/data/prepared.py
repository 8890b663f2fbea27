"""Images too many for memory: brought to one size once, block by block, into a file that is mapped."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from alrun.cache import Watch, alone
from alrun.files import write_text

KEEP_SECONDS = 10.0  # between two records of how far the file is
DIGITS = 16
DAMAGED = (OSError, ValueError, KeyError, TypeError)
log = logging.getLogger(__name__)

# Blocks of consecutive images, beginning with this row.
Blocks = Callable[[int], Iterator[UInt8[ndarray, "b ..."]]]


class Unwatched:
    """A Watch that nobody looks at; news go to the log."""

    def epoch(self, done: int, total: int) -> None:
        """Nothing."""

    def say(self, news: str) -> None:
        """Into the log."""
        log.info(news)

    def tell(self, news: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Prepared:
    """Uint8 images of one shape in `folder`, one after another, in a file that only ever grows.

    The file is named by `key`, which says what the images follow from. Beside it stands how many of them are
    safely on disk: after a kill, or when more are wanted than before, the work goes on from there.
    """

    folder: Path
    key: Mapping[str, Any]
    shape: tuple[int, ...]

    def images(self, count: int, blocks: Blocks, watch: Watch) -> UInt8[ndarray, "count ..."]:
        """The first `count` images as a read-only memory map; `blocks` makes those that are missing.

        Of several processes one works and the others wait.

        Raises:
            OSError: too little space, or a folder that cannot be written.
            ValueError: what `blocks` raises, or fewer images than `count`.
        """
        if self._done()[0] < count:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder / f".{self._name}.lock", self._file, watch):
                done, damage = self._done()
                if damage:
                    log.warning("%s; going on after %d images", damage, done)
                if done < count:
                    self._grow(done, count, blocks, watch)
        return np.memmap(self._file, np.uint8, "r", shape=(count, *self.shape))

    @property
    def _each(self) -> int:
        return int(np.prod(self.shape))

    @property
    def _name(self) -> str:
        text = json.dumps({**self.key, "shape": self.shape}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

    @property
    def _file(self) -> Path:
        return self.folder / f"{self._name}.images"

    @property
    def _listing(self) -> Path:
        return self.folder / f"{self._name}.json"

    def _done(self) -> tuple[int, str]:
        """How many images are whole and on disk, and what is wrong with the files, if anything is."""
        if not self._listing.exists():
            return 0, ""
        try:
            recorded = int(json.loads(self._listing.read_text(encoding="utf-8"))["images"])
            there = self._file.stat().st_size // self._each
        except DAMAGED as error:
            return 0, f"{self._listing} or its images are damaged ({error})"
        if there < recorded:
            return there, f"{self._file} was cut off, it had {recorded} images"
        return recorded, ""

    def _grow(self, done: int, count: int, blocks: Blocks, watch: Watch) -> None:
        needed = (count - done) * self._each
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise OSError(
                f"{self.folder} needs {needed / 1e9:.1f} GB for {count - done:,} prepared images and has "
                f"{free / 1e9:.1f} GB; make room there or choose another data_dir"
            )
        begun = f", going on after {done:,}" if done else ""
        watch.say(
            f"preparing {count:,} images of {' x '.join(map(str, self.shape))} once, "
            f"{count * self._each / 1e9:.1f} GB in {self._file}{begun}"
        )
        self._file.touch()
        with self._file.open("r+b") as file:
            file.truncate(done * self._each)
            file.seek(done * self._each)
            self._write(file, (done, count), blocks, watch)
        watch.tell("")

    def _write(self, file: BinaryIO, span: tuple[int, int], blocks: Blocks, watch: Watch) -> None:
        """Appends images from `span[0]` until there are `span[1]`, in whole blocks."""
        done, count = span
        last = begun = time.monotonic()
        for block in blocks(done):
            file.write(np.ascontiguousarray(block).data)
            done += len(block)
            now = time.monotonic()
            watch.epoch(min(done, count), count)
            watch.tell(f"{(done - span[0]) / max(now - begun, 1e-9):,.0f} images a second")
            if done >= count or now - last > KEEP_SECONDS:
                file.flush()
                os.fsync(file.fileno())
                self._record(done)
                last = now
            if done >= count:
                return
        raise ValueError(f"there were {done:,} images where {count:,} were listed; leave the files alone")

    def _record(self, done: int) -> None:
        told = {"images": done, "shape": self.shape, **self.key}
        write_text(self._listing, json.dumps(told, indent=1) + "\n")
