"""What is written down of the epochs of a fit, by one who knows the truth; the trainer gets nothing back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.clock import Clock
from alrun.files import Progress, atomic
from alrun.graph.pseudo_labels import Pseudo
from alrun.pool import Inputs
from alrun.state import RunFolder, short
from alrun.training.evaluate import evaluate
from alrun.training.model import Model
from alrun.training.progress import Sight
from alrun.training.semi_supervised import SemiSupervised
from alrun.training.supervised import Supervised
from alrun.training.trainer import Trainer

PARTS = 10  # of a histogram
EPOCHS = "epochs"  # the table, and what its lines are called in the state of a fit
PSEUDO = "pseudo"  # the folder of pseudo-labels that are kept row by row

Line = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """How closely a fit is watched whose trainer shows its epochs; no result depends on it.

    Attributes:
        supervised: watch trainers, too, that learn from bought labels alone.
        test_every: epochs from one test to the next; so many epochs are also tested one by one where a
            later stage begins. At the ends of stages there is always a test (but where patience ends the
            last one: the round's own test follows); None tests nowhere else.
        rows: at a test, how many unbought rows (at most, spread over the pool) the network classifies, so
            that its own classes can be compared with the pseudo-labels.
    """

    supervised: bool
    test_every: Annotated[int, Ge(1)] | None
    rows: Annotated[int, Ge(0)]

    def watches(self, trainer: Trainer) -> bool:
        """Whether it is worth the tests: a trainer on labels alone is watched where that was asked for."""
        alone = isinstance(trainer, Supervised) and not isinstance(trainer, SemiSupervised)
        return self.supervised or not alone


@dataclass(frozen=True, eq=False)
class Truth:
    """What no trainer sees: the true classes of all pool rows, and the test set.

    Attributes:
        unbought: the pool rows without a label so far, sorted.
    """

    labels: Int64[ndarray, " n"]
    unbought: Int64[ndarray, " u"]
    test: Inputs
    test_labels: Int64[ndarray, " m"]


@dataclass(frozen=True, eq=False)
class Page:
    """Where a round's fit is written down: its number, the run's folder and tables, and the round's clock."""

    number: int
    folder: RunFolder
    tables: dict[str, list[Line]]
    clock: Clock


@dataclass(eq=False)
class Watched:
    """The progress of one round's fit, with a line for each epoch that its trainer shows.

    Lines are part of the state that a fit keeps: one that goes on after a kill goes on with the lines it
    had then, so that the table is that of an unbroken run. Watching is charged to the clock's part `watch`.

    Attributes:
        journal: None writes nothing down.
    """

    progress: Progress
    journal: Journal | None
    truth: Truth
    page: Page
    lines: list[Line] = field(default_factory=list)
    total: int = 0

    def epoch(self, done: int, total: int) -> None:
        """Says that `done` of `total` epochs are over."""
        self.total = total
        self.progress.epoch(done, total)

    def watch(self, sight: Sight) -> None:
        """Adds the epoch's line; the pseudo-labels of some epochs are kept row by row."""
        if self.journal is None:
            return
        with self.page.clock.part("watch"):
            line: Line = {"round": self.page.number, "epoch": sight.epoch, "stage": sight.stage}
            line |= {name: short(value) for name, value in sight.numbers.items()}
            if sight.pseudo is not None:
                line |= judged(sight.pseudo, self.truth)
                if len(self.truth.unbought) and sight.epoch in self._kept_epochs(sight.epoch):
                    _keep_rows(sight.pseudo, self.truth, rows_file(self.page, sight.epoch))
            if self._is_tested(sight, self.journal.test_every):
                line |= _tested(sight.model(), self.truth, self.journal.rows)
            self.lines.append(line)

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """Saves `make()` and the lines so far, if the last save is long enough ago."""
        self.progress.keep(epoch, lambda: self._with_lines(make()))

    def load(self) -> dict[str, Any] | None:
        """The state saved last for this fit, if there is one; its lines are taken up."""
        state = self.progress.load()
        if state is None:
            return None
        self.lines = list(state.get(EPOCHS, []))
        return {name: value for name, value in state.items() if name != EPOCHS}

    def close(self) -> None:
        """Gives the lines of a fit that is over to the run's tables."""
        if self.lines:
            self.page.tables.setdefault(EPOCHS, []).extend(self.lines)

    def _with_lines(self, state: dict[str, Any]) -> dict[str, Any]:
        if not self.lines:
            return state
        self.page.folder.write_table(EPOCHS, [*self.page.tables.get(EPOCHS, []), *self.lines])
        return {**state, EPOCHS: self.lines}

    def _kept_epochs(self, epoch: int) -> set[int]:
        """The epochs that made what the first, middle and last semi-supervised epochs learn from."""
        first = next((line["epoch"] for line in self.lines if _is_judged(line)), epoch)
        return {first, (first + self.total) // 2, self.total - 1}

    def _is_tested(self, sight: Sight, every: int | None) -> bool:
        """Whether there is a test after this epoch: see `Journal`."""
        begins = sight.pseudo is not None and not any(_is_judged(line) for line in self.lines)
        if begins or sight.epoch == self.total:
            return True
        stages = [line["stage"] for line in self.lines]
        later = any(stage != sight.stage for stage in stages)
        return every is not None and (
            sight.epoch % every == 0 or (later and stages.count(sight.stage) < every)
        )


def judged(pseudo: Pseudo, truth: Truth) -> Line:
    """How right the pseudo-labels of the unbought rows are, and what else is said of them, as `pseudo_*`.

    Shares and mean weights are in [0, 1]: `weighted_accuracy` counts each row by its weight; a mean over no
    row at all is left out. `right_weights` and `wrong_weights` are histograms: how many weights are in each
    of ten equal parts of [0, 1].
    """
    rows, weights = truth.unbought, pseudo.weights[truth.unbought].astype(np.float64)
    right = pseudo.labels[rows] == truth.labels[rows]
    means = {
        "accuracy": _mean(right, np.ones(len(rows))),
        "weighted_accuracy": _mean(right, weights),
        "right_weight": _mean(weights, right),
        "wrong_weight": _mean(weights, ~right),
        "zero_share": _mean(pseudo.zero[rows], np.ones(len(rows))),
    }
    found = {**pseudo.facts, **{name: value for name, value in means.items() if value is not None}}
    told: Line = {f"pseudo_{name}": short(value) for name, value in found.items()}
    if not len(rows):
        return told
    return told | {
        "pseudo_right_weights": _histogram(weights[right]),
        "pseudo_wrong_weights": _histogram(weights[~right]),
    }


def rows_file(page: Page, epoch: int) -> Path:
    """Where the pseudo-labels that an epoch made are kept row by row."""
    return page.folder.path / PSEUDO / f"round{page.number:03d}_epoch{epoch:04d}.npz"


def _histogram(weights: Float64[ndarray, " w"]) -> str:
    counts, _ = np.histogram(weights.clip(0, 1), PARTS, (0, 1))
    return " ".join(map(str, counts.tolist()))


def _mean(values: ndarray, weights: ndarray) -> float | None:
    """The weighted mean; None where all weights are zero."""
    total = float(weights.sum(dtype=np.float64))
    return float((values.astype(np.float64) * weights).sum()) / total if total > 0 else None


def _is_judged(line: Mapping[str, Any]) -> bool:
    return "pseudo_zero_share" in line  # known even where no row is left to be right or wrong about


def _keep_rows(pseudo: Pseudo, truth: Truth, file: Path) -> None:
    """The unbought rows, their pseudo-labels, weights and true classes."""
    rows = truth.unbought
    file.parent.mkdir(exist_ok=True)
    with atomic(file) as part, part.open("wb") as opened:
        np.savez_compressed(
            opened,
            rows=rows,
            labels=pseudo.labels[rows],
            weights=pseudo.weights[rows],
            truth=truth.labels[rows],
        )


def _tested(model: Model, truth: Truth, count: int) -> Line:
    """The model on the test set, and its accuracy on some of the unbought rows."""
    with _modes_of(model):
        found = evaluate(model.on(truth.test), truth.test_labels)
        line: Line = {f"test_{name}": value for name, value in found.items()}
        some = truth.unbought[:: max(1, ceil(len(truth.unbought) / max(count, 1)))]
        if count and len(some):
            own = model.predict(some).argmax(axis=1)
            line["network_accuracy"] = float((own == truth.labels[some]).mean())
    return line


@contextmanager
def _modes_of(model: Model) -> Iterator[None]:
    """Inside, the model may be asked; then its parts are in train or eval mode as before."""
    modes = [(part, part.training) for part in (*model.network.modules(), *model.heads.modules())]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
