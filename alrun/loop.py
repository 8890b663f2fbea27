"""What happens in a round: choose, ask, train, record."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from alrun.audience import Screen
from alrun.clock import Clock
from alrun.data.data import Data
from alrun.environment import peak_memory
from alrun.experiment import Experiment
from alrun.features.featurizer import Encoding
from alrun.forecast import forecast, rehearsed
from alrun.journal import Page, Truth, Watched
from alrun.lifetime import Lifetime, Shelf
from alrun.models.encoded import FrozenHead
from alrun.models.network import Architecture, tried
from alrun.oracle import Referee, Reference
from alrun.pool import NOT_BOUGHT, Inputs
from alrun.purchase import SYNTHETIC
from alrun.report.reading import QUERY_PARTS
from alrun.rounds import OF_FEATURES, Batch, Round, Work, checked, name_of, needs_model
from alrun.state import RunFolder, Saved, short
from alrun.strategies.uncertainty import entropy
from alrun.synthetic import drop_after, keep, kept
from alrun.training.evaluate import evaluate
from alrun.training.model import Model

log = logging.getLogger(__name__)

WORTH_SAYING = 120.0  # seconds


class Loop:
    """Choose, ask, train, record: the state of a run between its rounds."""

    def __init__(
        self, experiment: Experiment, data: Data, device: torch.device, saved: Saved, shelf: Shelf
    ) -> None:
        self.experiment, self.data, self.device, self.saved = experiment, data, device, saved
        self.test = Inputs(data.test_inputs, device)
        self.pool = data.pool(np.full(len(data.labels), NOT_BOUGHT, np.int64), device)
        parts = experiment.featurizer, experiment.graph, device, shelf, experiment.generator
        self.life = Lifetime(experiment.stream, *parts)
        self.life.take_up(saved.features, saved.generator)
        self.life.written = saved.tables
        self.model: Model | None = None
        self.reference: Model | None = None

    @property
    def _fixed_needs(self) -> frozenset[str]:
        """What the strategies need of generator, features and graph that do not depend on a model."""
        needs = self.experiment.strategy.needs | self.experiment.budget.first.needs
        needs |= {"features"} if self._on_encoder else frozenset()
        fixed = {"generator", *(OF_FEATURES if self.life.fixed else ())}
        return self.life.with_generator(needs & fixed)

    @property
    def made_digests(self) -> tuple[str | None, str | None]:
        """Of the features and of the generator that were made before round 0."""
        return self.life.once.get("features_digest"), self.life.once.get("generator_digest")

    @property
    def _on_encoder(self) -> bool:
        return isinstance(self.experiment.model, FrozenHead)

    @cached_property
    def architecture(self) -> Architecture:
        """The networks that the trainer fits."""
        return self.experiment.architecture(self.life, self.pool)

    def tell_time(self, plan: Sequence[int], screen: Screen) -> None:
        """Says how long the run may take where that is long: on a CPU."""
        if self.device.type != "cpu":
            return
        made = not self._fixed_needs & OF_FEATURES or self.life.has_features
        parts = self.experiment.featurizer, self.experiment.generator, self.pool
        sizes = np.cumsum(plan)[self.saved.round + 1 :].tolist()
        ahead = forecast(
            self.experiment.trainer,
            self.experiment.model if self._on_encoder and not made else self.architecture,
            None if made else rehearsed(*parts),
            self.pool.blank,
            [size for size in sizes if size],
            len(self.data.test_labels),
        )
        if "generator" in self._fixed_needs:
            ahead = ahead._replace(generator=self.life.generator_ahead(self.pool))
        log.info("forecast: %s", ahead)
        if ahead.total > WORTH_SAYING:
            screen.say(f"without a GPU this takes {ahead}; less where fits end early")

    def make_fixed(self, screen: Screen) -> None:
        """Generator, features and graph that depend on no model, if a strategy needs them; says which."""
        if not (needs := self._fixed_needs):
            return
        if not self._on_encoder:
            tried(self.architecture, self.pool.inputs.shape, self.pool.inputs.moments, self.pool.classes)
        graph = "graph" in needs and self.life.knn is not None
        for line in self.life.plan(self.pool, needs if graph else needs - {"graph"}):
            screen.say(line)
        if "generator" in needs:
            self.life.generator(self.pool)
        if self._on_encoder or ("encoded" in needs and isinstance(self.life.featurizer, Encoding)):
            self.life.encoder(self.pool)
        if graph:
            self.life.graph(self.pool)
        elif "features" in needs or (needs & OF_FEATURES and self.life.keeps_features):
            self.life.features(self.pool)

    def make_reference(self, screen: Screen) -> None:
        """The oracle's classifier of synthetic items, if the strategy makes any."""
        if SYNTHETIC in self.experiment.strategy.needs:
            screen.say("oracle: a reference classifier that has seen all labels stands for a person")
            oracle = self.experiment.oracle
            assert isinstance(oracle, Reference)  # settings are checked for it
            whole = replace(self.pool, labels=self.data.labels)
            self.reference = oracle.learned(self.experiment.model, self.experiment.trainer, whole, self.life)

    def take_up(self, folder: RunFolder) -> None:
        """The pool with all that was bought so far, in order; what a broken round left behind is deleted.

        Raises:
            ConfigError: synthetic items that the run bought are gone or damaged.
        """
        drop_after(folder.path, self.saved.round)
        folder.open_tables(self.saved).drop()
        for number, purchase in enumerate(self.saved.purchases):
            if (mark := purchase.get("synthetic")) is not None:
                self.pool = self.pool.add(kept(folder.path, number, mark))
            self._buy(np.array(purchase["rows"], np.int64), np.array(purchase["labels"], np.int64))

    def restore(self) -> None:
        """The last round's model, from its checkpoint, if there is one."""
        if (weights := self.saved.weights) is not None:
            trainer, facts = self.experiment.trainer, self.saved.facts
            self.model = trainer.restored(self.architecture, self.pool, weights, facts)

    def play(self, number: int, size: int, first: ndarray, folder: RunFolder, screen: Screen) -> None:
        """One whole round, from the choice to the commit."""
        work = self._work(clock := Clock(self.device), number, size)
        work.opened = folder.open_tables(self.saved)
        batch = self._first(first) if number == 0 else self._chosen(number, size, work)
        entropies = self._settle(number, batch, work, folder)
        self.saved.round = number
        if len(self.pool.labeled):
            with clock.part("train"):
                self._train(Page(number, folder, self.saved.tables, clock), screen)
            with clock.part("evaluate"):
                result = self._evaluated()
            record = self._record(number, batch, work, result)
            if len(entropies):
                record["batch_entropy"] = float(entropies.mean())
            self.saved.records.append(record)
            _log(record)
            screen.round(record)
        for name, lines in work.tables.items():
            self.saved.tables.setdefault(name, []).extend(lines)
        folder.draw(work.figures)
        folder.store(number, work.arrays)
        folder.commit(self.saved)

    def _work(self, clock: Clock, number: int, size: int) -> Work:
        """An empty round, and who answers in it."""
        oracle, truth = self.experiment.oracle, self.data.labels
        chance = self.experiment.stream("oracle", number)
        referee = None
        if self.reference is not None and isinstance(oracle, Reference):
            referee = Referee(self.reference, oracle.noise, chance)
        return Work(clock, lambda rows: oracle.answer(rows, truth, self.data.classes, chance), size, referee)

    def _settle(self, number: int, batch: Batch, work: Work, folder: RunFolder) -> Float64[ndarray, " b"]:
        """Buys the batch; how unsure the model was of each row, nothing if there is none."""
        purchase = work.purchase
        self.pool = self.pool if purchase.pool is None else purchase.pool
        # where rows were added, the model that chose knows nothing of them yet
        model = self.model if self.model is None or purchase.pool is None else self.model.on(self.pool.inputs)
        entropies = entropy(model.predict(batch.rows)) if model is not None else np.empty(0)
        with work.clock.part("oracle"):
            labels = purchase.settled(batch.rows)
        self._buy(batch.rows, labels)
        bought: dict[str, Any] = {"rows": batch.rows.tolist(), "labels": labels.tolist()}
        bought["scores"] = _plain_scores(batch, number)
        if purchase.lines:
            bought["annotations"] = purchase.annotations(batch.rows).tolist()
        if mark := keep(folder.path, number, purchase):
            bought["synthetic"] = mark
        self.saved.purchases.append(bought)
        return entropies

    def _first(self, rows: ndarray) -> Batch:
        if reads := self.experiment.budget.reads_labels:
            sampling = self.experiment.budget.initial_sampling
            log.warning("budget.initial_sampling=%s reads hidden labels", sampling)
        return Batch(rows, np.full(len(rows), np.nan), {"initial_reads_labels": 1.0} if reads else {})

    def _chosen(self, number: int, size: int, work: Work) -> Batch:
        """The strategy's batch; before there is a model, `budget.first` chooses for those that need one."""
        strategy, notes = self.experiment.strategy, {}
        if self.model is None and needs_model(strategy, self.experiment.featurizer):
            strategy, notes = self.experiment.budget.first, {"chosen_by_first": 1.0}
            log.info("no label yet: %s buys the first batch", name_of(strategy))
        name = name_of(strategy)
        rng = self.experiment.stream("select", number, name)
        current = Round(number, self.pool, self.pool.unlabeled, self.model, rng, self.life, work)
        with work.clock.part("select"):
            batch = strategy.select(current, size)
        checked(batch, current, size, name)
        if work.purchase.asked:
            notes = {**notes, "asked_inside": float(len(work.purchase.asked))}
        if graph := work.made.get("graph") or self.life.once.get("graph"):
            notes = {**notes, "graph_recall": graph.recall}
        return replace(batch, notes={"candidates": float(len(current.candidates)), **batch.notes, **notes})

    def _train(self, page: Page, screen: Screen) -> None:
        journal, test = self.experiment.watching, self.test
        if journal is not None:
            with page.clock.part("evaluate"):
                test = self._tested
        truth = Truth(self.data.labels, self.pool.unlabeled, test, self.data.test_labels)
        watched = Watched(page.folder.progress(page.number, screen.epoch), journal, truth, page)
        self.model = self.experiment.trainer.fit(
            self.architecture,
            self.pool,
            chance=lambda branch, *names: self.experiment.stream(branch, page.number, *names),
            start=self.model,
            progress=watched,
        )
        watched.close()
        weights = self.model.weights
        self.saved.weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        self.saved.facts = dict(self.model.facts)

    @property
    def _annotations(self) -> int:
        """Annotations bought so far: rows, but that all rows of a line are one."""
        return sum(len(set(each.get("annotations", each["rows"]))) for each in self.saved.purchases)

    @cached_property
    def _tested(self) -> Inputs:
        """The test set, whose outputs of a frozen encoder runs share."""
        self.experiment.remember_encoded(self.life, self.pool, self.test)
        return self.test

    def _evaluated(self) -> dict[str, float]:
        assert self.model is not None
        return evaluate(self.model.on(self._tested), self.data.test_labels)

    def _record(self, number: int, batch: Batch, work: Work, result: Mapping[str, float]) -> dict[str, Any]:
        seconds = {name: round(value, 6) for name, value in work.clock.seconds.items() if name != "once"}
        query = {f"{name}_seconds": seconds.pop(name, 0.0) for name in QUERY_PARTS}
        once = {f"once_{name}_seconds": round(value, 6) for name, value in self.life.clock.seconds.items()}
        facts = self.saved.facts
        record = {
            "round": number,
            "labeled": self._annotations,
            "loss": facts["train_loss"],
            **result,
            "query_seconds": round(sum(query.values()), 6),
            **query,
            **{f"{name}_seconds": value for name, value in seconds.items()},
            "candidates": 0,
            "predicted": work.predicted,
            "peak_rss_mb": peak_memory(),
            **{name: short(value) for name, value in facts.items() if name != "train_loss"},
            **once,
        }
        if len(self.pool.labeled) != record["labeled"]:
            record["images"] = len(self.pool.labeled)
        referee = work.purchase.annotator
        if isinstance(referee, Referee) and referee.confidence is not None:
            record["oracle_confidence"] = referee.confidence
        if self.device.type == "cuda":
            record["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        return {**record, **{name: short(value) for name, value in batch.notes.items()}}

    def _buy(self, rows: ndarray, labels: ndarray) -> None:
        self.pool = self.pool.reveal(rows, labels)
        self.life.purchases.append(rows)


def _log(record: Mapping[str, Any]) -> None:
    log.info(
        "round %d: %d labels, accuracy %.4f, query %.3f s, %d epochs in %.1f s (%.0f images per second)",
        *(record[name] for name in ("round", "labeled", "accuracy", "query_seconds", "train_epochs")),
        record["train_seconds"],
        record["train_images"] / max(record["train_seconds"], 1e-9),
    )


def _plain_scores(batch: Batch, number: int) -> list[float | str]:
    """Scores for the file; the first set has none."""
    return [""] * len(batch.rows) if number == 0 else batch.scores.tolist()
