"""The latent search of ASAL: images that a model is unsure about, asked of a generator."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

Score = Literal["entropy", "min_distance"]
Images = Callable[[Tensor], Tensor]
Logits = Callable[[Tensor], Tensor]

BETAS = (0.9, 0.999)  # of Adam
ROUNDING = 1e-5  # nats by which float32 may pass ln C


@dataclass(frozen=True, eq=False)
class Found:
    """What a search ended with.

    Attributes:
        images: unit images, on the generator's device.
        scores: of each image before the first step, and after each.
    """

    images: Float32[Tensor, " b *shape"]
    scores: Float64[ndarray, "t b"]

    @property
    def before(self) -> Float64[ndarray, " b"]:
        """Scores of the images that chance gave."""
        return self.scores[0]

    @property
    def after(self) -> Float64[ndarray, " b"]:
        """Scores of the images found."""
        return self.scores[-1]

    @property
    def history(self) -> Float64[ndarray, " t"]:
        """Mean score before the first step, and after each."""
        return self.scores.mean(axis=1)


@dataclass(frozen=True)
class LatentSearch:
    """Adam over latents z alone; generator and model must be in evaluation mode, and stay as they are.

    Attributes:
        score: entropy (nats, in [0, ln C]) of the model at G(z) is raised, or for two classes the distance
            |w.x + b| = |logit_1 - logit_0| is lowered, by its square.
        steps: of Adam. learning_rate: of Adam.
        latents: at most so many go through at once. They do not meet: each has the sum over its own image as
            loss, so the cut changes rounding alone.

    Computes in float32 on every device. Latents are never projected back onto the prior.
    Source: S4 section 3.1, eq. (1), and section 4.2. Departs: the learning rate is not stated there, 0.01 is
    ours, and so are torch's betas (0.9, 0.999).
    """

    score: Score
    steps: Annotated[int, Ge(1)]
    learning_rate: Annotated[float, Gt(0)]
    latents: Annotated[int, Ge(1)]

    def run(self, images: Images, logits: Logits, start: Float32[Tensor, "b l"], *, classes: int) -> Found:
        """The search from these latents, over what `images` makes of them and `logits` says of that.

        Raises:
            ValueError: `min_distance` for other than two classes, or a score that cannot be.
        """
        if self.score == "min_distance" and classes != 2:
            raise ValueError(f"strategy.score: min_distance is of two classes, got {classes}; use entropy")
        found = [self._part(images, logits, part) for part in start.split(self.latents)]
        scores = torch.cat([scores for _, scores in found], 1).cpu().numpy().astype(np.float64)
        self._check(scores, classes)
        return Found(torch.cat([painted for painted, _ in found]), scores)

    def best_first(self, scores: Float64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """Places of these scores, those that a search is after first; of equal ones in their order."""
        return np.argsort(scores if self.score == "min_distance" else -scores, kind="stable")

    def worth(self, logits: Float[Tensor, "b c"]) -> Float32[Tensor, " b"]:
        """Each image's score."""
        if self.score == "min_distance":
            return (logits[:, 1] - logits[:, 0]).float().abs()
        shares = functional.log_softmax(logits.float(), 1)
        return -(shares.exp() * shares).sum(1)

    def _part(
        self, images: Images, logits: Logits, start: Float32[Tensor, "b l"]
    ) -> tuple[Float32[Tensor, " b *shape"], Float32[Tensor, "t b"]]:
        """The images found from these latents, and their scores."""
        z = start.detach().clone().requires_grad_()
        adam = torch.optim.Adam([z], self.learning_rate, BETAS)
        scores = []
        for _ in range(self.steps):
            worth = self.worth(logits(images(z)))
            # by name: weights of generator and model collect nothing
            (z.grad,) = torch.autograd.grad(self._loss(worth), z)
            adam.step()
            scores.append(worth.detach())
        with torch.no_grad():
            painted = images(z)
            scores.append(self.worth(logits(painted)))
        return painted, torch.stack(scores)

    def _loss(self, worth: Float32[Tensor, " b"]) -> Float32[Tensor, ""]:
        """What falls where scores become better; a sum, so that images do not meet."""
        return worth.square().sum() if self.score == "min_distance" else -worth.sum()

    def _check(self, scores: Float64[ndarray, "t b"], classes: int) -> None:
        """Nothing, if the scores of all steps can be; read together, so that no step waits for a GPU."""
        if not np.isfinite(scores).all():
            step, image = np.argwhere(~np.isfinite(scores))[0].tolist()
            raise ValueError(
                f"the latent search needs finite scores, got NaN or inf for image {image} after {step} "
                "steps; lower strategy.learning_rate, or look at the losses of generator and model"
            )
        if self.score == "entropy" and scores.max() > log(classes) + ROUNDING:
            raise ValueError(
                f"the entropy of {classes} classes is at most {log(classes):.6f} nats, got "
                f"{scores.max():.6f}; the model gives no distribution over classes"
            )
