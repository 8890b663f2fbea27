"""Label diffusion: explores where no label has spread, refines where labels of several classes meet."""

from dataclasses import dataclass
from math import ceil, log
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from alrun.graph import uncertainty
from alrun.graph.batch_query import Query, Situation, batch_query
from alrun.graph.kernels import affinity, components
from alrun.graph.knn import Graph
from alrun.graph.resident import resident_query
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Diffusion:
    """The rows whose diffused labels are the smallest. Scores are the criterion when picked, smaller first.

    Attributes:
        steps: T; None is ceil(log_K N).
        mini_batch: P rows are picked, clamped, and the labels diffused anew; None is the whole batch at once.
        clamp: to what rows picked inside a batch are clamped: the model's class, the oracle's answer (bought
            at once, within the round's size), the class chi favors, or the model's probabilities. Default
            `model`; the paper reads as `oracle` (ALGORITHMS 1.5).
        init: unlabeled rows start at zero or at the model's probabilities (B.2).
        shrink_below: B.3's delta.
        influence: B.1's row or column sum.
        uncertainty: `min_abs` is eq. (8), `norm` the p-norm; `confidence`, `margin` and `entropy` diffuse
            class shares in the simplex instead (S1 appendix C).
        norm_p: p of `norm`.

    Without a model (cold start) a picked row is clamped as explored but of no class: -1 for every class (1/C
    where shares are diffused). Rows for which `chi` favors no class fall back to the model.

    Source: S0 sections 4 and 5, Algorithm 1, appendix B. Departs: the mini-batch's labels, as said above.
    """

    steps: Annotated[int, Ge(1)] | None
    mini_batch: Annotated[int, Ge(1)] | None
    clamp: Literal["model", "oracle", "chi", "soft"]
    init: Literal["zero", "soft", "soft_after_first"]
    shrink_below: Annotated[float, Ge(0), Le(1)] | None
    influence: Literal["row", "col"]
    uncertainty: Literal["min_abs", "norm", "confidence", "margin", "entropy"]
    norm_p: Annotated[float, Ge(1)]

    @property
    def needs(self) -> frozenset[str]:
        """A graph; the model's probabilities where they are more than a clamp."""
        soft = self.init == "soft" or self.clamp == "soft"
        buys = {"oracle"} if self.clamp == "oracle" else set()
        return frozenset({"graph"} | ({"probabilities"} if soft else set()) | buys)

    def select(self, current: Round, size: int) -> Batch:
        """The batch, mini-batch by mini-batch on one graph."""
        graph = current.graph
        weights = affinity(graph)
        soft = self.init == "soft" or (self.init == "soft_after_first" and current.number > 1)
        situation = Situation(
            weights, self._start(current, soft), current.pool.labels >= 0, current.candidates
        )
        query = Query(self._steps(graph), self.mini_batch or size, self.shrink_below, self.influence, soft)
        if self._resident(current, query, size):
            clamps = np.zeros((len(current.pool), current.pool.classes), np.float32)
            rows = current.candidates
            clamps[rows] = self._clamped(current, rows, clamps[rows].astype(np.float64))
            device = current.pool.inputs.device
            picked = resident_query(situation, size, query, self._resident_score, clamps, device)
        else:
            picked = batch_query(
                situation, size, query, self._score, lambda rows, values: self._clamped(current, rows, values)
            )
        notes = {
            "unreached": picked.unreached,
            "steps": picked.steps,
            "components": components(weights),
            "by_influence": picked.by_influence,
            "hub_free": picked.hub_free,
        }
        return Batch(picked.rows, picked.scores, {name: float(value) for name, value in notes.items()})

    @property
    def _shares(self) -> bool:
        """Whether class shares in the simplex are diffused, rather than +1 and -1."""
        return self.uncertainty in ("confidence", "margin", "entropy")

    def _steps(self, graph: Graph) -> int:
        # Rounded first: log(1000) / log(10) is a little above 3.
        return self.steps or max(1, ceil(round(log(len(graph)) / log(max(graph.k, 2)), 9)))

    def _resident(self, current: Round, query: Query, size: int) -> bool:
        """Whether mini-batches stay on the GPU: clamps are known beforehand, from embeddings already made."""
        known = self.clamp in ("model", "soft") and not current.life.fixed
        return current.pool.inputs.device.type == "cuda" and known and query.mini_batch < size

    def _resident_score(self, values: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        return uncertainty.resident(values, self.uncertainty, self.norm_p)

    def _score(self, values: Float64[ndarray, "b c"]) -> Float64[ndarray, " b"]:
        if self.uncertainty == "norm":
            return uncertainty.norm(values, self.norm_p)
        name = "negative_entropy" if self.uncertainty == "entropy" else self.uncertainty
        return getattr(uncertainty, name)(values)

    def _start(self, current: Round, soft: bool) -> Float32[ndarray, "n c"]:
        pool = current.pool
        if soft:
            start = self._spread(current.probabilities(np.arange(len(pool))))
        else:
            start = np.full((len(pool), pool.classes), 1 / pool.classes if self._shares else 0.0, np.float32)
        start[pool.labeled] = self._of_labels(pool.labels[pool.labeled], pool.classes)
        return start

    def _spread(self, shares: Float[ndarray, "b c"]) -> Float[ndarray, "b c"]:
        """Class shares on the scale that is diffused: themselves, or -1 to 1."""
        return shares if self._shares else 2 * shares - 1

    def _of_labels(self, labels: Int64[ndarray, " b"], classes: int) -> Float64[ndarray, "b c"]:
        return self._spread(np.eye(classes)[labels])

    def _clamped(
        self, current: Round, rows: Int64[ndarray, " p"], values: Float64[ndarray, "p c"]
    ) -> Float64[ndarray, "p c"]:
        classes = values.shape[1]
        if self.clamp == "oracle":
            return self._of_labels(current.ask(rows), classes)
        if self.clamp == "soft":
            return self._spread(current.probabilities(rows).astype(np.float64))
        unknown = np.full_like(values, 1 / classes if self._shares else -1.0)
        if current.model is not None:
            unknown = self._of_labels(current.probabilities(rows).argmax(axis=1), classes)
        if self.clamp == "model":
            return unknown
        favored = np.ptp(values, axis=1) > 0
        return np.where(favored[:, None], self._of_labels(values.argmax(axis=1), classes), unknown)
