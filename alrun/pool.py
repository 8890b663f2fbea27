"""The pool: inputs, the labels bought so far, and the tree of random streams."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

NOT_BOUGHT = -1
BLOCK_BYTES = 64 * 2**20


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent generator for a seed and a path of names; adding a consumer moves no other stream."""
    path = "/".join(f"{type(name).__name__}:{name}" for name in names)
    words = np.frombuffer(hashlib.sha256(path.encode()).digest(), dtype=np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


@dataclass(frozen=True)
class Seeds:
    """For each branch of chance a seed of its own, or None to follow the run's: so that one can vary alone.

    Branches: `split` (subsets of the data set), `initial` (first labeled rows), `weights` (initial weights),
    `order` (mini-batches, augmentation, dropout while training), `select` (strategies), `oracle`, and
    `artifacts` (encoders trained before round 0, which runs share that have the same seed here).
    """

    split: Annotated[int, Ge(0)] | None
    initial: Annotated[int, Ge(0)] | None
    weights: Annotated[int, Ge(0)] | None
    order: Annotated[int, Ge(0)] | None
    select: Annotated[int, Ge(0)] | None
    oracle: Annotated[int, Ge(0)] | None
    artifacts: Annotated[int, Ge(0)] | None

    def stream(self, seed: int, branch: str, *names: str | int) -> np.random.Generator:
        """The generator of a branch and further names in a run of this seed."""
        own = getattr(self, branch)
        return stream(seed if own is None else own, branch, *names)


class Moments(NamedTuple):
    """Mean and standard deviation of the inputs on the network's scale (uint8 counts as value / 255).

    One number a channel for images (h, w) or (c, h, w), one a feature otherwise; where constant, std is 1.
    """

    mean: Float32[ndarray, " c"]
    std: Float32[ndarray, " c"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Items of one array or memory map (n, ...), uint8 or floating, handed out by row on one device.

    An array that fits is kept whole on the device; otherwise rows are read and moved as they are asked for.
    """

    array: ndarray
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuses what no network can read.

        Raises:
            ValueError: no items, or a type that is neither uint8 nor floating.
        """
        if self.array.ndim < 2 or len(self.array) == 0:
            raise ValueError(
                f"inputs must be (n, ...) with an item and a feature at least, got shape {self.array.shape}"
            )
        if self.array.dtype != np.uint8 and self.array.dtype.kind != "f":
            raise ValueError(
                f"inputs must be uint8 or floating, got {self.array.dtype}; use astype('float32')"
            )

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return self.array.shape[1:]

    @property
    def is_image(self) -> bool:
        """Whether items are (h, w) or (c, h, w) with one, three or four channels."""
        return len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[0] in (1, 3, 4))

    def take(self, rows: ndarray | torch.Tensor) -> torch.Tensor:
        """The items of these rows, in this order, on the device, as stored (float64 as float32)."""
        if self._resident is not None:
            index = torch.as_tensor(rows, device=self.device)
            return self._resident.index_select(0, index)
        index = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        return torch.from_numpy(_plain(self.array[index])).to(self.device, non_blocking=True)

    def blocks(self) -> list[ndarray]:
        """All rows in order, cut so that one block's items stay below 64 MiB."""
        each = max(1, int(np.prod(self.shape)) * self.array.dtype.itemsize)
        return np.array_split(np.arange(len(self)), max(1, -(-len(self) * each // BLOCK_BYTES)))

    def pixels(self, rows: ndarray) -> Float32[ndarray, "b d"]:
        """Stored items flattened to float32, uint8 divided by 255; never centered, scaled or augmented."""
        block = self.array[rows].reshape(len(rows), -1)
        return (
            block.astype(np.float32) / np.float32(255)
            if block.dtype == np.uint8
            else block.astype(np.float32)
        )

    @cached_property
    def moments(self) -> Moments:
        """Mean and standard deviation of all items, read once, block by block."""
        channels = self.shape[0] if self.is_image and len(self.shape) == 3 else 1 if self.is_image else -1
        total = square = np.float64(0)
        for rows in self.blocks():
            block = self.pixels(rows).astype(np.float64)
            block = block.reshape(len(rows), channels, -1) if channels > 0 else block[:, :, None]
            total = total + block.sum(axis=(0, 2)) / block.shape[2]
            square = square + (block**2).sum(axis=(0, 2)) / block.shape[2]
        mean = total / len(self)
        std = np.sqrt(np.maximum(square / len(self) - mean**2, 0))
        return Moments(np.asarray(mean, np.float32), np.where(std < 1e-6, 1, std).astype(np.float32))

    def derived(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for these inputs and this key (frozen layers' outputs, say)."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @cached_property
    def _resident(self) -> torch.Tensor | None:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if self.array.nbytes > free // 2:
                return None
        elif isinstance(self.array, np.memmap):
            return None
        return torch.from_numpy(_plain(self.array)).to(self.device)


@dataclass(frozen=True, eq=False)
class Source:
    """A second data set of the pool's kind and classes, all of whose labels (m,) are known and cost nothing.

    It is what domain adaptation learns from; its rows are in no index space but its own.
    """

    inputs: Inputs
    labels: Int64[ndarray, " m"]

    def __post_init__(self) -> None:
        """Refuses labels that do not fit.

        Raises:
            ValueError: another number of labels than of items, or a negative label.
        """
        if len(self.labels) != len(self.inputs):
            raise ValueError(
                f"a source of {len(self.inputs)} items needs as many labels, got {len(self.labels)}"
            )
        if self.labels.min() < 0:
            raise ValueError(f"all labels of a source are known, got {self.labels.min()}; give every label")


@dataclass(frozen=True, eq=False)
class Pool:
    """Inputs of n items and the labels bought so far; its rows are the one index space of the program.

    True labels are not here: `labels` is -1 (n,) wherever none was bought.
    """

    inputs: Inputs
    labels: Int64[ndarray, " n"]
    classes: int
    source: Source | None = None

    def __post_init__(self) -> None:
        """Refuses labels that do not fit, and a source of another kind.

        Raises:
            ValueError: another number of labels than of items, a label outside -1..classes-1, or a source
                whose items have another shape or type, or whose labels are no classes of the pool.
        """
        if len(self.labels) != len(self.inputs):
            raise ValueError(
                f"a pool of {len(self.inputs)} items needs as many labels, got {len(self.labels)}"
            )
        if self.labels.min() < NOT_BOUGHT or self.labels.max() >= self.classes:
            wrong = self.labels[(self.labels < NOT_BOUGHT) | (self.labels >= self.classes)][0]
            raise ValueError(f"labels must be in 0..{self.classes - 1} (-1 for not bought), got {wrong}")
        if self.source is not None:
            _require_kin(self.source, self.inputs, self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labeled(self) -> Int64[ndarray, " l"]:
        """Rows with a bought label, sorted."""
        return np.flatnonzero(self.labels != NOT_BOUGHT).astype(np.int64)

    @cached_property
    def unlabeled(self) -> Int64[ndarray, " u"]:
        """Rows without a label, sorted."""
        return np.flatnonzero(self.labels == NOT_BOUGHT).astype(np.int64)

    @property
    def blank(self) -> "Pool":
        """The same pool before any purchase."""
        return replace(self, labels=np.full(len(self), NOT_BOUGHT, np.int64))

    def reveal(self, rows: Int64[ndarray, " b"], answers: Int64[ndarray, " b"]) -> "Pool":
        """A new pool that knows the answers for these rows too.

        Raises:
            ValueError: a row out of range, repeated or already labeled, or an answer that is no class.
        """
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(
                f"rows must be in 0..{len(self) - 1}, got {rows[(rows < 0) | (rows >= len(self))][0]}"
            )
        if len(np.unique(rows)) != len(rows):
            raise ValueError(
                f"a batch may name a row once, got {len(rows)} rows of which {len(np.unique(rows))} differ"
            )
        if (known := rows[self.labels[rows] != NOT_BOUGHT]).size:
            raise ValueError(f"row {known[0]} is already labeled; choose among pool.unlabeled")
        if len(answers) and (answers.min() < 0 or answers.max() >= self.classes):
            wrong = answers[(answers < 0) | (answers >= self.classes)][0]
            raise ValueError(f"answers must be in 0..{self.classes - 1}, got {wrong}")
        labels = self.labels.copy()
        labels[rows] = answers
        return replace(self, labels=labels)


def smallest(rows: Int64[ndarray, " m"], values: Float64[ndarray, " m"], size: int) -> Int64[ndarray, " b"]:
    """The `size` rows with the smallest values in ascending order, ties to the smaller row.

    A partial selection: only what may be chosen is sorted.

    Raises:
        ValueError: a value that is no number; NaN is never sorted.
    """
    if np.isnan(values).any():
        bad = rows[np.isnan(values)][0]
        raise ValueError(
            f"scores must be numbers, got NaN for row {bad}; check the inputs and the training loss"
        )
    if size < len(rows):
        near = np.flatnonzero(values <= np.partition(values, size - 1)[size - 1])
        rows, values = rows[near], values[near]
    return rows[np.lexsort((rows, values))][:size]


def _require_kin(source: Source, inputs: Inputs, classes: int) -> None:
    own, theirs = ((each.shape, each.array.dtype) for each in (inputs, source.inputs))
    if own != theirs:
        raise ValueError(
            f"items of pool and source must agree in shape and type, got {own} and {theirs}; "
            "prepare both the same way"
        )
    if source.labels.max() >= classes:
        raise ValueError(f"labels of the source must be in 0..{classes - 1}, got {source.labels.max()}")


def _plain(array: ndarray) -> ndarray:
    """What torch can take: contiguous, in native byte order, writable, and no wider than float32."""
    native = np.uint8 if array.dtype == np.uint8 else np.float32
    plain = np.ascontiguousarray(array, dtype=native)
    return plain if plain.flags.writeable else plain.copy()
