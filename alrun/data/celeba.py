"""CelebA: faces of celebrities with forty attributes, each a problem of two classes."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64, UInt8
from numpy import ndarray

from alrun.cache import Watch
from alrun.data.data import Data, Items
from alrun.data.image_files import BLOCK, square
from alrun.data.prepared import Prepared, Unwatched
from alrun.data.subset import PoolSize, Subset

FOLDER = "celeba"
IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
TRAINING, VALIDATION, TEST = 0, 1, 2
LAYOUT = (
    f"put there {IMAGES}/ (img_align_celeba.zip, unpacked), {ATTRIBUTES} and {PARTITION}, as torchvision has "
    "them, from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; there is no download"
)


class _Faces(NamedTuple):
    """Names of the images, those of the pool first and then the test set's, and their labels."""

    root: Path
    names: list[str]
    labels: Int64[ndarray, " n"]
    pool: int


@dataclass(frozen=True)
class CelebA:
    """CelebA, (3, s, s) uint8 with s = `image_size`, from `path`, or `data_dir`/celeba.

    The classes are absence (0) and presence (1) of `attribute`, one of the forty. The official split: its
    162,770 training images are the pool, its 19,962 test images the test set; the 19,867 for validation are
    left out. The middle square of `crop` pixels (null: 178, the whole width) is resized. The images are
    prepared once for all attributes, in `data_dir`/celeba/.alrun (2.2 GB for 64 pixels), and mapped; nothing
    is written into `path`.

    Source: Liu et al. 2015; attributes and size S4 (ASAL), section 4.1, which does not say how it cropped.
    """

    path: str | None
    attribute: str
    image_size: Annotated[int, Ge(1)]
    crop: Annotated[int, Ge(1)] | None
    pool_size: PoolSize
    balanced: bool

    def prepare(self, data_dir: Path, watch: Watch) -> None:
        """Prepares the images if they are not there yet.

        Raises:
            FileNotFoundError: missing files; says what is to be put where.
            ValueError, OSError: lists or images that are damaged, or too little space.
        """
        self._images(self._faces(data_dir), data_dir, watch)

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The faces, labeled by the attribute.

        Raises:
            FileNotFoundError, ValueError, OSError: as of `prepare`.
        """
        faces = self._faces(data_dir)
        images = self._images(faces, data_dir, Unwatched())
        pool, test = (
            Items(images[part], faces.labels[part])
            for part in (slice(faces.pool), slice(faces.pool, len(images)))
        )
        names = {0: f"without {self.attribute}", 1: self.attribute}
        return Subset(None, self.pool_size, self.balanced).of(pool, test, names=names, chance=chance)

    def _faces(self, data_dir: Path) -> _Faces:
        root = data_dir / FOLDER if self.path is None else Path(self.path).expanduser()
        missing = [each for each in (IMAGES, ATTRIBUTES, PARTITION) if not (root / each).exists()]
        if missing:
            where = root.absolute()
            raise FileNotFoundError(f"data set celeba: {', '.join(missing)} missing in {where}; {LAYOUT}")
        try:
            return _listed(root, self.attribute)
        except ValueError as error:
            raise ValueError(f"data set celeba: {error}") from None

    def _images(self, faces: _Faces, data_dir: Path, watch: Watch) -> UInt8[ndarray, "n 3 s s"]:
        key = {"data set": FOLDER, "files": _digest(faces), "crop": self.crop}
        store = Prepared(data_dir / FOLDER / ".alrun", key, (3, self.image_size, self.image_size))

        def blocks(start: int) -> Iterator[UInt8[ndarray, "b 3 s s"]]:
            with ThreadPoolExecutor() as threads:
                for begin in range(start, len(faces.names), BLOCK):
                    names = faces.names[begin : begin + BLOCK]
                    yield np.stack(list(threads.map(read, names)))

        def read(name: str) -> UInt8[ndarray, "3 s s"]:
            file = faces.root / IMAGES / name
            return square(file, file, self.image_size, self.crop)

        return store.images(len(faces.names), blocks, watch)


def _listed(root: Path, attribute: str) -> _Faces:
    """The images of the official training set, then those of its test set."""
    parts = dict(_pairs(root / PARTITION, 0, 0))
    with (root / ATTRIBUTES).open(encoding="utf-8") as text:
        known = [text.readline().split(), text.readline().split()][1]
    if attribute not in known:
        raise ValueError(f"attribute must be one of {', '.join(known)}, got {attribute!r}")
    signs = dict(_pairs(root / ATTRIBUTES, 2, known.index(attribute)))
    if strange := next((name for name in parts if name not in signs), None):
        raise ValueError(f"{strange} is in {PARTITION} and not in {ATTRIBUTES}; put whole files there")
    pool, test = ([name for name in parts if parts[name] == part] for part in (TRAINING, TEST))
    names = [*pool, *test]
    if not pool or not test:
        raise ValueError(f"{root / PARTITION} needs training images (0) and test images (2); restore it")
    return _Faces(root, names, np.array([signs[name] > 0 for name in names], np.int64), len(pool))


def _pairs(file: Path, skipped: int, column: int) -> Iterator[tuple[str, int]]:
    """First word, and the number in a column behind it, of every line after so many."""
    with file.open(encoding="utf-8") as text:
        for number, line in enumerate(text):
            words = line.split()
            if number < skipped or not words:
                continue
            try:
                yield words[0], int(words[1 + column])
            except (IndexError, ValueError):
                raise ValueError(
                    f"{file}, line {number + 1}: cannot be read; put a whole file there"
                ) from None


def _digest(faces: _Faces) -> str:
    """16 hex digits of names and sizes of the image files.

    Raises:
        FileNotFoundError: a listed image is not there.
    """
    digest = hashlib.sha256()
    for name in faces.names:
        try:
            size = (faces.root / IMAGES / name).stat().st_size
        except FileNotFoundError:
            folder = (faces.root / IMAGES).absolute()
            raise FileNotFoundError(
                f"data set celeba: {name} is listed and missing in {folder}; {LAYOUT}"
            ) from None
        digest.update(f"{name}\t{size}\n".encode())
    return digest.hexdigest()[:16]
