"""What a person watches: bars while a run goes on, a short table at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Bars:
    """One bar for the rounds with the time left, one for the epochs of the fit under way."""

    def __init__(self, console: Console, shown: bool | Literal["auto"]) -> None:
        visible = console.is_terminal if shown == "auto" else shown
        self._bars = Progress(
            TextColumn("{task.description:>7}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=console,
            disable=not visible,
            transient=True,
        )
        self._rounds = self._bars.add_task("rounds", total=None, news="", visible=False)
        self._epochs = self._bars.add_task("epochs", total=None, news="")

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def already(self, folder: Path) -> None:
        """Says that a run is finished already."""
        self._bars.console.print(f"finished already: {folder}", soft_wrap=True, highlight=False)

    def say(self, news: str) -> None:
        """Prints a line above the bars."""
        self._bars.console.print(news, soft_wrap=True, highlight=False)

    def tell(self, news: str) -> None:
        """Shows a few words beside the bar of epochs."""
        self._bars.update(self._epochs, news=news)

    def begin(self, rounds: int, done: int) -> None:
        """Shows how many rounds there are and how many are over."""
        self._bars.update(self._rounds, total=rounds, completed=done, visible=True)

    def epoch(self, done: int, total: int) -> None:
        """Moves the bar of epochs."""
        self._bars.update(self._epochs, completed=done, total=total)

    def round(self, record: Mapping[str, Any]) -> None:
        """Moves the bar of rounds and says how good the model is."""
        self.step(
            record["round"] + 1, f"{record['labeled']} labels, accuracy {100 * record['accuracy']:.1f} %"
        )

    def step(self, done: int, news: str) -> None:
        """Moves the bar of rounds."""
        self._bars.update(self._rounds, completed=done, news=news)


def summary(records: Sequence[Mapping[str, Any]]) -> Table:
    """Round, labels, accuracy and query seconds, a line a round."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("round", "labels", "accuracy", "query seconds"):
        table.add_column(name, justify="right")
    for record in records:
        query = f"{record['query_seconds']:.3f}" if record["round"] else "-"
        accuracy = f"{100 * record['accuracy']:.2f} %"
        table.add_row(str(record["round"]), str(record["labeled"]), accuracy, query)
    return table
