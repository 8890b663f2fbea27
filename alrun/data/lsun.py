"""LSUN's scenes: ten million photographs of ten classes, from its databases or from folders of images."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64, UInt8
from numpy import ndarray

from alrun.cache import Watch
from alrun.data.data import Data
from alrun.data.image_files import BLOCK, SUFFIXES, square
from alrun.data.prepared import Prepared, Unwatched
from alrun.data.subset import Classes, PoolSize, shown
from alrun.pool import stream

FOLDER = "lsun"
SCENES = (
    *("bedroom", "bridge", "church_outdoor", "classroom", "conference_room"),
    *("dining_room", "kitchen", "living_room", "restaurant", "tower"),
)
LAYOUT = (
    "put there for each class its training database <class>_train_lmdb/ (unpacked from "
    "http://dl.yf.io/lsun/scenes/<class>_train_lmdb.zip), or a folder <class>/ of images; there is no "
    "download"
)

# An image's name, for messages, and its file's content.
Encoded = tuple[str, bytes]


@dataclass(frozen=True)
class Database:
    """One class as LSUN distributes it: an LMDB whose values are JPEG or WebP files, by hashes of them."""

    folder: Path

    @property
    def identity(self) -> str:
        """Changes with what is in it."""
        return f"{self.folder.name} {len(self)} {(self.folder / 'data.mdb').stat().st_size}"

    def __len__(self) -> int:
        with _opened(self.folder) as found:
            return int(found.stat()["entries"])

    def images(self, start: int) -> Iterator[Encoded]:
        """All from place `start` on, in the order of their keys."""
        with _opened(self.folder) as found, found.begin() as reading:
            cursor = reading.cursor()
            if next(islice(cursor.iternext(values=False), start, None), None) is None:
                return
            for key, value in cursor.iternext():
                yield f"{self.folder.name} {key.decode(errors='replace')}", value


@dataclass(frozen=True)
class Files:
    """One class as a folder of image files, at any depth, in an order drawn from a seed."""

    folder: Path
    names: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Changes with the files' names and their order."""
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return f"{self.folder.name} {len(self)} {digest[:16]}"

    def __len__(self) -> int:
        return len(self.names)

    def images(self, start: int) -> Iterator[Encoded]:
        """All from place `start` on."""
        for name in self.names[start:]:
            yield str(self.folder / name), (self.folder / name).read_bytes()


