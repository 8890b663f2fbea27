"""Featurizers that stand on a trained generator."""

from typing import Protocol, runtime_checkable

from alrun.features.encoding import require_unit_images
from alrun.features.featurizer import Featurizer
from alrun.generative.generator import Generator
from alrun.pool import Inputs


@runtime_checkable
class OnGenerator(Protocol):
    """What stands on a generator (`on_generator = True` says so) and is a featurizer only then.

    Its features are kept by its own settings and by the generator's digest.
    """

    on_generator: bool
    depends_on_model: bool

    def on(self, generator: Generator) -> Featurizer:
        """The featurizer that stands on this generator."""
        ...


def standing_on(generator: Generator | None, inputs: Inputs, featurizer: str) -> Generator:
    """The generator, if it draws images like these inputs.

    Raises:
        ValueError: there is none, or its images have another shape, or the inputs are no images in [0, 1].
    """
    if generator is None:
        raise ValueError(
            f"featurizer={featurizer} stands on a trained generator and got none; choose generator=wgan_gp"
        )
    if generator.shape != inputs.shape:
        raise ValueError(
            f"featurizer={featurizer} needs a generator of items like the pool's, of shape {inputs.shape}, "
            f"got one of shape {generator.shape}; train it on this pool"
        )
    require_unit_images(inputs, featurizer)
    return generator
