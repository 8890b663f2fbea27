"""Items by row: those of a data set, and synthetic ones behind them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Shaped
from numpy import ndarray
from torch import Tensor

BLOCK_BYTES = 64 * 2**20
LEVELS = 256  # of uint8
ROUNDING = 1e-5  # by which a float32 sum may leave [0, 1]


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
    Synthetic items may stand behind it (`extended`), as rows n, n+1, ...; they lie apart, so that the array
    is never copied, and what follows from the data set's items alone is that of `originals`.

    Attributes:
        array: the data set's items.
        added: the synthetic ones; None where there are none.
    """

    array: ndarray
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    added: ndarray | None = None
    _alone: "Inputs | None" = field(default=None, repr=False)
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
        return len(self.array) + (0 if self.added is None else len(self.added))

    @property
    def originals(self) -> "Inputs":
        """The data set's items alone."""
        return self if self._alone is None else self._alone

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return self.array.shape[1:]

    @property
    def is_image(self) -> bool:
        """Whether items are (h, w) or (c, h, w) with one, three or four channels."""
        return len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[0] in (1, 3, 4))

    def extended(self, items: Shaped[ndarray, "m ..."]) -> "Inputs":
        """These inputs and, behind them, synthetic items.

        Raises:
            ValueError: items of another shape or type, none at all, or numbers that are not finite.
        """
        own = (self.shape, self.array.dtype)
        if len(items) == 0 or (items.shape[1:], items.dtype) != own:
            raise ValueError(
                f"synthetic items must be (m, ...) of shape {own[0]} and type {own[1]} with m > 0, got "
                f"{items.shape} of {items.dtype}; use Inputs.stored for unit images"
            )
        if items.dtype != np.uint8 and not np.isfinite(items).all():
            raise ValueError("synthetic items must be finite, got NaN or infinity; look at the generator")
        added = items.copy() if self.added is None else np.concatenate([self.added, items])
        return Inputs(self.array, self.device, added, self.originals)

    def stored(self, images: Float[Tensor, "b ..."]) -> Shaped[ndarray, "b ..."]:
        """Unit images, in [0, 1], as these inputs store items: uint8 by rounding 255 times the value.

        Raises:
            ValueError: another shape, or numbers outside [0, 1] by more than rounding.
        """
        values = images.detach().float().cpu().numpy()
        if values.shape[1:] != self.shape:
            raise ValueError(f"unit images must have the items' shape {self.shape}, got {values.shape[1:]}")
        inside = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
        if not inside.all():
            raise ValueError(
                f"unit images must lie in [0, 1], got {values[~inside][0]}; look at the generator"
            )
        values = values.clip(0, 1)
        if self.array.dtype == np.uint8:
            return np.rint(values * np.float32(255)).astype(np.uint8)
        return values.astype(self.array.dtype)

    def take(self, rows: ndarray | Tensor) -> Tensor:
        """The items of these rows, in this order, on the device, as stored (float64 as float32)."""
        if self.originals._resident is not None:
            return self._gathered(torch.as_tensor(rows, device=self.device))
        index = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return torch.from_numpy(_plain(self.read(index))).to(self.device, non_blocking=True)

    def blocks(self) -> list[ndarray]:
        """All rows in order, cut so that one block's items stay below 64 MiB."""
        each = max(1, int(np.prod(self.shape)) * self.array.dtype.itemsize)
        return np.array_split(np.arange(len(self)), max(1, -(-len(self) * each // BLOCK_BYTES)))

    def pixels(self, rows: ndarray) -> Float32[ndarray, "b d"]:
        """Stored items flattened to float32, uint8 divided by 255; never centered, scaled or augmented."""
        block = self.read(rows).reshape(len(rows), -1)
        return (
            block.astype(np.float32) / np.float32(255)
            if block.dtype == np.uint8
            else block.astype(np.float32)
        )

    @cached_property
    def moments(self) -> Moments:
        """Mean and standard deviation of the data set's items, read once, block by block."""
        if self._alone is not None:
            return self._alone.moments
        channels = self.shape[0] if self.is_image and len(self.shape) == 3 else 1 if self.is_image else -1
        counted = channels > 0 and self.array.dtype == np.uint8
        mean, std = self._counted(channels) if counted else self._summed(channels)
        return Moments(mean.astype(np.float32), np.where(std < 1e-6, 1, std).astype(np.float32))

    def _summed(self, channels: int) -> tuple[Float64[ndarray, " c"], Float64[ndarray, " c"]]:
        total = square = np.float64(0)
        for rows in self.blocks():
            block = self.pixels(rows).astype(np.float64)
            block = block.reshape(len(rows), channels, -1) if channels > 0 else block[:, :, None]
            total = total + block.sum(axis=(0, 2)) / block.shape[2]
            square = square + (block**2).sum(axis=(0, 2)) / block.shape[2]
        mean = total / len(self)
        return np.asarray(mean), np.sqrt(np.maximum(square / len(self) - mean**2, 0))

    def _counted(self, channels: int) -> tuple[Float64[ndarray, " c"], Float64[ndarray, " c"]]:
        """As `_summed`, of uint8 by counting each channel's levels, which is ten times faster."""
        counts = np.zeros((channels, LEVELS), np.int64)
        for rows in self.blocks():
            block = self.array[rows[0] : rows[-1] + 1].reshape(len(rows), channels, -1)
            for channel in range(channels):
                counts[channel] += np.bincount(block[:, channel].ravel(), minlength=LEVELS)
        levels, shares = np.arange(LEVELS) / (LEVELS - 1), counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ levels
        return mean, np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1))

    def derived(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for these inputs and this key (frozen layers' outputs, say)."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def mapped(self, key: Any, make: Callable[["Inputs"], ndarray]) -> "Inputs":
        """`make` of these inputs, floats (n, ...) in their order, as inputs; made once for this key.

        That of the data set's items is made once for good, that of all synthetic ones whenever some are new.
        """
        made = self.originals.derived(key, lambda: Inputs(make(self.originals), self.device))
        if (added := self.added) is None:
            return made
        return self.derived(key, lambda: made.extended(make(Inputs(added, self.device))))

    @cached_property
    def _resident(self) -> Tensor | None:
        """The data set's items on the device, if they fit."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if self.array.nbytes > free // 2:
                return None
        elif isinstance(self.array, np.memmap):
            return None
        return torch.from_numpy(_plain(self.array)).to(self.device)

    @cached_property
    def _behind(self) -> Tensor:
        """The synthetic items on the device."""
        assert self.added is not None
        return torch.from_numpy(_plain(self.added)).to(self.device)

    def _gathered(self, rows: Tensor) -> Tensor:
        """From both parts on the device; reads nothing back from it."""
        own = self.originals._resident
        assert own is not None
        if self.added is None:
            return own.index_select(0, rows)
        n = len(self.array)
        front = own.index_select(0, rows.clamp(max=n - 1))
        behind = self._behind.index_select(0, (rows - n).clamp(min=0))
        return torch.where((rows < n).reshape(-1, *[1] * len(self.shape)), front, behind)

    def read(self, rows: ndarray) -> ndarray:
        """The items of these rows, in this order, on the host, as stored."""
        if self.added is None:
            return self.array[rows]
        n, own = len(self.array), rows < len(self.array)
        out = np.empty((len(rows), *self.shape), self.array.dtype)
        out[own], out[~own] = self.array[rows[own]], self.added[rows[~own] - n]
        return out


def _plain(array: ndarray) -> ndarray:
    """What torch can take: contiguous, in native byte order, writable, and no wider than float32."""
    native = np.uint8 if array.dtype == np.uint8 else np.float32
    plain = np.ascontiguousarray(array, dtype=native)
    return plain if plain.flags.writeable else plain.copy()
