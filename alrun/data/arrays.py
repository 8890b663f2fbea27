"""Arrays of one's own: an `.npz` file, or a folder of `.npy` files that may be larger than memory."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alrun.data.data import Data, Items
from alrun.data.subset import Classes, PoolSize, Subset, shown

NAMES = ("x_train", "y_train", "x_test", "y_test")
SOURCE = ("x_source", "y_source")
# What NumPy raises for bytes that are no array, or that it will not load.
BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Arrays:
    """`x_train`, `y_train`, `x_test`, `y_test` in one `.npz` file or as four `.npy` files in a folder.

    `x_source` and `y_source` may stand beside them: a second, labeled set of the same kind, from which domain
    adaptation (featurizer=fdal) learns.
    x is (n, ...), uint8 or floating; images are (n, h, w) or (n, c, h, w), not channel-last. y is (n,) or
    (n, 1), whole numbers 0..c-1. The folder's x are memory maps, copied only where `classes` or `pool_size`
    leave rows out. `path` is relative to the current folder. Pickled objects are never loaded.
    """

    path: str
    classes: Classes
    pool_size: PoolSize
    balanced: bool

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The arrays as a data set; `data_dir` is not read.

        Raises:
            ValueError: no such file, a broken one, missing arrays, or arrays that are no data set.
        """
        del data_dir
        try:
            found = _read(Path(self.path).expanduser())
            parts = {name: _part(name, found) for name in ("train", "test", "source") if f"x_{name}" in found}
            names = _names([part.labels for part in parts.values()], self.classes)
            subset = Subset(self.classes, self.pool_size, self.balanced)
            source = parts.get("source")
            return subset.of(parts["train"], parts["test"], names=names, chance=chance, source=source)
        except ValueError as error:
            raise ValueError(f"data set {self.path}: {error}") from None


def _read(path: Path) -> dict[str, ndarray]:
    if path.is_dir():
        there = sorted(file.stem for file in path.glob("*.npy"))
        return {name: _array(name, path / f"{name}.npy") for name in _wanted(there, path)}
    if not path.is_file():
        raise ValueError(f"no such file or folder (the current folder is {Path.cwd()}); check dataset.path")
    if path.suffix != ".npz":
        raise ValueError("must be an .npz file or a folder of .npy files; save it with numpy.savez")
    try:
        archive = np.load(path, allow_pickle=False)
    except BROKEN as error:
        raise ValueError(f"not an .npz file ({_reason(error)}); save it again with numpy.savez") from None
    if isinstance(archive, ndarray):
        raise ValueError("holds one array under the name .npz; save four with numpy.savez")
    with archive:
        return {name: _array(name, archive) for name in _wanted(archive.files, path)}


def _array(name: str, source: Path | np.lib.npyio.NpzFile) -> ndarray:
    try:
        if isinstance(source, Path):
            return np.load(source, mmap_mode="r", allow_pickle=False)
        return source[name]
    except MemoryError:
        raise ValueError(
            f"{name} does not fit into memory; save each array with numpy.save in a folder"
        ) from None
    except BROKEN as error:
        raise ValueError(f"{name} cannot be read ({_reason(error)}); save it again, as numbers") from None


def _wanted(there: list[str], path: Path) -> tuple[str, ...]:
    """Names of the arrays to be read: four, and the source's two if there is one of them."""
    names = (*NAMES, *SOURCE) if set(SOURCE) & set(there) else NAMES
    if missing := [name for name in names if name not in there]:
        kind = "folder" if path.is_dir() else "file"
        raise ValueError(
            f"needs the arrays {', '.join(names)}; {', '.join(missing)} missing, "
            f"the {kind} has {', '.join(there) or 'none'}"
        )
    return names


def _part(name: str, found: dict[str, ndarray]) -> Items:
    items = Items(_items(f"x_{name}", found[f"x_{name}"]), _labels(f"y_{name}", found[f"y_{name}"]))
    if items.inputs.ndim == 0 or len(items.inputs) != len(items.labels):
        raise ValueError(
            f"x_{name} and y_{name} must have the same length, "
            f"got shape {items.inputs.shape} and {len(items.labels)} labels"
        )
    return items


def _items(name: str, array: ndarray) -> ndarray:
    if (
        array.ndim == 4
        and array.shape[3] == 3
        and array.shape[1] not in (1, 3, 4)
        and array.dtype == np.uint8
    ):
        raise ValueError(
            f"{name} looks like channel-last images {array.shape}, images must be (n, c, h, w); "
            f"save numpy.transpose({name}, (0, 3, 1, 2))"
        )
    return array


def _labels(name: str, array: ndarray) -> Int64[ndarray, " n"]:
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise ValueError(f"{name} must be (n,) or (n, 1), got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, got {array.dtype}; save {name}.astype('int64')")
    labels = np.array(array, dtype=np.int64).reshape(-1)
    if (negative := np.flatnonzero(labels < 0)).size:
        raise ValueError(
            f"{name} must be 0..c-1, got {labels[negative[0]]} in row {negative[0]}; number classes from 0"
        )
    return labels


def _names(parts: list[ndarray], classes: Classes) -> dict[int, str]:
    """Names of all labels that occur; without a choice of classes they must be 0..c-1."""
    labels = np.unique(np.concatenate(parts)).tolist()
    if classes is None and labels != list(range(len(labels))):
        choice = ",".join(map(str, labels[:10])) + (",..." if len(labels) > 10 else "")
        raise ValueError(
            f"labels must be 0..c-1 without gaps, got {shown(labels)}; give dataset.classes=[{choice}]"
        )
    return {label: str(label) for label in labels}


def _reason(error: Exception) -> str:
    """One line; NumPy's advice to allow pickled objects is left out."""
    if "pickle" in str(error):
        return "no plain numbers but perhaps pickled Python objects, which can run code and are never loaded"
    return (str(error) or type(error).__name__).splitlines()[0]
