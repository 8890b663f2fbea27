"""What every data set becomes: inputs and labels of the pool and of the test set, checked once."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alrun.cache import Watch
from alrun.pool import BLOCK_BYTES, Inputs, Pool, Source


class Items(NamedTuple):
    """Inputs (n, ...), their labels (n,) and, where each is a file, its name, as a source has them."""

    inputs: ndarray
    labels: Int64[ndarray, " n"]
    files: Shaped[ndarray, " n"] | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """A pool (n, ...), its true labels (n,), and a test set of the same kind.

    Inputs are uint8 or floating: images (h, w) or (c, h, w), otherwise features. Labels are 0..classes-1;
    a class may be absent from the pool, but not all but one. `files` and `test_files` name the file of each
    item, where items are files and the data set itself divides them. `source` holds a second set of the same
    kind and classes, with all its labels, that domain adaptation may learn from.
    """

    inputs: ndarray
    labels: Int64[ndarray, " n"]
    test_inputs: ndarray
    test_labels: Int64[ndarray, " m"]
    class_names: tuple[str, ...]
    files: Shaped[ndarray, " n"] | None = None
    test_files: Shaped[ndarray, " m"] | None = None
    source: Items | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be learned from; floating inputs are read once, block by block.

        Raises:
            ValueError: no items or no features, lengths, item shapes or types that disagree, inputs neither
                uint8 nor floating, NaN or infinite inputs, a label outside 0..classes-1, or one class only.
        """
        others = {"the test set": Items(self.test_inputs, self.test_labels)}
        if self.source is not None:
            others["the source"] = self.source
        _check_kind("the pool", self.inputs)
        _check_labels("the pool", self.inputs, self.labels, self.classes)
        for where, items in others.items():
            _check_kind(where, items.inputs)
            _check_kinship(where, items.inputs, self.inputs)
            _check_labels(where, items.inputs, items.labels, self.classes)
        if len(present := np.unique(self.labels)) < 2:
            raise ValueError(
                f"a data set with one class only: all {len(self.labels)} pool labels are "
                f"{self.class_names[present[0]]!r}; there must be at least two classes to tell apart"
            )
        _check_finite("the pool", self.inputs)
        for where, items in others.items():
            _check_finite(where, items.inputs)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def fingerprint(self) -> str:
        """sha256, 64 hex digits, of the pool's inputs: type, shape and content; no label and no test item."""
        return array_digest(self.inputs)

    def label_fingerprint(self) -> str:
        """sha256, 64 hex digits, of the pool's labels and of the test set's."""
        return array_digest(self.labels, self.test_labels)

    def source_fingerprint(self) -> str | None:
        """sha256, 64 hex digits, of the source's inputs, labels and number of classes; None without one."""
        if self.source is None:
            return None
        return array_digest(self.source.inputs, self.source.labels, np.array([self.classes]))

    def pool(self, labels: Int64[ndarray, " n"], device: torch.device) -> Pool:
        """The pool with these labels bought (-1 for none), and the source if there is one, on a device."""
        source = self.source and Source(Inputs(self.source.inputs, device), self.source.labels)
        return Pool(Inputs(self.inputs, device), labels, self.classes, source)


@runtime_checkable
class Dataset(Protocol):
    """A source of data; its fields are the settings of the group `dataset`."""

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """The data; `data_dir` holds downloaded files, `chance` is the run's `split` stream."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A data set whose images are brought into one file before they are first loaded; that may take hours."""

    def prepare(self, data_dir: Path, watch: Watch) -> None:
        """Does what is missing of that and tells `watch` how far it is; `load` would do so silently."""
        ...


def _check_kind(where: str, inputs: ndarray) -> None:
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise ValueError(
            f"inputs of {where} must be (n, ...) with at least one item and one feature, "
            f"got shape {inputs.shape}"
        )
    if inputs.dtype != np.uint8 and inputs.dtype.kind != "f":
        raise ValueError(
            f"inputs of {where} must be uint8 or floating, got {inputs.dtype}; "
            "convert them, e.g. with astype('float32')"
        )


def _check_kinship(where: str, inputs: ndarray, pool: ndarray) -> None:
    if inputs.shape[1:] != pool.shape[1:] or inputs.dtype != pool.dtype:
        raise ValueError(
            f"items of the pool and of {where} must agree in shape and type, got {pool.shape[1:]} "
            f"{pool.dtype} and {inputs.shape[1:]} {inputs.dtype}; prepare both the same way"
        )


def _check_labels(where: str, inputs: ndarray, labels: ndarray, classes: int) -> None:
    if len(labels) != len(inputs):
        raise ValueError(f"{where} needs one label an item, got {len(inputs)} items and {len(labels)} labels")
    if (wrong := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        raise ValueError(
            f"labels of {where} must be in 0..{classes - 1}, got {labels[wrong[0]]} in row {wrong[0]}"
        )


def _check_finite(where: str, inputs: ndarray) -> None:
    if inputs.dtype.kind != "f":
        return
    before = 0
    for block in _blocks(inputs):
        finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if not finite.all():
            row = before + int(finite.argmin())
            raise ValueError(
                f"inputs must be finite, row {row} of {where} holds NaN or infinity; remove or replace it"
            )
        before += len(block)


def _blocks(array: ndarray) -> Iterator[ndarray]:
    """Views of consecutive rows, each below 64 MiB or one row."""
    each = max(1, array.nbytes // max(1, len(array)))
    step = max(1, BLOCK_BYTES // each)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def array_digest(*arrays: ndarray) -> str:
    """sha256, 64 hex digits, of the arrays' types, shapes and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        for block in _blocks(array):
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()
