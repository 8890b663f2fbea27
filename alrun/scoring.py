"""Selections scored by exact transport: the objective of what a run had bought after each of its rounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from numpy import ndarray

from alrun.assembly import assemble
from alrun.cache import Cache, Key, Making, Watch
from alrun.code import code_version
from alrun.config import ConfigError
from alrun.data.data import array_digest
from alrun.environment import chosen_device
from alrun.experiment import Experiment
from alrun.features.featurizer import Featurizer
from alrun.fixed_spaces import named_space, selects_in, shared_space, word_of
from alrun.lifetime import identity
from alrun.report.aggregating import panels
from alrun.report.objectives import Measure
from alrun.report.purchases import PoolMark, Purchases, pool_mark, read_purchases
from alrun.report.reading import Run, UnreadableError
from alrun.spaces import fixed_features, opened
from alrun.state import RunFolder
from alrun.transport.distances import Metric, costs
from alrun.transport.semi_discrete import transport

METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
OF_COSTS = ("alrun.transport.distances", "alrun.transport.semi_discrete")


class Screen(Watch, Protocol):
    """Who watches the scoring."""

    def begin(self, rounds: int, done: int) -> None:
        """`done` of `rounds` selections are scored."""
        ...

    def step(self, done: int, news: str) -> None:
        """So many are now."""
        ...


@dataclass(frozen=True, eq=False)
class Entry:
    """A run to be scored, its parts, its pool and its purchases.

    `features` is the digest of the fixed features in which it chose; None if it chose in none.
    """

    run: Run
    experiment: Experiment
    mark: PoolMark
    purchases: Purchases
    features: str | None

    @property
    def place(self) -> tuple[str, str, int]:
        """What its features follow from, beside their maker: pool, source, and the seed of what is shared."""
        seeds = self.experiment.seeds
        shared = self.experiment.seed if seeds.artifacts is None else seeds.artifacts
        return self.mark.inputs, self.mark.source or "", shared

    @property
    def batches(self) -> list[Int64[ndarray, " _b"]]:
        """Rows bought in each round, from round 0 to the last recorded one."""
        return [self.purchases.of(number).rows for number in range(self.run.done + 1)]

    def recorded(self, found: Shaped[ndarray, " q"]) -> Shaped[ndarray, " r"]:
        """Those of the recorded rounds, of values for every round."""
        return found[self.run.columns["round"].astype(np.int64)]


@dataclass(frozen=True, eq=False)
class Scored:
    """Runs with the further columns `objective` and `gap`, and where the objective was taken.

    `problems` has a line for each run that was left out.
    """

    runs: tuple[Run, ...]
    measure: Measure
    problems: tuple[str, ...]


def objectives(
    features: Float32[ndarray, "n d"], purchases: Sequence[Int64[ndarray, " _b"]], metric: Metric
) -> Iterator[float]:
    """W of all that was bought up to each purchase, exact; NaN as long as nothing was.

    W is the least mean cost of carrying the 1/n of every row to the B bought rows, each of which takes 1/B
    (ALGORITHMS 3.1, problem 1). Costs are those of `alrun.transport.distances`, as for strategies: under
    cosine a zero row is at 1 from all others. Memory: two float64 arrays (n, B).

    Raises:
        ValueError: features that are not finite.
    """
    counts = np.cumsum([len(rows) for rows in purchases])
    most = counts[counts < len(features)].max(initial=0)
    found = costs(features, np.concatenate(purchases)[:most].astype(np.int64), metric)
    for count in counts.tolist():
        if count == len(features):
            yield 0.0  # every row stays where it is
        else:
            yield transport(found[:, :count]).value if count else float("nan")


def scored(
    runs: Sequence[Run], space: str | None, metric: Metric | None, kept: Cache, device: str, screen: Screen
) -> Scored:
    """These runs scored in one space by one metric; what was scored before is read from `kept`.

    Space and metric are by default those that the runs themselves select by, cosine where none has a metric.
    The gap is what a run's own search left unproven in this space and metric; NaN where there was no search.

    Raises:
        ConfigError, ValueError, OSError: no run that can be scored, data that are gone, or runs that cannot
            be compared: of several data sets, or of one seed and several pools or seeds of encoders.
    """
    if len(names := [panel.dataset for panel in panels(runs)]) > 1:
        raise ValueError(f"runs must be of one data set to be compared, got {', '.join(names)}")
    entries, problems = _entries(runs, device)
    _require_one_place_a_seed(entries)
    experiments = {entry.run.folder: entry.experiment for entry in entries}
    featurizer = named_space(space, entries[0].run.settings) if space else shared_space(experiments)
    scale = _Scale(featurizer, metric or _own_metric(runs), kept, device, screen)
    done, total = 0, sum(entry.run.done + 1 for entry in entries)
    screen.begin(total, done)
    found = []
    for _, group in groupby(sorted(entries, key=lambda entry: entry.place), lambda entry: entry.place):
        for entry, values in scale.of_place(list(group)):
            columns = {"objective": entry.recorded(values), "gap": scale.gaps(entry)}
            found.append(replace(entry.run, columns={**entry.run.columns, **columns}))
            done += entry.run.done + 1
            screen.step(done, f"{entry.run.strategy}, seed {entry.run.seed}")
    return Scored(tuple(found), Measure(word_of(featurizer), scale.metric), problems)


@dataclass(frozen=True, eq=False)
class _Scale:
    """A space and a metric, and where scores are kept."""

    featurizer: Featurizer
    metric: Metric
    kept: Cache
    device: str
    screen: Screen

    def of_place(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Float64[ndarray, " q"]]]:
        """The objective after each round, of runs that share their features; these are made when needed.

        They are those in which the first run chose that chose in this space, whatever device made them.
        """
        first = next(filter(self._has, entries), entries[0])
        digest = first.features if self._has(first) else None

        @cache
        def features() -> Float32[ndarray, "n d"]:
            return fixed_features(opened(first.run.folder, self.device, self.screen), self.featurizer)

        for entry in entries:

            def make(making: Making, batches: list[ndarray] = entry.batches) -> None:
                values = np.array(list(objectives(features(), batches, self.metric)))
                np.save(making.folder / "objective.npy", values, allow_pickle=False)

            def load(folder: Path) -> Float64[ndarray, " q"]:
                return np.load(folder / "objective.npy", allow_pickle=False)

            key = self._key(entry, digest)
            yield entry, self.kept.kept("objective", key, make, load, self.screen).value

    def gaps(self, entry: Entry) -> Float64[ndarray, " r"]:
        """What the run's own searches left unproven, as it recorded it; NaN where it searched not here."""
        run = entry.run
        here = self._is_own(selects_in(entry.experiment))
        told = here and run.settings["strategy"].get("metric") == self.metric and "gap" in run.columns
        return run.columns["gap"] if told else np.full(len(run.columns["round"]), np.nan)

    def _has(self, entry: Entry) -> bool:
        """Whether the run keeps to features of this space that were made once."""
        return entry.features is not None and self._is_own(entry.experiment.featurizer)

    def _is_own(self, featurizer: Featurizer | None) -> bool:
        return featurizer is not None and identity(featurizer) == identity(self.featurizer)

    def _key(self, entry: Entry, features: str | None) -> Key:
        return {
            "space": identity(self.featurizer),
            "place": entry.place,
            "features": features,
            "device": chosen_device(self.device).type,
            "metric": self.metric,
            "purchases": array_digest(entry.purchases.rounds, entry.purchases.rows),
            "rounds": entry.run.done,
            "costs": [code_version(module) for module in OF_COSTS],
        }


