"""Pseudo-labels of the rows that were not bought, with their weights in the loss.

Source: S3 section 4 (ALGORITHMS 4.1 to 4.3).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from alrun.graph.certainty import certainties, class_weights
from alrun.graph.kernels import cosine_affinity, normalized, self_taken_first, without_zeros
from alrun.graph.knn import Knn
from alrun.graph.propagation import Solve, label_matrix, propagate
from alrun.graph.replicator import replicate
from alrun.pool import NOT_BOUGHT

STEPS = 5000  # of the game at most; rows between two classes settle slowly (1,400 at 50,000 rows)

Kind = Literal["diffusion", "network", "gtg"]
Predict = Callable[[Int64[ndarray, " b"]], Float32[ndarray, "b c"]]
Facts = dict[str, float]


@dataclass(frozen=True, eq=False)
class Pseudo:
    """What every row of the pool teaches: a class, how sure it is, and how much the class counts.

    Attributes:
        labels: classes; a bought row carries its label.
        weights: omega in [0, 1] of (12); bought rows 1.
        class_weights: zeta of (12); 0 for classes without any row. Ones where they are switched off.
        zero: rows that were not bought and no label has reached; theirs is the network's class, weight 0.
        facts: how they were made: `zero_share` and `empty_classes`; but for the network's `iterations`, how
            many classes are `unconverged`, `isolated` rows and the graph's `recall`; the largest relative
            `residual` of the solve.
        seconds: wall time by part: graph, kernel, solve or predict, weights.
    """

    labels: Int64[ndarray, " n"]
    weights: Float32[ndarray, " n"]
    class_weights: Float32[ndarray, " c"]
    zero: Bool[ndarray, " n"]
    facts: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spreading:
    """How labels spread over a graph of embeddings, and what the rows that they reach then weigh.

    Attributes:
        k, gamma: neighbors a row, and the exponent of cosines in weights between them.
        min_recall: share of the neighbors, measured on 500 rows, that a graph must have where it is not exact
            (above 100,000 distinct rows on a CPU, a million on a GPU).
        alpha, iterations, tolerance: of the solve; `tolerance` is that of the game, too.
        certainty_weights: whether omega weighs rows; else all rows that a label has reached weigh 1.
        class_weights: whether zeta weighs classes.
        variant: `repo` does as the reference code: labels divided by how many their class has (`y_norm`),
            negative cosines keep their sign (not in the game, whose gains are never negative), the first of
            a row's duplicates is taken for the row itself, rows without a value are of class 0, and classes
            without rows count in the mean of zeta. Where its weights are NaN, ours are the paper's.
        y_norm: `class` divides a label by how many its class has, so that purchases are no prior.

    zeta is the paper's, one over how many rows a class has: a class that pseudo-labels give few rows weighs
    much more than the others, and one with a single row, its label, may have nearly all of the weight.

    Source: S3 eqs. (7) and (9) to (12), section 5.2; `repo`: ALGORITHMS 4.3, items 1 to 8.
    """

    k: Annotated[int, Ge(1)]
    gamma: Annotated[float, Gt(0)]
    min_recall: Annotated[float, Gt(0), Le(1)]
    alpha: Annotated[float, Gt(0), Lt(1)]
    iterations: Annotated[int, Ge(1)]
    tolerance: Annotated[float, Ge(0)]
    certainty_weights: bool
    class_weights: bool
    variant: Literal["paper", "repo"]
    y_norm: Literal["none", "class"]


@dataclass(frozen=True)
class PseudoLabels(Spreading):
    """How pseudo-labels are made: labels spread on a graph, or the network's own predictions.

    Attributes:
        kind: `diffusion` is label propagation, `network` the network's predictions, `gtg` the transduction
            game of `replicate` (to convergence, at most 5000 steps).
        Others: see `Spreading`.

    Source: S3 section 4.
    """

    kind: Kind

    def of(
        self,
        embeddings: Float32[ndarray, "m d"],
        labels: Int64[ndarray, " n"],
        classes: int,
        predict: Predict,
        device: torch.device,
    ) -> Pseudo:
        """Pseudo-labels from the network's embeddings and the labels bought so far (-1 where none was).

        Embeddings without a direction (zeros) stand alone. Ties between classes fall to the smaller one.
        Without any label, all rows are as if no label had reached them.

        Args:
            embeddings: inputs of the network's last layer for all rows (m = n); `network` does not read them.
            labels: as the pool has them.
            classes: how many there are, at least 1.
            predict: the network's class probabilities of some rows, asked only where needed.
            device: where graph and solve are computed.

        Raises:
            ValueError: labels that fit neither classes nor embeddings, an embedding or a probability that is
                no number, or a graph below `min_recall`.
        """
        _check_labels(labels, classes, len(embeddings))
        seconds: dict[str, float] = {}
        if self.kind == "network":
            with _timed(seconds, "predict"):
                values = _predicted(predict, np.arange(len(labels)), classes)
            values, facts = torch.from_numpy(values).to(device), {}
        else:
            with _timed(seconds, "graph"):
                graph = Knn(self.k, "cosine", "none", "auto", self.min_recall).build(embeddings, device)
            with _timed(seconds, "kernel"):
                graph = without_zeros(graph, embeddings)
                graph = self_taken_first(graph) if self._repo else graph
                weights = cosine_affinity(graph, self.gamma, signed=self._repo and self.kind == "diffusion")
            facts = {"recall": graph.recall, "isolated": float((np.diff(weights.indptr) == 0).sum())}
            with _timed(seconds, "solve"):
                values, more = self._spread(weights, labels, classes, device)
            facts |= more
        with _timed(seconds, "weights"):
            found, omegas, zero = self._settled(values, labels, predict)
            facts |= {
                "zero_share": float(zero.mean()),
                "empty_classes": float(classes - len(np.unique(found))),
            }
            zetas = np.ones(classes, np.float32)
            if self.class_weights:
                zetas = class_weights(found, classes, "examples" if self._repo else "classes")
        return Pseudo(found, omegas, zetas, zero, facts, seconds)

    @property
    def _repo(self) -> bool:
        return self.variant == "repo"

    def _spread(
        self, weights: csr_array, labels: Int64[ndarray, " n"], classes: int, device: torch.device
    ) -> tuple[Float32[Tensor, "n c"], Facts]:
        """Labels spread over a graph, zero where none came, and how that ended."""
        if self.kind == "gtg":
            played = replicate(weights, labels, classes, most=STEPS, tolerance=self.tolerance, device=device)
            values = played.shares
            if classes > 1:  # a row that no label has reached still has the shares it began with
                values = torch.where((values.amax(1) == values.amin(1))[:, None], 0.0, values)
            return values, {"iterations": float(played.steps), "unconverged": float(played.moving)}
        start = label_matrix(labels, classes, by_class=self._repo or self.y_norm == "class")
        solve = Solve(self.alpha, self.iterations, self.tolerance)
        found = propagate(normalized(weights), start, solve, device=device)
        facts = {
            "iterations": found.iterations.max(),
            "unconverged": (found.residuals > self.tolerance).sum(),
            "residual": found.residuals.max(),
        }
        values = torch.from_numpy(found.values).to(device)
        return values, {name: float(value) for name, value in facts.items()}

    def _settled(
        self, values: Float32[Tensor, "n c"], labels: Int64[ndarray, " n"], predict: Predict
    ) -> tuple[Int64[ndarray, " n"], Float32[ndarray, " n"], Bool[ndarray, " n"]]:
        """Classes, omegas and zero rows."""
        bought = labels != NOT_BOUGHT
        omegas, zero = (each.cpu().numpy() for each in certainties(values))
        zero &= ~bought
        found = np.where(bought, labels, values.argmax(dim=1).cpu().numpy())
        if zero.any():
            rows = np.flatnonzero(zero)
            found[rows] = 0 if self._repo else _predicted(predict, rows, values.shape[1]).argmax(axis=1)
        if not self.certainty_weights:
            omegas = np.where(zero, 0.0, 1.0)
        return found, np.where(bought, 1.0, omegas).astype(np.float32), zero


def _predicted(predict: Predict, rows: Int64[ndarray, " b"], classes: int) -> Float32[ndarray, "b c"]:
    """The network's probabilities.

    Raises:
        ValueError: they are no numbers, negative, or not one for each class.
    """
    found = predict(rows)
    if found.shape != (len(rows), classes) or not (np.isfinite(found) & (found >= 0)).all():
        wrong = "a value that is NaN, infinite or negative" if found.shape == (len(rows), classes) else ""
        raise ValueError(
            f"the network's probabilities of {len(rows)} rows must be {classes} numbers of at least 0 each, "
            f"got {wrong or f'shape {found.shape}'}; check the training loss"
        )
    return found


def _check_labels(labels: Int64[ndarray, " n"], classes: int, count: int) -> None:
    if len(labels) != count:
        raise ValueError(
            f"pseudo-labels need one label for each of {count} embeddings, -1 where none was bought, got "
            f"{len(labels)}; pass pool.labels and the embeddings of all rows"
        )
    if (wrong := labels[(labels < NOT_BOUGHT) | (labels >= classes)]).size:
        raise ValueError(f"labels must be in 0..{classes - 1} (-1 for not bought), got {wrong[0]}")


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    begun = perf_counter()
    yield
    seconds[part] = perf_counter() - begun
