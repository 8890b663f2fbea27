"""ADBA: lines of images across the boundary of a classifier that is linear in a generator's latents."""

from dataclasses import dataclass
from math import sqrt
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray
from scipy.special import gammaincinv

from alrun.pool import smallest
from alrun.rounds import Batch, Round, name_of
from alrun.strategies.synthesis import asked_model
from alrun.strategies.two_classes import TWO_CLASSES, margins, not_two

TABLE = "adba"


@dataclass(frozen=True)
class Adba:
    """Lines through the candidates nearest to the boundary, along its normal: an annotation each.

    The classifier is linear in the latents z(x) of the generator: w.z + b = logit_1 - logit_0. The latents of
    the candidates with the smallest |w.z + b| that gave no line before are projected on the hyperplane
    w.z + b = 0; `images` latents are spread evenly on the normal through each foot, `spacing` apart, and
    closer where the ball would end. Their images become pool rows. Whoever labels says where the class
    changes, which labels all images of the line.

    Attributes:
        images: of a line, at least 2.
        spacing: between neighbors on a line, in latent units (the prior has deviation 1 along each axis).
        ball: share of the prior inside the ball around zero that lines must not leave, in (0, 1).

    Scores are the |w.z + b| of a line's candidate, alike for all its rows, smallest first; `adba.csv` names
    the candidate and the first row of each line, and how often the class changes on it.
    Source: Huijser and van Gemert 2017; S4 sections 2 and 5.3 (eleven images a line, one annotation).
    Departs: their public code has 14 images a line, and its loss also drives the points where the class
    changes to w.z + b = 0; here the images of a line are labeled like others, as S4 counts them. No label is
    bought for the candidate itself.
    """

    images: Annotated[int, Ge(2)]
    spacing: Annotated[float, Gt(0)]
    ball: Annotated[float, Gt(0), Lt(1)]
    needs = frozenset({"logits", "embeddings", "generator", "latent", "oracle", "synthetic", TWO_CLASSES})

    def select(self, current: Round, size: int) -> Batch:
        """The rows of `size` lines, each from where the classifier says class 0 on.

        Raises:
            ValueError: no model or one that is not linear in the latents, other than two classes, fewer
                candidates without a line than the batch, or images that are no numbers.
        """
        if current.pool.classes != 2:
            raise ValueError(not_two(name_of(self), current.pool.classes))
        normal, offset = plane(current)
        picked, distances = self._picked(current, size)
        generator = current.generator
        radius = sqrt(2 * float(gammaincinv(generator.latent / 2, self.ball)))  # of chi-squared
        rows = []
        for row, z in zip(picked.tolist(), current.embeddings(picked), strict=True):
            latents = line(z.astype(np.float64), normal, offset, (self.images, self.spacing, radius))
            rows.append(self._asked(current, latents, row))
        scores = distances.repeat(self.images)
        return Batch(np.concatenate(rows), scores, {"lines": float(size), "latent_radius": radius})

    def _picked(self, current: Round, size: int) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
        """The candidates nearest to the boundary that gave no line in earlier rounds, and their |w.z + b|."""
        before = [int(line["candidate"]) for line in current.written(TABLE)]
        rows = np.setdiff1d(current.candidates, before)
        if len(rows) < size:
            raise ValueError(
                f"adba draws {size} lines through as many candidates and {len(rows)} are left without one; "
                "lower budget.rounds or .per_round"
            )
        current.embeddings(rows)  # first: what follows of them costs no pass
        distances = np.abs(margins(current.logits(rows)))
        chosen = smallest(rows, distances, size)
        return chosen, distances[np.searchsorted(rows, chosen)]

    def _asked(self, current: Round, latents: Float32[ndarray, "m l"], row: int) -> Int64[ndarray, " m"]:
        """New rows of a line, bought."""
        generator = current.generator
        with current.timed("predict", 0), torch.inference_mode():
            images = generator.images(torch.from_numpy(latents).to(generator.device))
        rows = current.add(current.pool.inputs.stored(images))
        labels = current.ask_line(rows)
        told = {"candidate": row, "first": int(rows[0]), "flips": int((np.diff(labels) != 0).sum())}
        current.write(TABLE, told)
        return rows


def plane(current: Round) -> tuple[Float64[ndarray, " l"], float]:
    """The weights w and the offset b of the round's classifier, w.z + b = logit_1 - logit_0 for latents z.

    Raises:
        ValueError: no model, one that is not linear in its frozen features, features that are no latents of
            the generator, or a classifier that tells nothing apart (w = 0).
    """
    network = asked_model(current).network
    linear = network.is_frozen and not list(network.body.children())
    if not linear or network.head.in_features != current.generator.latent:
        raise ValueError(
            "adba needs a classifier that is linear in the generator's latents; use featurizer=gan_inversion "
            "with model=linear_head"
        )
    weight, bias = (each.detach().cpu().numpy().astype(np.float64) for each in network.head.parameters())
    normal = weight[1] - weight[0]
    if not np.linalg.norm(normal) > 0:
        raise ValueError("adba needs a boundary and the classifier's weights are alike; train it longer")
    return normal, float(bias[1] - bias[0])


def line(
    z: Float64[ndarray, " l"],
    normal: Float64[ndarray, " l"],
    offset: float,
    extent: tuple[int, float, float],
) -> Float32[ndarray, "m l"]:
    """Latents on the normal through a latent's foot on the plane normal.z + offset = 0, along the normal.

    `extent` is their number m, their distance (less where the ball is smaller than the line), and the radius
    of the ball around zero for them all. The line is moved within the plane, and where that is not enough
    along the normal, by as little as helps; so it crosses the plane if the plane cuts the ball.
    """
    count, spacing, radius = extent
    length = float(np.linalg.norm(normal))
    unit, height = normal / length, -offset / length  # the plane is unit.z = height
    reach = min(spacing * (count - 1) / 2, radius)
    middle = float(np.clip(height, reach - radius, radius - reach))
    across = z - (unit @ z) * unit
    room = sqrt(max(0.0, radius**2 - (abs(middle) + reach) ** 2))
    across *= min(1.0, room / max(float(np.linalg.norm(across)), 1e-300))
    places = np.linspace(middle - reach, middle + reach, count)
    return (across + places[:, None] * unit).astype(np.float32)
