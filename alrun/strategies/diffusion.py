"""Label diffusion: explores where no label has spread, refines where labels of several classes meet."""

from dataclasses import dataclass, replace
from math import ceil, log
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from alrun.graph import uncertainty
from alrun.graph.batch_query import Diffused, Ground, Picked, Query, Situation, batch_query, pick
from alrun.graph.diffusion import OFTEN
from alrun.graph.kernels import affinity, components
from alrun.graph.knn import Graph, Knn
from alrun.graph.resident import resident_query
from alrun.rounds import Batch, Round


@dataclass(frozen=True)
class Diffusion:
    """The rows whose diffused labels are the smallest. Scores are the criterion when picked, smaller first.

    On a fixed graph diffused labels and scores are kept across rounds, and a round follows what its purchase
    changed. Labels diffused anew give the same bits.

    Attributes:
        steps: T; None is ceil(log_K N).
        mini_batch: P rows are picked, clamped, and the labels diffused anew; None is the whole batch at once.
        clamp: to what rows picked inside a batch are clamped: the model's class, the oracle's answer (bought
            at once, within the round's size), the class chi favors, or the model's probabilities. Default
            `model`; the paper reads as `oracle` (ALGORITHMS 1.5). Nothing follows the last mini-batch, so its
            rows are not clamped.
        init: unlabeled rows start at zero or at the model's probabilities (B.2).
        shrink_below: B.3's delta.
        influence: B.1's row or column sum; `drawn` puts unreached rows in an order drawn for each batch
            instead, so that many picked at once do not all lie where the graph is densest.
        uncertainty: `min_abs` is eq. (8), `norm` the p-norm; `confidence`, `margin` and `entropy` diffuse
            class shares in the simplex instead (S1 appendix C).
        norm_p: p of `norm`.
        own_graph: None is the round's graph. A setting builds one inside the query, of the network's
            embeddings of candidates and labeled rows alone; then `unreached` and N count these rows.

    Without a model (cold start) a picked row is clamped as explored but of no class: -1 for every class (1/C
    where shares are diffused). Rows for which `chi` favors no class fall back to the model.

    Source: S0 sections 4 and 5, Algorithm 1, appendix B; S1 Algorithm 2 and, for a graph of its own, section
    4.3. Departs: the mini-batch's labels, as said above.
    """

    steps: Annotated[int, Ge(1)] | None
    mini_batch: Annotated[int, Ge(1)] | None
    clamp: Literal["model", "oracle", "chi", "soft"]
    init: Literal["zero", "soft", "soft_after_first"]
    shrink_below: Annotated[float, Ge(0), Le(1)] | None
    influence: Literal["row", "col", "drawn"]
    uncertainty: Literal["min_abs", "norm", "confidence", "margin", "entropy"]
    norm_p: Annotated[float, Ge(1)]
    own_graph: Knn | None

    @property
    def needs(self) -> frozenset[str]:
        """A graph or what its own is made of; the model's probabilities where they are more than a clamp."""
        soft = self.init == "soft" or self.clamp == "soft"
        buys = {"oracle"} if self.clamp == "oracle" else set()
        graph = "graph" if self.own_graph is None else "embeddings"
        return frozenset({graph} | ({"probabilities"} if soft else set()) | buys)

    def select(self, current: Round, size: int) -> Batch:
        """The batch, mini-batch by mini-batch on one graph."""
        fixed = current.life.fixed and self.own_graph is None
        picked, facts = (self._on_fixed if fixed else self._on_fresh)(current, size)
        notes = {
            "unreached": picked.unreached,
            "steps": picked.steps,
            "by_influence": picked.by_influence,
            "hub_free": picked.hub_free,
            **facts,
        }
        return Batch(picked.rows, picked.scores, {name: float(value) for name, value in notes.items()})

    def _on_fixed(self, current: Round, size: int) -> tuple[Picked, dict[str, float]]:
        """The rows picked on a graph that lasts, and what is to be noted of the graph."""
        ground, parts = current.once("diffusion", lambda _: _lasting(current))
        part, query = Part.whole(current), self._query(current, current.graph, size)
        if query.soft:
            labeled = current.pool.labels >= 0
            start = self._start(part, soft=True)
            at = Diffused.start(ground, start, labeled, query.steps, self._score)
        else:
            at = self._kept(part, ground, query.steps)
        narrowed = len(current.candidates) < at.least.open.sum()
        if narrowed or (not query.soft and query.mini_batch < size):  # what is kept stays as it is
            at = at.among(current.candidates)
        ranks = self._ranks(current, len(current.pool))
        picked = pick(at, size, query, lambda rows, values: self._clamped(part, rows, values), ranks)
        return picked, {"components": float(parts)}

    def _kept(self, part: "Part", ground: Ground, steps: int) -> Diffused:
        """The labels bought so far, diffused: each purchase is clamped once, and what it changes followed."""
        current, pool = part.current, part.current.pool

        def start() -> Diffused:
            with current.life.clock.part("diffusion"), current.work.clock.part("once"):
                begin = self._blank(len(pool), pool.classes)
                at = Diffused.start(ground, begin, np.zeros(len(pool), bool), steps, self._score)
                at.least.ready(steps)
            return at

        def update(at: Diffused, rows: Int64[ndarray, " b"]) -> Diffused:
            at.clamp(rows, self._of_labels(pool.labels[rows], pool.classes))
            return at

        return current.kept(f"diffusion {steps} {self.uncertainty} {self.norm_p}", start, update)

    def _on_fresh(self, current: Round, size: int) -> tuple[Picked, dict[str, float]]:
        """The rows picked on a graph made for this round, and what is to be noted of the graph."""
        part, graph = self._part(current)
        weights, query = affinity(graph), self._query(current, graph, size)
        candidates = part.candidates
        at = Situation(weights, self._start(part, query.soft), part.labels >= 0, candidates)
        ranks = self._ranks(current, len(part.rows))
        if self._resident(current, query, size):
            clamps = np.zeros_like(at.start)
            clamps[candidates] = self._clamped(part, candidates, clamps[candidates].astype(np.float64))
            device = current.pool.inputs.device
            picked = resident_query(at, size, query, self._resident_score, clamps, device, ranks)
        else:
            picked = batch_query(
                at, size, query, self._score, lambda rows, values: self._clamped(part, rows, values), ranks
            )
        # the recall of the round's own graph is noted with the round
        recall = {} if self.own_graph is None else {"own_graph_recall": graph.recall}
        facts = {"components": float(components(weights)), **recall}
        return replace(picked, rows=part.rows[picked.rows]), facts

    def _part(self, current: Round) -> tuple["Part", Graph]:
        """The rows that labels are diffused on, and their graph."""
        if self.own_graph is None:
            return Part.whole(current), current.graph
        part = Part(current, np.union1d(current.pool.labeled, current.candidates))
        embedded = current.embeddings(part.rows)
        with current.timed("graph", 0):
            return part, self.own_graph.build(embedded, current.life.device)

    @property
    def _shares(self) -> bool:
        """Whether class shares in the simplex are diffused, rather than +1 and -1."""
        return self.uncertainty in ("confidence", "margin", "entropy")

    def _query(self, current: Round, graph: Graph, size: int) -> Query:
        soft = self.init == "soft" or (self.init == "soft_after_first" and current.number > 1)
        # Rounded first: log(1000) / log(10) is a little above 3.
        steps = self.steps or max(1, ceil(round(log(len(graph)) / log(max(graph.k, 2)), 9)))
        influence = "row" if self.influence == "drawn" else self.influence
        return Query(steps, self.mini_batch or size, self.shrink_below, influence, soft)

    def _ranks(self, current: Round, count: int) -> Float64[ndarray, " n"] | None:
        """The order in which unreached rows come, if it is drawn."""
        return current.rng.random(count) if self.influence == "drawn" else None

    def _resident(self, current: Round, query: Query, size: int) -> bool:
        """Whether mini-batches stay on the GPU: clamps are known beforehand, from embeddings already made."""
        known = self.clamp in ("model", "soft")
        return current.pool.inputs.device.type == "cuda" and known and query.mini_batch < size

    def _resident_score(self, values: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        return uncertainty.resident(values, self.uncertainty, self.norm_p)

    def _score(self, values: Float64[ndarray, "b c"]) -> Float64[ndarray, " b"]:
        if self.uncertainty == "norm":
            return uncertainty.norm(values, self.norm_p)
        name = "negative_entropy" if self.uncertainty == "entropy" else self.uncertainty
        return getattr(uncertainty, name)(values)

    def _start(self, part: "Part", soft: bool) -> Float32[ndarray, "n c"]:
        classes = part.current.pool.classes
        if soft:
            start = self._spread(part.current.probabilities(part.rows))
        else:
            start = self._blank(len(part.rows), classes)
        labeled = part.labels >= 0
        start[labeled] = self._of_labels(part.labels[labeled], classes)
        return start

    def _blank(self, n: int, classes: int) -> Float32[ndarray, "n c"]:
        """chi^(0) without any label."""
        return np.full((n, classes), 1 / classes if self._shares else 0.0, np.float32)

    def _spread(self, shares: Float[ndarray, "b c"]) -> Float[ndarray, "b c"]:
        """Class shares on the scale that is diffused: themselves, or -1 to 1."""
        return shares if self._shares else 2 * shares - 1

    def _of_labels(self, labels: Int64[ndarray, " b"], classes: int) -> Float64[ndarray, "b c"]:
        return self._spread(np.eye(classes)[labels])

    def _clamped(
        self, part: "Part", places: Int64[ndarray, " p"], values: Float64[ndarray, "p c"]
    ) -> Float64[ndarray, "p c"]:
        classes, current, rows = values.shape[1], part.current, part.rows[places]
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


@dataclass(frozen=True, eq=False)
class Part:
    """Sorted rows of the pool on which labels are diffused; there a row is named by its place among them."""

    current: Round
    rows: Int64[ndarray, " m"]

    @classmethod
    def whole(cls, current: Round) -> "Part":
        """All rows of the pool."""
        return cls(current, np.arange(len(current.pool)))

    @property
    def labels(self) -> Int64[ndarray, " m"]:
        """Their labels, -1 where none was bought."""
        return self.current.pool.labels[self.rows]

    @property
    def candidates(self) -> Int64[ndarray, " q"]:
        """The places of the round's candidates, all of which are among the rows."""
        return np.searchsorted(self.rows, self.current.candidates)


def _lasting(current: Round) -> tuple[Ground, int]:
    """What a fixed graph gives for all rounds, and its number of components."""
    weights = affinity(current.graph)
    ground = Ground.of(weights, current.pool.classes, OFTEN, np.dtype(np.float32))
    _ = ground.walk.back  # made here, so that no query has to
    return ground, components(weights)
