"""What a strategy sees of a round, what it returns, and what it costs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64
from matplotlib.figure import Figure
from numpy import ndarray

from alrun.cache import scratch
from alrun.clock import Clock
from alrun.features.featurizer import Featurizer
from alrun.graph.knn import Graph
from alrun.lifetime import Lifetime
from alrun.lifetime import name_of as name_of
from alrun.pool import Pool
from alrun.training.model import HEADS, Model

AFTER_LABELS = frozenset({"probabilities", "embeddings", "dropout", "labels"})
OF_FEATURES = frozenset({"features", "graph"})


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows in order of choice, one score a row (the strategy says what it means), notes (name -> number)."""

    rows: Int64[ndarray, " b"]
    scores: Float64[ndarray, " b"]
    notes: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Strategy(Protocol):
    """Chooses what to label.

    `needs` names what it cannot do without: `probabilities`, `embeddings`, `dropout` and `heads.<name>` (a
    further output of the trainer) are the model's; `features` and `graph` come from the featurizer, and
    `graph.cosine` says of which metric; `labels` says that some must be bought before; `oracle` says that it
    buys answers inside a batch.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What `select` asks of the round."""
        ...

    def select(self, current: "Round", size: int) -> Batch:
        """Exactly `size` distinct rows of `current.candidates`."""
        ...


def needs_model(strategy: Strategy, featurizer: Featurizer | None) -> bool:
    """Whether a strategy cannot choose before the first label is bought."""
    features = bool(strategy.needs & OF_FEATURES) and featurizer is not None and featurizer.depends_on_model
    return bool(strategy.needs & AFTER_LABELS) or bool(needed_heads(strategy)) or features


def needed_heads(strategy: Strategy) -> frozenset[str]:
    """Names of the trainer's further outputs that a strategy cannot do without."""
    return frozenset(need.removeprefix(HEADS) for need in strategy.needs if need.startswith(HEADS))


class Work:
    """What was made, bought and written in one round, shared by all narrowed views of it."""

    def __init__(self, clock: Clock, answer: Callable[[ndarray], ndarray], size: int) -> None:
        self.clock, self.answer, self.size = clock, answer, size
        self.rows: dict[str, ndarray] = {}
        self.known: dict[str, ndarray] = {}
        self.made: dict[str, Any] = {}
        self.asked: dict[int, int] = {}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.figures: dict[str, Callable[[Figure], None]] = {}
        self.predicted = 0

    def remembered(
        self, name: str, rows: Int64[ndarray, " b"], total: int, make: Callable[[ndarray], ndarray]
    ) -> Float32[ndarray, "b w"]:
        """The rows of a table that is filled row by row, on demand."""
        known = self.known.setdefault(name, np.zeros(total, bool))
        missing = np.unique(rows[~known[rows]])
        if len(missing) or name not in self.rows:
            self.keep(name, missing, make(missing), total)
        return self.rows[name][rows]

    def keep(self, name: str, rows: Int64[ndarray, " b"], values: ndarray, total: int) -> None:
        """Fills rows of a table."""
        known = self.known.setdefault(name, np.zeros(total, bool))
        table = self.rows.setdefault(name, np.empty((total, values.shape[1]), np.float32))
        table[rows], known[rows] = values, True


