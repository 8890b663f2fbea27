"""Features that need no network of their own: the model's last hidden layer, pixels, principal components."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float32
from numpy import ndarray
from sklearn.decomposition import PCA, IncrementalPCA

from alrun.features.featurizer import Embed
from alrun.pool import Inputs

WHOLE_BYTES = 2**30


@dataclass(frozen=True)
class Penultimate:
    """Inputs of the model's last linear layer, refreshed each round. Source: S0 section 4.3."""

    depends_on_model = True

    def make(self, inputs: Inputs, embed: Embed, rng: np.random.Generator) -> Float32[ndarray, "n d"]:
        """Embeddings of all inputs by the round's model."""
        del rng
        return embed(np.arange(len(inputs)))


@dataclass(frozen=True)
class Pixels:
    """Stored inputs flattened to float32, uint8 divided by 255; never centered, scaled or augmented."""

    depends_on_model = False

    def make(self, inputs: Inputs, embed: Embed, rng: np.random.Generator) -> Float32[ndarray, "n d"]:
        """The inputs themselves."""
        del embed, rng
        return np.concatenate([inputs.pixels(rows) for rows in inputs.blocks()])


@dataclass(frozen=True)
class Pca:
    """Leading principal components of the pixels, at most as many as there are items and pixels.

    Up to 1 GiB of pixels scikit-learn's randomized solver sees all at once, beyond that its incremental one
    reads block by block. Signs are fixed by the solver's own rule.
    """

    components: Annotated[int, Ge(1)]
    depends_on_model = False

    def make(self, inputs: Inputs, embed: Embed, rng: np.random.Generator) -> Float32[ndarray, "n k"]:
        """Projections of all inputs."""
        del embed
        width = int(np.prod(inputs.shape))
        count = min(self.components, len(inputs), width)
        if 4 * width * len(inputs) <= WHOLE_BYTES:
            pixels = np.concatenate([inputs.pixels(rows) for rows in inputs.blocks()])
            solver = "full" if count > 0.8 * min(pixels.shape) else "randomized"
            fitted = PCA(count, svd_solver=solver, random_state=int(rng.integers(2**31)))
            return fitted.fit_transform(pixels).astype(np.float32)
        fitted = IncrementalPCA(count)
        each = max(5 * count, 4096)
        blocks = np.array_split(np.arange(len(inputs)), max(1, len(inputs) // each))
        for rows in blocks:
            fitted.partial_fit(inputs.pixels(rows))
        return np.concatenate([fitted.transform(inputs.pixels(rows)).astype(np.float32) for rows in blocks])
