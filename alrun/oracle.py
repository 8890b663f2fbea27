"""Who answers: the data set's own labels, and for synthetic items a classifier that has seen all of them."""

from dataclasses import dataclass, field
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from annotated_types import Ge, Lt
from jaxtyping import Float32, Int64, Shaped
from numpy import ndarray

from alrun.lifetime import Lifetime
from alrun.models.encoded import FrozenHead
from alrun.models.network import Architecture
from alrun.pool import Inputs, Pool
from alrun.reference import reference
from alrun.training.model import Model
from alrun.training.trainer import Trainer

LEAST = 1e-12  # probability; its logarithm is the smallest that counts


@runtime_checkable
class Oracle(Protocol):
    """Answers for rows of the data set; some can label synthetic items as well."""

    @property
    def labels_images(self) -> bool:
        """Whether it can label items that the data set does not have."""
        ...

    def answer(
        self, rows: Int64[ndarray, " b"], truth: Int64[ndarray, " n"], classes: int, rng: np.random.Generator
    ) -> Int64[ndarray, " b"]:
        """One label a row of the data set; `rng` is the oracle's own stream."""
        ...


@dataclass(frozen=True)
class Simulated:
    """Answers with the data set's labels, without error."""

    labels_images = False

    def answer(
        self, rows: Int64[ndarray, " b"], truth: Int64[ndarray, " n"], classes: int, rng: np.random.Generator
    ) -> Int64[ndarray, " b"]:
        """One label a row; nothing is drawn by an oracle that never errs."""
        del classes, rng
        return truth[rows]


@dataclass(frozen=True)
class Reference:
    """Answers with the data set's labels, and for synthetic items with those of a reference classifier.

    The classifier is trained once on all labels of the data set, before round 0, and shared by runs. It
    stands for the person who would label the images; no strategy sees it.

    Attributes:
        noise: share of annotations that are wrong: the label of a row is then another class, drawn evenly,
            and in a line the class changes elsewhere.
        model, trainer: of the classifier; null is the run's own.

    Source: S4 section 5.3, where persons labeled GAAL's images; a classifier in their place is ours.
    """

    noise: Annotated[float, Ge(0), Lt(1)]
    model: Architecture | FrozenHead | None
    trainer: Trainer | None
    labels_images = True

    def answer(
        self, rows: Int64[ndarray, " b"], truth: Int64[ndarray, " n"], classes: int, rng: np.random.Generator
    ) -> Int64[ndarray, " b"]:
        """One label a row."""
        return blurred(truth[rows], classes, self.noise, rng)

    def learned(
        self, model: Architecture | FrozenHead, trainer: Trainer, whole: Pool, life: Lifetime
    ) -> Model:
        """The classifier, read from the shelf or trained; `whole` is the data set's pool with all its labels.

        `model` and `trainer` are the run's own, which the oracle's stand before.
        """
        return reference(self.model or model, self.trainer or trainer, whole, life)


@dataclass(eq=False)
class Referee:
    """Labels synthetic items as a classifier sees them, in one round.

    Attributes:
        classifier: asked for the classes of items.
        noise: share of annotations that are wrong.
        rng: the oracle's stream of the round.
        confidences: the largest probability of each item that was labeled.
    """

    classifier: Model
    noise: float
    rng: np.random.Generator
    confidences: list[Float32[ndarray, " _b"]] = field(default_factory=list)

    @property
    def confidence(self) -> float | None:
        """The mean largest probability, in [1 / classes, 1]; None where nothing was labeled."""
        return float(np.concatenate(self.confidences).mean()) if self.confidences else None

    def label(self, items: Shaped[ndarray, "b ..."]) -> Int64[ndarray, " b"]:
        """The likeliest class of each."""
        shares = self._seen(items)
        return blurred(shares.argmax(axis=1), shares.shape[1], self.noise, self.rng)

    def divide(self, items: Shaped[ndarray, "b ..."]) -> Int64[ndarray, " b"]:
        """Of all ways to change the class once or never, the likeliest, items taken as independent."""
        shares = self._seen(items)
        place, before, behind = _change(np.log(np.maximum(shares.astype(np.float64), LEAST)))
        if self.rng.random() < self.noise:
            places = np.setdiff1d(np.arange(1, len(items)), [place] if before != behind else [])
            if before == behind:
                behind = _other(before, shares.shape[1], self.rng)
            place = int(self.rng.choice(places)) if len(places) else 0
        return np.where(np.arange(len(items)) < place, before, behind).astype(np.int64)

    def _seen(self, items: Shaped[ndarray, "b ..."]) -> Float32[ndarray, "b c"]:
        inputs = Inputs(items, self.classifier.inputs.device)
        shares = self.classifier.on(inputs).predict(np.arange(len(items)))
        self.confidences.append(shares.max(axis=1))
        return shares


def blurred(
    labels: Int64[ndarray, " b"], classes: int, noise: float, rng: np.random.Generator
) -> Int64[ndarray, " b"]:
    """The labels, each of which is another class, drawn evenly, with probability `noise`."""
    wrong = rng.random(len(labels)) < noise
    others = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(wrong, others, labels)


def _other(label: int, classes: int, rng: np.random.Generator) -> int:
    return int((label + rng.integers(1, classes)) % classes)


def _change(logs: ndarray) -> tuple[int, int, int]:
    """The likeliest place of a change, the class before it and the class from it on; place 0 is none before.

    Ties fall to the earlier place and the smaller class.
    """
    before = np.concatenate([np.zeros((1, logs.shape[1])), np.cumsum(logs, axis=0)])
    behind = before[-1] - before
    place = int((before.max(axis=1) + behind.max(axis=1))[:-1].argmax())
    last = int(behind[place].argmax())
    return place, last if place == 0 else int(before[place].argmax()), last
