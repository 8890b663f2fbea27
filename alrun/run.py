"""The loop: the only place where rounds happen."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy import ndarray

from alrun.cache import Watch
from alrun.clock import Clock
from alrun.data.data import Data
from alrun.data.split import write_split
from alrun.environment import chosen_device, environment, forget_peak_memory, peak_memory
from alrun.experiment import Experiment
from alrun.forecast import forecast
from alrun.journal import Page, Truth, Watched
from alrun.lifetime import Lifetime, Shelf
from alrun.models.encoded import FrozenHead
from alrun.models.network import Architecture, tried
from alrun.pool import NOT_BOUGHT, Inputs
from alrun.report.reading import QUERY_PARTS
from alrun.report.run_figures import draw_plane, draw_run
from alrun.rounds import OF_FEATURES, Batch, Round, Work, checked, name_of, needs_model
from alrun.state import RunFolder, Saved, short
from alrun.strategies.uncertainty import entropy
from alrun.training.evaluate import evaluate
from alrun.training.model import Model

log = logging.getLogger(__name__)

Settings = Mapping[str, Any]

WORTH_SAYING = 120.0  # seconds


@runtime_checkable
class Screen(Watch, Protocol):
    """Who watches a run; `epoch` tells of a fit, too."""

    def already(self, folder: Path) -> None:
        """The run in this folder is finished; nothing is left to do."""
        ...

    def begin(self, rounds: int, done: int) -> None:
        """`done` of `rounds` fits are over already."""
        ...

    def round(self, record: Mapping[str, Any]) -> None:
        """A round is whole."""
        ...


def run(experiment: Experiment, folder: RunFolder, settings: Settings, screen: Screen) -> Saved:
    """Runs what is missing of an experiment, and gives its records.

    Raises:
        ConfigError, ValueError, OSError: bad input, before the run folder is made wherever it can be known.
    """
    folder.same_settings(settings)
    if (whole := folder.finished(len(experiment.budget.batches))) is not None:
        screen.already(folder.path)
        if experiment.tracker is not None:
            experiment.tracker.sync(folder.path, settings, finished=True)
        return whole
    device = chosen_device(experiment.device)
    forget_peak_memory(device)
    data = experiment.data()
    plan = experiment.budget.plan(len(data.labels))
    first = experiment.budget.first_rows(data.labels, data.classes, experiment.stream("initial"))
    where = environment(device, data, experiment.seed)
    with folder.opened(settings, where):
        write_split(folder.path / "split.csv", data)
        saved = folder.load()
        digests = where["data"]["inputs"], where["data"].get("source")
        shelf = Shelf(experiment.cache, *digests, screen, folder.show)
        loop, heard = Loop(experiment, data, device, saved, shelf), True
        loop.tell_time(plan, screen)
        loop.make_fixed(screen)
        folder.same_features(saved, loop.life.once.get("features_digest"))
        loop.restore()
        screen.begin(len(plan), saved.round + 1)
        for number in range(saved.round + 1, len(plan)):
            loop.play(number, plan[number], first, folder, screen)
            if experiment.tracker is not None and heard:
                heard = experiment.tracker.sync(folder.path, settings, finished=False)
        folder.write_tables(saved)
        if len(data.inputs.shape) == 2 and data.inputs.shape[1] == 2 and loop.model is not None:
            draw_plane(folder.figures / "plane.png", data, loop.model, saved.purchases)
        draw_run(folder.figures / "accuracy.png", saved.records, settings["choices"])
        if experiment.tracker is not None:
            experiment.tracker.sync(folder.path, settings, finished=True)
        folder.finish()
    return saved


class Loop:
    """Choose, ask, train, record: the state of a run between its rounds."""

    def __init__(
        self, experiment: Experiment, data: Data, device: torch.device, saved: Saved, shelf: Shelf
    ) -> None:
        self.experiment, self.data, self.device, self.saved = experiment, data, device, saved
        self.test = Inputs(data.test_inputs, device)
        self.pool = data.pool(np.full(len(data.labels), NOT_BOUGHT, np.int64), device)
        self.life = Lifetime(experiment.stream, experiment.featurizer, experiment.graph, device, shelf)
        self.life.take_up(saved.features)
        for purchase in saved.purchases:
            self._buy(np.array(purchase["rows"], np.int64), np.array(purchase["labels"], np.int64))
        self.model: Model | None = None

    @property
    def _fixed_needs(self) -> frozenset[str]:
        """What the strategies need of features and graph that do not depend on a model."""
        needs = self.experiment.strategy.needs | self.experiment.budget.first.needs
        needs |= {"features"} if self._on_encoder else frozenset()
        return needs & OF_FEATURES if self.life.fixed else frozenset()

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
        made = not self._fixed_needs or self.life.has_features
        sizes = np.cumsum(plan)[self.saved.round + 1 :].tolist()
        ahead = forecast(
            self.experiment.trainer,
            self.experiment.model if self._on_encoder and not made else self.architecture,
            None if made else self.experiment.featurizer,
            self.pool.blank,
            [size for size in sizes if size],
            len(self.data.test_labels),
        )
        log.info("forecast: %s", ahead)
        if ahead.total > WORTH_SAYING:
            screen.say(f"without a GPU this takes {ahead}; less where fits end early")

    def make_fixed(self, screen: Screen) -> None:
        """Features and graph that do not depend on a model, if the strategy needs them; says which."""
        if not (needs := self._fixed_needs):
            return
        if not self._on_encoder:
            tried(self.architecture, self.pool.inputs.shape, self.pool.inputs.moments, self.pool.classes)
        graph = "graph" in needs and self.life.knn is not None
        for line in self.life.plan(self.pool, graph):
            screen.say(line)
        if self._on_encoder:
            self.life.encoder(self.pool)
        if graph:
            self.life.graph(self.pool)
        else:
            self.life.features(self.pool)

    def restore(self) -> None:
        """The last round's model, from its checkpoint, if there is one."""
        if (weights := self.saved.weights) is not None:
            trainer, facts = self.experiment.trainer, self.saved.facts
            self.model = trainer.restored(self.architecture, self.pool, weights, facts)

    def play(self, number: int, size: int, first: ndarray, folder: RunFolder, screen: Screen) -> None:
        """One whole round, from the choice to the commit."""
        clock, chance = Clock(self.device), self.experiment.stream("oracle", number)
        work = Work(clock, lambda rows: self.experiment.oracle.answer(rows, self.data.labels, chance), size)
        batch = self._first(first) if number == 0 else self._chosen(number, size, work)
        entropies = entropy(self.model.predict(batch.rows)) if self.model is not None else np.empty(0)
        with clock.part("oracle"):
            unasked = batch.rows[~np.isin(batch.rows, list(work.asked))]
            answers = dict(zip(unasked.tolist(), work.answer(unasked).tolist(), strict=True)) | work.asked
        labels = np.array([answers[row] for row in batch.rows.tolist()], np.int64)
        self._buy(batch.rows, labels)
        self.saved.purchases.append(
            {"rows": batch.rows.tolist(), "labels": labels.tolist(), "scores": _plain_scores(batch, number)}
        )
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
        folder.commit(self.saved)

    def _first(self, rows: ndarray) -> Batch:
        budget = self.experiment.budget
        reads = (
            budget.initial_sampling != "random" and budget.initial_rows is None and budget.initial != "all"
        )
        if reads:
            log.warning("budget.initial_sampling=%s reads hidden labels", budget.initial_sampling)
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
        if work.asked:
            notes = {**notes, "asked_inside": float(len(work.asked))}
        if graph := work.made.get("graph") or self.life.once.get("graph"):
            notes = {**notes, "graph_recall": graph.recall}
        return replace(batch, notes={"candidates": float(len(current.candidates)), **batch.notes, **notes})

    def _train(self, page: Page, screen: Screen) -> None:
        journal, test = self.experiment.watching, self.test
        if journal is not None:
            with page.clock.part("evaluate"):
                test = self._tested
        truth = Truth(self.data.labels, self.pool.unlabeled, test, self.data.test_labels)
        progress = page.folder.progress(page.number, screen.epoch)
        watched = Watched(progress, journal, truth, page)
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
            "labeled": len(self.pool.labeled),
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
