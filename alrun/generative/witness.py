"""Who looks at a generator while it is trained: always at the same latents, beside the same real images."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy import ndarray
from torch import Tensor

from alrun.generative.generator import unit
from alrun.generative.networks import Pair
from alrun.generative.variety import Variety, variety
from alrun.pool import Inputs, stream

COMPARED = 256  # generated images, and as many real ones
FEWEST = 6
SHOWN = 12
STAGES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # shares of all iterations

Images = Float32[Tensor, " m *item"]


@dataclass(frozen=True, eq=False)
class Witness:
    """Latents, unit images of the pool that stand beside what is made of them, and others."""

    latents: Float32[Tensor, "m l"]
    real: Images
    others: Float32[Tensor, " k *item"]

    @classmethod
    def of(cls, inputs: Inputs, latent: int, seed: int) -> "Witness":
        """As many latents as real images, at most 256, and up to twice as many others."""
        rng = stream(seed, "witness")
        rows = np.resize(rng.permutation(len(inputs)), max(FEWEST, len(inputs)))[: 3 * COMPARED]
        count = len(rows) // 3
        z = torch.from_numpy(rng.standard_normal((count, latent), dtype=np.float32)).to(inputs.device)
        stored = inputs.take(np.concatenate([np.sort(rows[:count]), np.sort(rows[count:])]))
        images = stored.float() / 255 if stored.dtype == torch.uint8 else stored.float()
        return cls(z, images[:count], images[count:])

    def drawn(self, pair: Pair) -> Images:
        """What the generator makes of the latents in evaluation mode; it is left as it was."""
        training = pair.generator.training
        with torch.no_grad():
            drawn = unit(pair.generator.eval()(self.latents), pair.darkest, tuple(self.real.shape[1:]))
        pair.generator.train(training)
        return drawn

    def variety(self, drawn: Images) -> Variety:
        """How these lie beside the pool's images."""
        return variety(drawn, self.real, self.others)


def is_stage(before: int, done: int, total: int) -> bool:
    """Whether a share of `STAGES` was reached between two counts of iterations."""
    return any(before < share * total <= done for share in STAGES)


def shown(drawn: Images) -> UInt8[Tensor, " s *item"]:
    """The first twelve as they are kept."""
    return (drawn[:SHOWN] * 255).round().to(torch.uint8).cpu()


def as_array(images: Tensor) -> Float32[ndarray, " b *item"]:
    """Unit images for pictures, kept ones too."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    return images.cpu().numpy()
