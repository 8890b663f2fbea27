"""How far apart generated images lie, beside those of the pool: a collapsed generator is seen by it."""

from typing import NamedTuple

import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

TINY = 1e-12


class Variety(NamedTuple):
    """Euclidean distances over the numbers of unit images, and what follows from them.

    Attributes:
        generated, real: of all pairs of generated images, and of as many real ones.
        nearest, real_nearest: of each of these images to the nearest of other real ones.
        reached, real_reached: share of those others that are the nearest one of some of these.
    """

    generated: Float32[ndarray, " p"]
    real: Float32[ndarray, " p"]
    nearest: Float32[ndarray, " m"]
    real_nearest: Float32[ndarray, " m"]
    reached: float
    real_reached: float

    @property
    def numbers(self) -> dict[str, float]:
        """Each about 1 where generated images are drawn as the real ones were.

        `spread`: mean distance of pairs; 0 for images that are all the same. `nearness`: mean distance to
        the nearest real image; large for images unlike any. `reach`: real images that are nearest to some;
        small for images that are all like a few.
        """
        return {
            "spread": _ratio(float(self.generated.mean()), float(self.real.mean())),
            "nearness": _ratio(float(self.nearest.mean()), float(self.real_nearest.mean())),
            "reach": _ratio(self.reached, self.real_reached),
        }


def variety(
    generated: Float32[Tensor, " m *item"],
    real: Float32[Tensor, " m *item"],
    others: Float32[Tensor, " k *item"],
) -> Variety:
    """Generated images beside as many real ones, and both beside other real ones; at least two of each."""
    generated, real, others = generated.flatten(1), real.flatten(1), others.flatten(1)
    nearest, which = torch.cdist(generated, others).min(1)
    real_nearest, real_which = torch.cdist(real, others).min(1)
    reached, real_reached = (len(each.unique()) / len(others) for each in (which, real_which))
    return Variety(
        _pairs(generated),
        _pairs(real),
        nearest.cpu().numpy(),
        real_nearest.cpu().numpy(),
        reached,
        real_reached,
    )


def _pairs(x: Float32[Tensor, "m d"]) -> Float32[ndarray, " p"]:
    places = torch.triu_indices(len(x), len(x), 1, device=x.device)
    # products of matrices would leave distances of images that are all the same above 0
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distances[places[0], places[1]].cpu().numpy()


def _ratio(value: float, of: float) -> float:
    return value / max(of, TINY)
