"""How far a fit is, and where the state of a long one is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from alrun.graph.pseudo_labels import Pseudo
from alrun.training.model import Model

Stage = Literal["supervised", "semi_supervised"]


@dataclass(frozen=True, eq=False)
class Sight:
    """What an epoch made, shown to whoever watches the fit; nothing comes back.

    Attributes:
        stage: whose labels the epoch learned: bought ones alone (beside which a mean teacher agrees on
            unlabeled rows), or pseudo-labels too.
        epoch: of the whole fit, from 1.
        numbers: losses, learning rate, seconds by part, what the graph and the solver say of themselves.
        pseudo: what the epoch after this one learns from, if it was made at the end of this one.
        model: gives the model as it stands (the teacher, where there is one), in eval mode.
    """

    stage: Stage
    epoch: int
    numbers: Mapping[str, float]
    pseudo: Pseudo | None
    model: Callable[[], Model]


@runtime_checkable
class Progress(Protocol):
    """Watches one fit. All chance in a fit is drawn per epoch, so a continued fit gives the same bits."""

    def epoch(self, done: int, total: int) -> None:
        """`done` of `total` epochs are over."""
        ...

    def watch(self, sight: Sight) -> None:
        """Sees what an epoch made, after `epoch` and before `keep`; changes neither chance nor modes."""
        ...

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """May save `make()`, the state after `epoch` epochs: tensors, numbers, lists and dictionaries."""
        ...

    def load(self) -> dict[str, Any] | None:
        """The state saved last, if this fit was broken off."""
        ...


class Silent:
    """Watches nothing and keeps nothing."""

    def epoch(self, done: int, total: int) -> None:
        """Says nothing."""

    def watch(self, sight: Sight) -> None:
        """Looks away."""

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """Keeps nothing."""

    def load(self) -> dict[str, Any] | None:
        """Nothing to continue from."""
        return None


@dataclass(frozen=True)
class Phase:
    """One part of a longer fit as a Progress of its own.

    Attributes:
        name: under which its state lies in the whole fit's.
        state: what was kept of this part.
        before: epochs of the parts before it. after: those of the parts behind it.
        beside: what stands in the whole fit's state beside this part's (what the parts before gave).
    """

    whole: Progress
    name: str
    state: dict[str, Any] | None
    before: int
    after: int
    beside: Mapping[str, Any]

    def epoch(self, done: int, total: int) -> None:
        """`done` of this part's `total` epochs are over."""
        self.whole.epoch(self.before + done, self.before + total + self.after)

    def watch(self, sight: Sight) -> None:
        """Hands on what is seen, with the epoch of the whole fit."""
        self.whole.watch(replace(sight, epoch=self.before + sight.epoch))

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        """May save `make()`, with all that stands beside it."""
        self.whole.keep(self.before + epoch, lambda: {**self.beside, self.name: make()})

    def load(self) -> dict[str, Any] | None:
        """What was kept of this part."""
        return self.state