def _entries(runs: Sequence[Run], device: str) -> tuple[list[Entry], tuple[str, ...]]:
    """The runs that can be scored, and a line for each other one.

    Raises:
        ValueError: none of them can.
    """
    entries, problems = [], []
    for run in runs:
        try:
            entries.append(_entry(run, device))
        except (ConfigError, UnreadableError) as error:
            problems.append(f"{run.folder}: left out ({'; '.join(str(error).splitlines())})")
    if not entries:
        raise ValueError("\n".join(["no run can be scored", *problems]))
    return entries, tuple(problems)


def _entry(run: Run, device: str) -> Entry:
    """A run as it can be scored.

    Raises:
        ConfigError: its settings no longer work, or its checkpoint cannot be read.
        UnreadableError: its files are damaged or do not agree.
    """
    mark = pool_mark(run.folder)
    purchases = read_purchases(run.folder, mark.total)
    if purchases.synthetic:
        raise UnreadableError(f"{purchases.synthetic} of its purchases are synthetic and in no pool")
    features = RunFolder(run.folder).load().features
    entry = Entry(run, assemble({**run.settings, "device": device}), mark, purchases, features)
    bought = entry.recorded(np.cumsum([len(rows) for rows in entry.batches]))
    if not np.array_equal(bought, run.columns["labeled"]):
        raise UnreadableError(
            "selections.csv has not the labels that rounds.csv counts; give the command that ran it once more"
        )
    return entry


def _require_one_place_a_seed(entries: Sequence[Entry]) -> None:
    """Nothing, if the runs of each seed have one pool, one source and one seed of encoders.

    Raises:
        ValueError: they have not.
    """
    first: dict[int, Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.run.seed, entry)
        if entry.place != other.place:
            parts = zip(("pools", "sources", "seeds.artifacts"), entry.place, other.place, strict=True)
            what = next(name for name, own, theirs in parts if own != theirs)
            raise ValueError(
                f"runs of one seed must share their space, {entry.run.folder} and {other.run.folder} have "
                f"different {what}; give runs on the same data"
            )


def _own_metric(runs: Sequence[Run]) -> Metric:
    """The metric of the runs' strategies.

    Raises:
        ValueError: they have several.
    """
    named = {run.settings["strategy"].get("metric") for run in runs}
    found: list[Metric] = [metric for metric in METRICS if metric in named]
    if len(found) > 1:
        raise ValueError(f"runs must share their metric, got {' and '.join(found)}; choose one with --metric")
    return found[0] if found else "cosine"
