"""Features that need no network of their own: the model's last hidden layer, pixels, principal components."""

from dataclasses import dataclass
from math import prod
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float32
from numpy import ndarray

from alrun.cache import Making
from alrun.features.featurizer import Embed
from alrun.pool import Inputs, Pool
from alrun.retrieval.projection import signs
from alrun.retrieval.spectrum import Rows

WHOLE_BYTES = 2**30
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Penultimate:
    """Inputs of the model's last linear layer, refreshed each round. Source: S0 section 4.3."""

    depends_on_model = True

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """Embeddings of all inputs by the round's model."""
        del rng, making
        return embed(np.arange(len(pool)))


@dataclass(frozen=True)
class Pixels:
    """Stored inputs flattened to float32, uint8 divided by 255; never centered, scaled or augmented."""

    depends_on_model = False
    cached = False

    def rows(self, inputs: Inputs) -> Rows:
        """The features of these inputs, read block by block."""
        return Rows(
            len(inputs), prod(inputs.shape), lambda part: inputs.pixels(np.arange(part.start, part.stop))
        )

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """The inputs themselves.

        Raises:
            ValueError: NaN or an infinite number among them.
        """
        del embed, rng, making
        inputs = pool.inputs
        out = np.empty((len(inputs), prod(inputs.shape)), np.float32)
        for rows in inputs.blocks():
            out[rows] = _finite_pixels(inputs, rows)
        return out


@dataclass(frozen=True)
class Pca:
    """Leading principal components of the pixels, at most as many as there are items and pixels.

    Up to 1 GiB of float32 pixels scikit-learn's PCA sees all at once (randomized where that pays); beyond,
    its incremental PCA, an approximation, reads block by block. No float64 copy of the inputs is made.
    Signs: the largest weight of each component is positive.
    """

    components: Annotated[int, Ge(1)]
    depends_on_model = False
    any_device = True  # scikit-learn computes on the CPU

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n k"]:
        """Projections of all inputs, the widest component first.

        Raises:
            ValueError: NaN or an infinite number among the inputs.
        """
        from sklearn.decomposition import PCA  # its import takes seconds

        inputs = pool.inputs
        width = prod(inputs.shape)
        count = min(self.components, len(inputs), width)
        seed = int(rng.integers(2**31))
        # constant or single items have no variance to take shares of
        with np.errstate(invalid="ignore", divide="ignore"):
            if 4 * width * len(inputs) > WHOLE_BYTES:
                return _in_blocks(inputs, count)
            fitted = PCA(count, copy=False, svd_solver="auto", random_state=seed)
            projected = fitted.fit_transform(Pixels().make(pool, embed, rng, making))
        return projected.astype(np.float32) * signs(np.asarray(fitted.components_))


def _in_blocks(inputs: Inputs, count: int) -> Float32[ndarray, "n k"]:
    from sklearn.decomposition import IncrementalPCA

    fitted = IncrementalPCA(count)
    # never fewer rows than components, as partial_fit demands
    blocks = np.array_split(np.arange(len(inputs)), max(1, len(inputs) // max(count, BLOCK_ROWS)))
    for rows in blocks:
        fitted.partial_fit(_finite_pixels(inputs, rows), check_input=False)
    turned = signs(np.asarray(fitted.components_))
    out = np.empty((len(inputs), count), np.float32)
    for rows in blocks:
        out[rows] = fitted.transform(inputs.pixels(rows)) * turned
    return out


def _finite_pixels(inputs: Inputs, rows: ndarray) -> Float32[ndarray, "b d"]:
    pixels = inputs.pixels(rows)
    finite = np.isfinite(pixels).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"features need finite inputs, got NaN or inf in row {rows[~finite][0]}; clean the data set"
        )
    return pixels