@dataclass(frozen=True)
class Lsun:
    """LSUN's scenes, (3, s, s) uint8 with s = `image_size`, from `path`, or `data_dir`/lsun.

    The order of all images is drawn from `split_seed`: the first `test_size` are the test set, the next
    `pool_size` (null: all others) the pool; so a larger pool begins with the rows of a smaller one. Within a
    class they come in the order of the database's keys, which are hashes and thus random, so that each
    database is read from its beginning to its end. `classes` need be there, no others. The middle square of
    `crop` pixels (null: the largest) is resized. The images are prepared once, as many as are wanted, in
    `data_dir`/lsun/.alrun (1.2 GB for 100,000 of 64 pixels, 121 GB for all), and mapped, never read whole;
    nothing is written into `path`. LSUN's own validation and test images are left alone.

    Source: Yu et al. 2015; pool of 9,604k and size S4 (ASAL), section 4.1. Departs: S4 may have cut 64 pixels
    out of each image, which crop=64 does.
    """

    path: str | None
    image_size: Annotated[int, Ge(1)]
    crop: Annotated[int, Ge(1)] | None
    test_size: Annotated[int, Ge(1)]
    split_seed: Annotated[int, Ge(0)]
    classes: Classes
    pool_size: PoolSize

    def prepare(self, data_dir: Path, watch: Watch) -> None:
        """Prepares the images if they are not there yet.

        Raises:
            FileNotFoundError: missing classes; says what is to be put where.
            ValueError, OSError: damaged images or databases, no package lmdb to read these, sizes that do not
                fit, or too little space.
        """
        self._images(self._parts(data_dir), data_dir, watch)

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The scenes; `chance` is not used, see `split_seed`.

        Raises:
            FileNotFoundError, ValueError, OSError: as of `prepare`.
        """
        del chance
        parts = self._parts(data_dir)
        images = self._images(parts, data_dir, Unwatched())
        labels = self._order(parts)[: len(images)]
        test = slice(self.test_size)
        pool = slice(self.test_size, len(images))
        return Data(images[pool], labels[pool], images[test], labels[test], tuple(self._names))

    @property
    def _names(self) -> list[str]:
        return list(SCENES) if self.classes is None else [SCENES[old] for old in self.classes]

    def _parts(self, data_dir: Path) -> list[Database | Files]:
        if self.classes is not None and (
            len(set(self.classes)) < len(self.classes) or max(self.classes) >= len(SCENES)
        ):
            raise ValueError(
                f"data set lsun: classes must name some of {shown(list(range(len(SCENES))))}, each once, "
                f"got {self.classes}"
            )
        root = data_dir / FOLDER if self.path is None else Path(self.path).expanduser()
        parts = {name: self._found(root, name) for name in self._names}
        if missing := [name for name, part in parts.items() if part is None]:
            where = root.absolute()
            raise FileNotFoundError(f"data set lsun: {', '.join(missing)} missing in {where}; {LAYOUT}")
        return [part for part in parts.values() if part is not None]

    def _found(self, root: Path, name: str) -> Database | Files | None:
        database, folder = root / f"{name}_train_lmdb", root / name
        if (database / "data.mdb").is_file():
            return Database(database)
        if not folder.is_dir() or not (names := _image_names(folder)):
            return None
        order = stream(self.split_seed, FOLDER, name).permutation(len(names))
        return Files(folder, tuple(names[place] for place in order))

    def _order(self, parts: list[Database | Files]) -> Int64[ndarray, " n"]:
        """The class of every image of all parts, in the order drawn."""
        labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return stream(self.split_seed, FOLDER, "order", 0).permutation(labels)

    def _images(
        self, parts: list[Database | Files], data_dir: Path, watch: Watch
    ) -> UInt8[ndarray, "n 3 s s"]:
        order = self._order(parts)
        wanted = self.test_size + (1 if self.pool_size is None else self.pool_size)
        if wanted > len(order):
            raise ValueError(
                f"data set lsun: test_size={self.test_size} and pool_size={self.pool_size} want {wanted:,} "
                f"images but there are {len(order):,}; lower them"
            )
        count = len(order) if self.pool_size is None else wanted
        key = {
            "data set": FOLDER,
            "parts": [part.identity for part in parts],
            "split_seed": self.split_seed,
            "crop": self.crop,
        }
        store = Prepared(data_dir / FOLDER / ".alrun", key, (3, self.image_size, self.image_size))
        return store.images(count, lambda start: self._blocks(parts, order[:count], start), watch)

    def _blocks(
        self, parts: list[Database | Files], order: Int64[ndarray, " n"], start: int
    ) -> Iterator[UInt8[ndarray, "b 3 s s"]]:
        """Images in the order of their classes, each class read on from where row `start` finds it."""
        before = np.bincount(order[:start], minlength=len(parts))
        readers = [part.images(int(place)) for part, place in zip(parts, before, strict=True)]
        with ThreadPoolExecutor() as threads:
            for begin in range(start, len(order), BLOCK):
                labels = order[begin : begin + BLOCK].tolist()
                block = [next(readers[label]) for label in labels]
                yield np.stack(list(threads.map(self._image, block)))

    def _image(self, encoded: Encoded) -> UInt8[ndarray, "3 s s"]:
        name, content = encoded
        return square(BytesIO(content), name, self.image_size, self.crop)


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    """The database in a folder, to be read."""
    try:
        import lmdb
    except ModuleNotFoundError:
        raise ValueError(
            f"data set lsun: {folder} is a database that needs the package lmdb; install it "
            "(pip install lmdb), or give a folder of images in its place"
        ) from None
    try:
        with lmdb.open(str(folder), readonly=True, lock=False, max_readers=1) as found:
            yield found
    except lmdb.Error as error:
        raise ValueError(
            f"data set lsun: {folder} is no whole database ({error}); unpack its archive again"
        ) from None


def _image_names(folder: Path) -> list[str]:
    """Names, relative to the folder, of all image files in it and below, sorted; no hidden ones."""
    found = []
    for top, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        images = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [os.path.relpath(os.path.join(top, name), folder) for name in images]
    return sorted(found)
