"""The benchmarks that torchvision knows, read with its classes from the layout it writes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torchvision import datasets

from alrun.data.data import Data, Items
from alrun.data.download import Contents, Source, opened
from alrun.data.subset import Classes, PoolSize, Subset

Name = Literal["mnist", "fashion_mnist", "emnist_letters", "usps", "cifar10", "cifar100", "stl10"]
STL10_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Torchvision:
    """A benchmark: its training images are the pool; uint8, (h, w) or (3, h, w).

    Missing files are downloaded into `data_dir`. Folders there: MNIST, FashionMNIST, EMNIST, USPS,
    cifar-10-batches-py, cifar-100-python, stl10_binary. EMNIST's letters are turned upright, upper and lower
    case are one class; STL-10's unlabeled images are left out. `first`: only so many training images, as the
    files have them, are the pool, before classes are chosen; null: all.
    """

    name: Name
    first: PoolSize
    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The benchmark.

        Raises:
            FileNotFoundError: files are missing and cannot be downloaded; says which and where to put them.
            ValueError: damaged files, fewer images than `first`, or a subset that cannot be drawn.
        """
        pool, test, names = opened(self.name, SOURCES[self.name], data_dir)
        if self.first is not None:
            pool = _first(pool, self.first)
        subset = Subset(self.classes, self.pool_size, self.balanced)
        return subset.of(pool, test, names=dict(enumerate(names)), chance=chance)


@dataclass(frozen=True)
class Svhn:
    """Street View house numbers, (3, 32, 32) uint8, in `data_dir`/SVHN; `extra` adds 531,131 easier images.

    The digit 0, label 10 in the files, is class 0. Reading with `extra` needs about 4 GB for a moment.
    """

    extra: bool
    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The house numbers; pool rows are the training images, then the extra ones.

        Raises:
            FileNotFoundError: files are missing and cannot be downloaded; says which and where to put them.
            ValueError: damaged files, or a subset that cannot be drawn.
        """
        parts = ("train", "extra") if self.extra else ("train",)
        files = tuple(f"{part}_32x32.mat" for part in (*parts, "test"))
        source = Source("SVHN", files, (), "http://ufldl.stanford.edu/housenumbers", partial(_svhn, parts))
        pool, test, names = opened("svhn", source, data_dir)
        subset = Subset(self.classes, self.pool_size, self.balanced)
        return subset.of(pool, test, names=dict(enumerate(names)), chance=chance)


class _LabeledStl10(datasets.STL10):
    """STL-10 that does not ask for the 2.6 GB of unlabeled images, nor read them for a checksum."""

    train_list = datasets.STL10.train_list[:2]


def _first(items: Items, count: int) -> Items:
    if count > len(items.labels):
        raise ValueError(f"first wants {count} images but there are {len(items.labels)}; lower dataset.first")
    return Items(items.inputs[:count], items.labels[:count])


def _mnist(kind: type[datasets.MNIST], names: tuple[str, ...], root: Path, download: bool) -> Contents:
    parts = (kind(root, train=train, download=download) for train in (True, False))
    pool, test = (Items(part.data.numpy(), part.targets.numpy()) for part in parts)
    return Contents(pool, test, names)


def _emnist(root: Path, download: bool) -> Contents:
    parts = (datasets.EMNIST(root, "letters", train=train, download=download) for train in (True, False))
    # the files hold each letter mirrored along its diagonal, and count letters from 1
    pool, test = (
        Items(np.ascontiguousarray(part.data.numpy().transpose(0, 2, 1)), part.targets.numpy() - 1)
        for part in parts
    )
    return Contents(pool, test, LETTERS)


def _usps(root: Path, download: bool) -> Contents:
    parts = (datasets.USPS(root / "USPS", train=train, download=download) for train in (True, False))
    pool, test = (Items(part.data, np.asarray(part.targets, dtype=np.int64)) for part in parts)
    return Contents(pool, test, DIGITS)


def _cifar(kind: type[datasets.CIFAR10], root: Path, download: bool) -> Contents:
    train, test = (kind(root, train=part, download=download) for part in (True, False))
    pool_items, test_items = (
        Items(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, dtype=np.int64))
        for part in (train, test)
    )
    return Contents(pool_items, test_items, tuple(train.classes))


def _stl10(root: Path, download: bool) -> Contents:
    parts = (_LabeledStl10(root, split=split, download=download) for split in ("train", "test"))
    pool, test = (
        Items(np.ascontiguousarray(part.data), np.asarray(part.labels, dtype=np.int64)) for part in parts
    )
    return Contents(pool, test, STL10_NAMES)


def _svhn(parts: tuple[str, ...], root: Path, download: bool) -> Contents:
    test = datasets.SVHN(root / "SVHN", split="test", download=download)
    pool = [datasets.SVHN(root / "SVHN", split=part, download=download) for part in parts]
    labels = np.concatenate([part.labels for part in pool])
    images = np.empty((len(labels), *test.data.shape[1:]), dtype=np.uint8)
    # np.concatenate would keep the files' order of axes, in which an image's pixels are not contiguous
    start = 0
    while pool:
        part = pool.pop(0).data
        images[start : start + len(part)] = part
        start += len(part)
    return Contents(Items(images, labels), Items(np.ascontiguousarray(test.data), test.labels), DIGITS)


def _idx(folder: str, kind: type[datasets.MNIST], names: tuple[str, ...], url: str) -> Source:
    archives = tuple(name for name, _ in kind.resources)
    files = tuple(name.removesuffix(".gz") for name in archives)
    return Source(f"{folder}/raw", files, archives, url, partial(_mnist, kind, names))


def _pickles(kind: type[datasets.CIFAR10]) -> Source:
    files = tuple(name for name, _ in [*kind.train_list, *kind.test_list])
    archives = (f"../{kind.filename}",)
    return Source(
        kind.base_folder, (*files, kind.meta["filename"]), archives, kind.url, partial(_cifar, kind)
    )


SOURCES: dict[Name, Source] = {
    "mnist": _idx("MNIST", datasets.MNIST, DIGITS, datasets.MNIST.mirrors[0]),
    "fashion_mnist": _idx(
        "FashionMNIST",
        datasets.FashionMNIST,
        tuple(datasets.FashionMNIST.classes),
        datasets.FashionMNIST.mirrors[0],
    ),
    "emnist_letters": Source(
        "EMNIST/raw",
        tuple(
            f"emnist-letters-{part}-{kind}-ubyte"
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        ("gzip.zip",),
        datasets.EMNIST.url,
        _emnist,
    ),
    "usps": Source("USPS", ("usps.bz2", "usps.t.bz2"), (), datasets.USPS.split_list["train"][0], _usps),
    "cifar10": _pickles(datasets.CIFAR10),
    "cifar100": _pickles(datasets.CIFAR100),
    "stl10": Source(
        _LabeledStl10.base_folder,
        tuple(name for name, _ in [*_LabeledStl10.train_list, *_LabeledStl10.test_list]),
        (f"../{_LabeledStl10.filename}",),
        _LabeledStl10.url,
        _stl10,
    ),
}
