"""Matrices of features: in memory, or, where they are large, in the file in which they are kept."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray

from alrun.pool import BLOCK_BYTES

FILE = "features.npy"
MAPPED_BYTES = 2**30


def room(rows: int, width: int, folder: Path | None) -> Float32[ndarray, "n w"]:
    """An empty matrix; with a folder, one of more than 1 GiB is a map of the file that `keep` would write."""
    if folder is None or 4 * rows * width <= MAPPED_BYTES:
        return np.empty((rows, width), np.float32)
    return np.lib.format.open_memmap(folder / FILE, "w+", np.float32, (rows, width))


def keep(folder: Path, features: Float32[ndarray, "n w"]) -> None:
    """Writes the matrix into the folder's file, unless it is a map of that file."""
    file = folder / FILE
    if isinstance(features, np.memmap) and file.exists() and Path(str(features.filename)).samefile(file):
        features.flush()
    else:
        np.save(file, features, allow_pickle=False)


def read(folder: Path) -> Float32[ndarray, "n w"]:
    """The matrix in the folder's file; above 1 GiB a map of it, in which writes stay in memory.

    Raises:
        OSError: the file is not there.
    """
    file = folder / FILE
    large = file.stat().st_size > MAPPED_BYTES
    return np.load(file, mmap_mode="c" if large else None, allow_pickle=False)


def is_finite(features: Float32[ndarray, "n w"]) -> bool:
    """Whether all are numbers, read block by block."""
    return all(bool(np.isfinite(block).all()) for block in _blocks(features))


def variances(features: Float32[ndarray, "n w"]) -> Float64[ndarray, " w"]:
    """The variance of each column, read block by block."""
    mean = np.zeros(features.shape[1])
    for block in _blocks(features):
        mean += block.sum(0, dtype=np.float64) / len(features)
    variance = np.zeros_like(mean)
    for block in _blocks(features):
        variance += np.square(block - mean).sum(0) / len(features)
    return variance


def _blocks(features: Float32[ndarray, "n w"]) -> Iterator[Float32[ndarray, "b w"]]:
    """Consecutive rows, each block below 64 MiB."""
    step = max(1, BLOCK_BYTES // (4 * features.shape[1]))
    for start in range(0, len(features), step):
        yield features[start : start + step]
