"""Features on their leading principal components."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray

from alrun.retrieval.spectrum import Rows, spectrum


@dataclass(frozen=True, eq=False)
class Projection:
    """An affine map of features to their leading principal components: (f - mean) directions, not whitened.

    Directions are orthonormal, widest first, the largest weight of each positive.
    """

    mean: Float64[ndarray, " d"]
    directions: Float64[ndarray, "d k"]

    @classmethod
    def of(cls, features: "Float32[ndarray, 'n d'] | Rows", dims: int) -> "Projection":
        """The projection of these rows on min(dims, d, n) components; those of no variance are left out.

        So k is 0 where all rows are equal. Memory is bounded, see `spectrum`.

        Args:
            features: an array, a memory map, or rows made block by block.
            dims: at least 1.

        Raises:
            ValueError: no rows or no features, dims below 1, or a feature that is not finite.
        Source: S4, section 3.2 (50 components).
        """
        rows = Rows.of(features)
        if dims < 1 or rows.count < 1 or rows.width < 1:
            raise ValueError(
                f"a projection needs a row, a feature and a dimension, got {rows.count} rows of {rows.width} "
                f"features and dims={dims}"
            )
        mean, directions, _ = spectrum(rows, min(dims, rows.width, rows.count))
        return cls(mean, directions * signs(directions.T))

    @property
    def dims(self) -> int:
        """Components, k."""
        return self.directions.shape[1]

    def apply(self, features: "Float32[ndarray, 'n d'] | Rows") -> Float32[ndarray, "n k"]:
        """The rows on the components.

        Products are taken in float64 and rounded once, so that equal rows stay equal in any block.

        Raises:
            ValueError: another number of features, or a feature that is not finite.
        """
        rows = self._fitting(features)
        return self._filled(rows, np.empty((rows.count, self.dims), np.float32))

    def write(self, features: "Float32[ndarray, 'n d'] | Rows", file: Path) -> Float32[ndarray, "n k"]:
        """As `apply`, into a .npy file; its memory map, read-only. The whole is never in memory.

        Raises:
            ValueError: as `apply`, or no component to write.
        """
        rows = self._fitting(features)
        if self.dims == 0:
            raise ValueError("all features are equal, so there is no component to write; use other features")
        shape = (rows.count, self.dims)
        out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        self._filled(rows, out)
        out.flush()
        return np.load(file, mmap_mode="r", allow_pickle=False)

    def _fitting(self, features: "Float32[ndarray, 'n d'] | Rows") -> Rows:
        rows = Rows.of(features)
        if rows.width != len(self.mean):
            raise ValueError(
                f"this projection is of {len(self.mean)} features, got {rows.width}; "
                "project what it was fitted to"
            )
        return rows

    def _filled(self, rows: Rows, out: Float32[ndarray, "n k"]) -> Float32[ndarray, "n k"]:
        for part, block in rows.blocks():
            block -= self.mean
            out[part] = block @ self.directions
        return out


def signs(components: Float[ndarray, "k d"]) -> Float32[ndarray, " k"]:
    """1 or -1 for each component: times it, the largest weight is positive."""
    largest = np.abs(components).argmax(axis=1)
    return np.where(components[np.arange(len(components)), largest] < 0, -1, 1).astype(np.float32)