@dataclass(frozen=True, eq=False)
class Round:
    """All that a strategy may see of one round.

    `candidates` are the rows it may pick, sorted. Costly things are made on first use, for the rows asked
    only, remembered for the round, and timed apart. Before the first label `model` is None.
    """

    number: int
    pool: Pool
    candidates: Int64[ndarray, " m"]
    model: Model | None
    rng: np.random.Generator
    life: Lifetime
    work: Work

    def probabilities(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b c"]:
        """Class probabilities of these rows; rows that were embedded go through the last layer alone."""
        return self.work.remembered("probabilities", rows, len(self.pool), self._predict)

    def embeddings(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b d"]:
        """Inputs of the network's last linear layer for these rows."""
        return self.work.remembered("embeddings", rows, len(self.pool), self._embed)

    def head(self, name: str, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b w"]:
        """A further output of the trainer for these rows.

        A head that reads features shares its pass with their probabilities, which are remembered, too.

        Raises:
            ValueError: no label was bought yet, or the trainer gave no head of this name.
        """
        return self.work.remembered(
            f"{HEADS}{name}", rows, len(self.pool), lambda missing: self._head(name, missing)
        )

    @property
    def features(self) -> Float32[ndarray, "n d"]:
        """The featurizer's matrix for the whole pool.

        Raises:
            ValueError: there is no featurizer, or it needs a model and no label was bought yet.
        """
        if self.life.featurizer is None:
            raise ValueError("this strategy needs features and got none; choose e.g. featurizer=penultimate")
        if self.life.fixed:
            return self.life.features(self.pool)
        if "features" not in self.work.made:
            with self.work.clock.part("features"):
                rng = self.life.stream("select", self.number, name_of(self.life.featurizer))
                with TemporaryDirectory() as folder:
                    making = scratch(Path(folder))
                    made = self.life.featurizer.make(self.pool, self.embeddings, rng, making)
                self.work.made["features"] = made
        return self.work.made["features"]

    @property
    def graph(self) -> Graph:
        """The neighbor graph of the features.

        Raises:
            ValueError: there is no graph setting, or no features.
        """
        if self.life.knn is None:
            raise ValueError("this strategy needs a neighbor graph and got none; choose graph=knn")
        if self.life.fixed:
            return self.life.graph(self.pool)
        if "graph" not in self.work.made:
            features = self.features
            with self.work.clock.part("graph"):
                self.work.made["graph"] = self.life.knn.build(features, self.life.device)
        return self.work.made["graph"]

    def narrow(self, rows: Int64[ndarray, " b"]) -> "Round":
        """The same round with these candidates only.

        Raises:
            ValueError: a row that is not a candidate here.
        """
        kept = np.unique(rows)
        if not np.isin(kept, self.candidates).all():
            stranger = kept[~np.isin(kept, self.candidates)][0]
            raise ValueError(f"narrow takes candidates of this round only, got row {stranger}")
        return replace(self, candidates=kept)

    def stage(self, *names: str) -> "Round":
        """The same round with the random stream of these names (a stage draws from its criterion's own)."""
        return replace(self, rng=self.life.stream("select", self.number, *names))

    def once(self, name: str, make: Callable[[np.random.Generator], Any]) -> Any:
        """What is learned a single time in a run, from its own stream; its seconds stand apart as once_*."""
        if name not in self.life.once:
            with self.life.clock.part(name), self.work.clock.part("once"):
                self.life.once[name] = make(self.life.stream("select", "once", name))
        return self.life.once[name]

    def kept(
        self, name: str, start: Callable[[], Any], update: Callable[[Any, Int64[ndarray, " b"]], Any]
    ) -> Any:
        """A state carried across rounds: `start()`, then `update(state, rows)` for each purchase in order.

        The newest purchase is this round's to pay for; those that a continued run makes up for were paid for
        before.
        """
        state, done = self.life.kept.get(name) or (start(), 0)
        for place, rows in enumerate(self.life.purchases[done:], start=done + 1):
            newest = place == len(self.life.purchases)
            with nullcontext() if newest else self.work.clock.part("once"):
                state = update(state, rows)
        self.life.kept[name] = (state, len(self.life.purchases))
        return state

    def ask(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """Buys answers inside the batch; these rows must be part of the Batch returned.

        Raises:
            ValueError: a row that is no candidate, was asked before, or goes beyond the round's size.
        """
        work = self.work
        if not np.isin(rows, self.candidates).all() or any(int(row) in work.asked for row in rows):
            raise ValueError(f"ask takes candidates not asked before, got rows {rows.tolist()[:5]}")
        if len(work.asked) + len(rows) > work.size:
            wanted = len(work.asked) + len(rows)
            raise ValueError(f"this round buys {work.size} labels and ask wanted {wanted}; ask for fewer")
        with work.clock.part("oracle"):
            answers = work.answer(rows)
        work.asked.update(zip(rows.tolist(), answers.tolist(), strict=True))
        return answers

    @contextmanager
    def timed(self, part: str, predicted: int) -> Iterator[None]:
        """Charges a strategy's own forward passes over `predicted` rows to a part of the query time."""
        self.work.predicted += predicted
        with self.work.clock.part(part):
            yield

    def write(self, name: str, record: dict[str, Any]) -> None:
        """One more line for `<name>.csv` in the run folder; it is there when the round is whole."""
        self.work.tables.setdefault(name, []).append({"round": self.number, **record})

    def tell(self, news: str) -> None:
        """A few words for who watches, in the place of those before."""
        self.life.shelf.watch.tell(news)

    def figure(self, name: str, draw: Callable[[Figure], None]) -> None:
        """A picture for the run folder's figures, drawn when the round is whole."""
        self.work.figures[f"{name}-round{self.number:03d}"] = draw

    def _predict(self, rows: ndarray) -> ndarray:
        model = self._model("probabilities")
        with self.work.clock.part("predict"):
            embedded = self.work.known.get("embeddings")
            if embedded is not None and embedded[rows].all():
                return model.classify(self.work.rows["embeddings"][rows])
            self.work.predicted += len(rows)
            return model.predict(rows)

    def _embed(self, rows: ndarray) -> ndarray:
        model = self._model("embeddings")
        with self.work.clock.part("predict"):
            self.work.predicted += len(rows)
            return model.embed(rows)

    def _head(self, name: str, rows: ndarray) -> ndarray:
        model = self._model(f"outputs of the head '{name}'")
        with self.work.clock.part("predict"):
            if (reads := model.named(name).reads) == "embeddings":
                return model.head_from(name, self.embeddings(rows))
            self.work.predicted += len(rows)
            if reads == "items":
                return model.head(name, rows)
            probabilities, outputs = model.predict_with(name, rows)
            self.work.keep("probabilities", rows, probabilities, len(self.pool))
            return outputs

    def _model(self, what: str) -> Model:
        if self.model is None:
            raise ValueError(
                f"{what} need a model, but no label was bought yet; use budget.initial or .first"
            )
        return self.model


def checked(batch: Batch, current: Round, size: int, name: str) -> Batch:
    """The batch itself, if it keeps the contract.

    Raises:
        ValueError: not exactly `size` distinct candidates, scores of another length, or bought rows left out.
    """
    rows = batch.rows
    if len(rows) != size or len(np.unique(rows)) != size:
        raise ValueError(
            f"{name} must return {size} distinct rows, got {len(np.unique(rows))} of {len(rows)}"
        )
    if not np.isin(rows, current.candidates).all():
        stranger = rows[~np.isin(rows, current.candidates)][0]
        raise ValueError(f"{name} must choose among the round's candidates, got row {stranger}")
    if len(batch.scores) != size:
        raise ValueError(f"{name} must return one score a row, got {len(batch.scores)} for {size}")
    if not np.isin(list(current.work.asked), rows).all():
        raise ValueError(f"{name} asked for {len(current.work.asked)} labels and left some out of its batch")
    return batch
