"""Runs side by side: data set by data set, method by method, with mean and spread over seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.config import settings_id
from alrun.report.naming import ABSENT, all_differences, differing, names, of_the_data, without_chance, words
from alrun.report.reading import Run

# What a strategy brings along; seeds are told as missing.
OWN_GROUPS = dict.fromkeys(("strategy", "featurizer", "graph", "seed", "seeds"))


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds, the latter NaN for a single seed."""

    mean: Float64[ndarray, " r"]
    std: Float64[ndarray, " r"]


@dataclass(frozen=True, eq=False)
class Method:
    """The runs of one strategy with the same settings up to chance.

    Its whole runs are counted; where there is none, all of them, at the label counts that they share.

    Attributes:
        name: the strategy, and the settings that tell it from others of the same name.
        settings: every setting in which it differs from those.
        runs: the runs counted. left: the broken ones that are not.
    """

    name: str
    strategy: str
    settings: str
    runs: tuple[Run, ...]
    left: tuple[Run, ...]

    @property
    def all(self) -> tuple[Run, ...]:
        """Runs counted, then those that are not."""
        return (*self.runs, *self.left)

    @cached_property
    def seeds(self) -> frozenset[int]:
        """Seeds of the runs counted."""
        return frozenset(run.seed for run in self.runs)

    def of(self, seeds: frozenset[int]) -> "Method":
        """This method with no runs but those of these seeds, one of which it must have."""
        return replace(self, runs=tuple(run for run in self.runs if run.seed in seeds), left=())

    @cached_property
    def labels(self) -> Int64[ndarray, " r"]:
        """Label counts that every counted run has reached, round 0 first; with a cold start round 1."""
        return reduce(np.intersect1d, [run.columns["labeled"].astype(np.int64) for run in self.runs])

    @cached_property
    def queried(self) -> ndarray:
        """Whether labels were queried for at these label counts: the first set was not (bool, (r,))."""
        return self.values("round")[0] > 0

    def has(self, name: str) -> bool:
        """Whether every counted run has a number in this column at the shared label counts."""
        return all(name in run.columns for run in self.runs) and not np.isnan(self.values(name)).any()

    def values(self, name: str) -> Float64[ndarray, "s r"]:
        """A column of every run, at the shared label counts."""
        return self._shared(lambda run: run.columns[name])

    @cached_property
    def total_query(self) -> Float64[ndarray, "s r"]:
        """Query seconds of every run from its first round up to these label counts."""
        return self._shared(lambda run: np.cumsum(run.columns["query_seconds"]))

    @property
    def average_query(self) -> Float64[ndarray, " s"]:
        """Query seconds a round of every run, the first set left out; NaN without a query."""
        return self.average("query_seconds")

    def average(self, name: str) -> Float64[ndarray, " s"]:
        """A column's mean over the queried rounds, a number a run; NaN without a query."""
        values = self.values(name)[:, self.queried]
        return values.mean(axis=1) if values.shape[1] else np.full(len(values), np.nan)

    def once(self, parts: Sequence[str]) -> Float64[ndarray, " s"]:
        """Seconds of these parts that are made once, a number a run."""
        return np.array([sum(run.once.get(part, 0.0) for part in parts) for run in self.runs], np.float64)

    def _shared(self, column: Callable[[Run], ndarray]) -> Float64[ndarray, "s r"]:
        return np.array(
            [column(run)[np.isin(run.columns["labeled"], self.labels)] for run in self.runs], np.float64
        )


@dataclass(frozen=True, eq=False)
class Panel:
    """All methods on one data set."""

    dataset: str
    methods: tuple[Method, ...]

    @property
    def missing(self) -> Iterator[str]:
        """A line for each run that is broken, and for each seed that other methods have."""
        seeds = {run.seed for method in self.methods for run in method.all}
        for method in self.methods:
            title = f"{method.name} on {self.dataset}"
            for run in method.all:
                if not run.whole:
                    how = "not counted" if run in method.left else "counted as far as all its seeds are"
                    yield f"{title}, seed {run.seed}: {run.done} of {run.planned} rounds, {how}"
            there = {run.seed for run in method.all}
            if absent := sorted(seeds - there):
                yield f"{title}: no run of seed {', '.join(map(str, absent))}"

    @property
    def unlike(self) -> Iterator[str]:
        """A line for each setting outside the strategy's own groups in which methods differ.

        None for what their names tell, and for settings that only some of a group's choices have.
        """
        told = [words({**method.runs[0].settings, **OWN_GROUPS}) for method in self.methods]
        found = differing(told)
        for key in found:
            named = any(f"{key}=" in method.name for method in self.methods)
            own = key.partition(".")[0] in found and any(key not in each for each in told)
            if named or own:
                continue
            values: dict[str, list[str]] = {}
            for method, each in zip(self.methods, told, strict=True):
                values.setdefault(each.get(key, ABSENT), []).append(method.name)
            said = "; ".join(f"{value} for {', '.join(who)}" for value, who in values.items())
            yield f"{self.dataset}: methods differ in {key}: {said}"


def spread(values: Float64[ndarray, "s r"]) -> Spread:
    """Mean and sample standard deviation (ddof 1) of each column."""
    single = np.full(values.shape[1], np.nan)
    return Spread(values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else single)


def panels(runs: Sequence[Run]) -> tuple[Panel, ...]:
    """The runs by data set and method, both in alphabetical order.

    Runs whose settings of the group `dataset` differ stand in different panels.
    """
    found = []
    for dataset, same in _grouped(runs, lambda run: run.dataset):
        versions = _grouped(same, lambda run: settings_id(of_the_data(run.settings)))
        titles = names(dataset, [of_the_data(each[0].settings) for _, each in versions])
        found += [Panel(title, methods(each)) for title, (_, each) in zip(titles, versions, strict=True)]
    return tuple(sorted(found, key=lambda panel: panel.dataset))


def methods(runs: Sequence[Run]) -> tuple[Method, ...]:
    """The runs of one data set by strategy and settings, chance aside."""
    found = []
    for strategy, same in _grouped(runs, lambda run: run.strategy):
        versions = _grouped(same, lambda run: settings_id(without_chance(run.settings)))
        settings = [without_chance(each[0].settings) for _, each in versions]
        for name, told, (_, each) in zip(
            names(strategy, settings), all_differences(settings), versions, strict=True
        ):
            ordered = sorted(each, key=lambda run: (run.seed, run.id))
            whole = tuple(run for run in ordered if run.whole)
            left = tuple(run for run in ordered if not run.whole) if whole else ()
            found.append(Method(name, strategy, told, whole or tuple(ordered), left))
    return tuple(sorted(found, key=lambda method: method.name))


def _grouped(runs: Sequence[Run], key: Callable[[Run], str]) -> list[tuple[str, list[Run]]]:
    return [(name, list(each)) for name, each in groupby(sorted(runs, key=key), key)]
