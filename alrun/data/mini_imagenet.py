"""Mini-ImageNet from files on disk, all its classes joined and each divided into pool and test."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64
from numpy import ndarray

from alrun.data.data import Data, Items
from alrun.data.image_files import decoded, images_in
from alrun.data.subset import Classes, PoolSize, Subset
from alrun.pool import stream

FOLDER = "mini-imagenet"
PARTS = ("train", "val", "test")
CLASSES, EACH = 100, 600
LAYOUTS = (
    "put there class folders of images (directly, or under train/, val/ and test/), or images/ with "
    "train.csv, val.csv and test.csv (columns filename,label); there is no download: the images are "
    "ImageNet's (https://image-net.org, ILSVRC 2012), the lists those of Ravi and Larochelle "
    "(https://github.com/twitter-research/meta-learning-lstm, data/miniImagenet)"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MiniImagenet:
    """Mini-ImageNet, (3, s, s) uint8 with s = `image_size`, read from `path`, or `data_dir`/mini-imagenet.

    Its training, validation and test classes, made for few-shot learning, are joined. Of each class,
    `train_per_class` images go to the pool and `test_per_class` of the others (null: all) to the test set, by
    `split_seed` alone and not by the run's seed: which go where depends on the class's name, the names of its
    files and that seed. More or fewer classes and images than 100 x 600 are taken, with a warning. Pool and
    test rows are in random order; `Data.files` says which file each is. The decoded images are kept once in
    `data_dir`/mini-imagenet/.alrun (1.3 GB); nothing is written into `path`.

    Source: Vinyals et al. 2016, section 4.1.2; classes of Ravi and Larochelle 2017; pool and test sizes
    (480 and 100 of each class) S1 (DGAL), table 1, which does not say how they were drawn.
    """

    path: str | None
    image_size: Annotated[int, Ge(1)]
    train_per_class: Annotated[int, Ge(1)]
    test_per_class: Annotated[int, Ge(1)] | None
    split_seed: Annotated[int, Ge(0)]
    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The images, with the file of each.

        Raises:
            FileNotFoundError: no such folder; says what must be in it and where that is to be had.
            ValueError: neither layout, a class with too few images, or a file that is no image.
        """
        own = data_dir / FOLDER
        root = own if self.path is None else Path(self.path).expanduser()
        try:
            files = _listed(root)
            self._enough(files)
            listing = [file for each in files.values() for file in each]
            images = decoded(root, listing, self.image_size, own / ".alrun")
        except ValueError as error:
            raise ValueError(f"data set mini_imagenet: {error}") from None
        names, labels = np.array(listing), np.repeat(np.arange(len(files)), [*map(len, files.values())])
        pool, test = (
            Items(images[rows], labels[rows].astype(np.int64), names[rows]) for rows in self._split(files)
        )
        subset = Subset(self.classes, self.pool_size, self.balanced)
        return subset.of(pool, test, names=dict(enumerate(files)), chance=chance)

    def _enough(self, files: dict[str, list[str]]) -> None:
        tested = self.test_per_class or 1
        for name, each in files.items():
            if len(each) < self.train_per_class + tested:
                raise ValueError(
                    f"class {name} has {len(each)} images but {self.train_per_class + tested} are needed, "
                    f"dataset.train_per_class={self.train_per_class} and {tested} to test; "
                    "complete or remove its folder, or lower the settings"
                )
        counts = sorted(map(len, files.values()))
        if len(files) != CLASSES or counts[0] != EACH or counts[-1] != EACH:
            log.warning(
                "mini_imagenet has %d classes of %d images, found %d classes of %d to %d",
                *(CLASSES, EACH, len(files), counts[0], counts[-1]),
            )

    def _split(self, files: dict[str, list[str]]) -> tuple[Int64[ndarray, " pool"], Int64[ndarray, " test"]]:
        """Places in the listing of the pool's images and of the test set's, each in random order."""
        pool, test, start = [], [], 0
        for name, each in files.items():
            drawn = start + stream(self.split_seed, "mini_imagenet", name).permutation(len(each))
            pool.append(drawn[: self.train_per_class])
            test.append(drawn[self.train_per_class :][: self.test_per_class])
            start += len(each)
        mixed = stream(self.split_seed, "mini_imagenet", "order", 0)
        return mixed.permutation(np.concatenate(pool)), mixed.permutation(np.concatenate(test))


def _listed(root: Path) -> dict[str, list[str]]:
    """Files of each class, relative to `root`; classes and files in alphabetical order."""
    if not root.is_dir():
        raise FileNotFoundError(f"data set mini_imagenet: there is no folder {root.absolute()}; {LAYOUTS}")
    tables = [root / f"{part}.csv" for part in PARTS if (root / f"{part}.csv").is_file()]
    if tables and (root / "images").is_dir():
        found = _from_tables(root, tables)
    else:
        parts = [root / part for part in PARTS if (root / part).is_dir()]
        found = _from_folders(root, parts or [root])
    if len(found) < 2:
        raise ValueError(f"{len(found)} class(es) of images in {root.absolute()}; {LAYOUTS}")
    return {name: sorted(found[name]) for name in sorted(found)}


def _from_folders(root: Path, parts: list[Path]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in parts:
        for folder in part.iterdir():
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            found.setdefault(folder.name, []).extend(images_in(root, folder))
    return found


def _from_tables(root: Path, tables: list[Path]) -> dict[str, list[str]]:
    there = {each.name for each in (root / "images").iterdir()}
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for table in tables:
        with table.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            if missing := {"filename", "label"} - set(reader.fieldnames or ()):
                columns = ",".join(reader.fieldnames or ()) or "nothing"
                raise ValueError(
                    f"{table} needs the columns filename,label, has {columns}; "
                    f"add {' and '.join(sorted(missing))}"
                )
            for line in reader:
                name = line["filename"] or ""
                if name not in there:
                    raise ValueError(
                        f"{table}, line {reader.line_num}: no file {name!r} in {root / 'images'}"
                    )
                if name in seen:
                    raise ValueError(f"{table}, line {reader.line_num}: {name} is listed twice; remove one")
                seen.add(name)
                found.setdefault(line["label"] or "", []).append(f"images/{name}")
    return found
