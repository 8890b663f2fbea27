"""What a strategy sees of a round, what it returns, and what it costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from alrun.cache import scratch
from alrun.features.simple import Pixels
from alrun.features.unit_images import features_of
from alrun.generative.generator import Generator
from alrun.graph.knn import Graph
from alrun.lifetime import Lifetime
from alrun.lifetime import name_of as name_of
from alrun.needs import OF_FEATURES as OF_FEATURES
from alrun.needs import needed_heads as needed_heads
from alrun.needs import needs_model as needs_model
from alrun.pool import Pool
from alrun.purchase import Batch as Batch
from alrun.retrieval.spectrum import Rows
from alrun.training.model import HEADS, Model
from alrun.work import Work as Work

Ask = Callable[[Model, ndarray], ndarray]


@runtime_checkable
class Strategy(Protocol):
    """Chooses what to label.

    `needs` names what it cannot do without: `probabilities`, `logits`, `embeddings`, `dropout` and
    `heads.<name>` (a further output of the trainer) are the model's; `features` and `graph` come from the
    featurizer, `graph.cosine` says of which metric, and `encoded` that images outside the pool have features,
    too; `generator` is trained on the pool; `labels` says that some must be bought before, `two_classes` that
    there may be no more; `oracle` says that it buys answers inside a batch, `synthetic` that it adds rows,
    which somebody must be able to label.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What `select` asks of the round."""
        ...

    def select(self, current: "Round", size: int) -> Batch:
        """Exactly `size` annotations, of distinct rows: candidates of the round, or rows that it added.

        An annotation is a row, but for lines: all rows of one that was asked for (`Round.ask_line`) are one.
        """
        ...


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

    def logits(self, rows: Int64[ndarray, " b"]) -> Float32[ndarray, "b c"]:
        """Outputs of the last layer for these rows: they still differ where probabilities are 0 and 1."""
        return self.work.remembered("logits", rows, len(self.pool), self._logits)

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
    def feature_rows(self) -> Rows:
        """As `features`, read block by block: of pixels no matrix is kept.

        Raises:
            ValueError: as of `features`.
        """
        if isinstance(self.life.featurizer, Pixels) and "features" not in self.life.once:
            return self.life.featurizer.rows(self.pool.inputs.originals)
        return Rows.of(self.features)

    def encoded(self, images: Float32[Tensor, " b *shape"]) -> Float32[ndarray, "b d"]:
        """What unit images, in [0, 1] and of the items' shape, are in the space of `features`.

        Raises:
            ValueError: a featurizer that knows the pool's items alone.
        """
        with self.work.clock.part("features"):
            return features_of(images, self.life.featurizer, lambda: self.life.encoder(self.pool), self.model)

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

    @property
    def generator(self) -> Generator:
        """The generator trained on the pool, made before round 0 where a strategy needs it."""
        return self.life.generator(self.pool)

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

    def add(self, items: Shaped[ndarray, "m ..."]) -> Int64[ndarray, " m"]:
        """New pool rows of synthetic items, which only this round may buy; all must be in the Batch returned.

        They are labeled by `ask`, by `ask_line`, or with the batch. `pool` and `candidates` stay as they are:
        the next round's pool has them.

        Raises:
            ValueError: nobody labels synthetic items, or they are not as the pool stores items
                (`Inputs.stored` makes them so).
        """
        return self.work.purchase.add(self.pool, items)

    def ask(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """Buys answers inside the batch, an annotation each; these rows must be part of the Batch returned.

        Raises:
            ValueError: a row that is no candidate, was asked before, or goes beyond the round's size.
        """
        with self.work.clock.part("oracle"):
            return self.work.purchase.ask(rows, self.candidates)

    def ask_line(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """Buys, as one annotation, where in a line of added rows the class changes; the label of each row.

        Raises:
            ValueError: rows that were not added in this round, were asked before, or go beyond its size.
        """
        with self.work.clock.part("oracle"):
            return self.work.purchase.ask_line(rows)

    @contextmanager
    def timed(self, part: str, predicted: int) -> Iterator[None]:
        """Charges a strategy's own forward passes over `predicted` rows to a part of the query time."""
        self.work.predicted += predicted
        with self.work.clock.part(part):
            yield

    def write(self, name: str, record: dict[str, Any]) -> None:
        """One more line for `<name>.csv` in the run folder: there at once, and for good with the round."""
        self.work.write(name, {"round": self.number, **record})

    def written(self, name: str) -> list[dict[str, Any]]:
        """What was written for `<name>.csv` in earlier rounds, in order."""
        return self.life.written.get(name, [])

    def tell(self, news: str) -> None:
        """A few words for who watches, in the place of those before."""
        self.life.shelf.watch.tell(news)

    def figure(self, name: str, draw: Callable[[Figure], None]) -> None:
        """A picture for the run folder's figures, drawn when the round is whole."""
        self.work.figures[f"{name}-round{self.number:03d}"] = draw

    def store(self, name: str, arrays: dict[str, ndarray]) -> None:
        """Arrays for `<name>/round<number>.npz` in the run folder, there when the round is whole."""
        self.work.arrays[name] = arrays

    def _predict(self, rows: ndarray) -> ndarray:
        return self._ended(rows, "probabilities", Model.predict, Model.classify)

    def _logits(self, rows: ndarray) -> ndarray:
        return self._ended(rows, "logits", Model.logits, Model.logits_from)

    def _ended(self, rows: ndarray, what: str, of_rows: Ask, of_embeddings: Ask) -> ndarray:
        model = self._model(what)
        with self.work.clock.part("predict"):
            embedded = self.work.known.get("embeddings")
            if embedded is not None and embedded[rows].all():
                return of_embeddings(model, self.work.rows["embeddings"][rows])
            self.work.predicted += len(rows)
            return of_rows(model, rows)

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
        ValueError: not exactly `size` annotations of distinct rows, a row that is neither a candidate nor
            added in this round, scores of another length, or rows left out that were bought or added.
    """
    current.work.purchase.check(batch, current.candidates, size, name)
    return batch
