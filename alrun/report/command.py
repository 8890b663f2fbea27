"""`alrun report`: figures and tables of many runs side by side."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from alrun.report.words import parser_of_runs

if TYPE_CHECKING:
    from rich.console import Console

ABOUT = """Figures and tables of the runs in these folders and below them, side by side.

Runs are grouped by data set, then by strategy; a strategy run with several settings is told apart by them
(`seals (featurizer=vae)`). Whole runs are counted; of a method without one, all runs as far as they share
label counts. What is broken, missing or unreadable is listed.

Figures (.png, .pdf) and tables (.csv) go to one folder; a short table is printed.
"""
NO_RUNS = 2


def report(words: list[str]) -> int:
    """Writes the figures and tables, prints a short table a data set; 2 when there is no run."""
    asked = parser_of_runs("report", ABOUT, "report").parse_args(words)
    return write(asked.folders, asked.output or asked.folders[0] / "report")


def write(folders: list[Path], output: Path) -> int:
    """The whole report; the exit code."""
    from rich.console import Console

    from alrun.report.aggregating import panels
    from alrun.report.figures import save
    from alrun.report.reading import UnreadableError, read
    from alrun.report.tables import save_tables, summary

    try:
        found = read(folders)
    except UnreadableError as error:
        return _refused(str(error))
    if not found.runs:
        reasons = [f"  {line}" for line in found.problems]
        where = ", ".join(map(str, folders))
        return _refused("\n".join([f"{where}: no run found; make some with `alrun -m ...` first", *reasons]))
    grouped = panels(found.runs)
    try:
        output.mkdir(parents=True, exist_ok=True)
        files = [*save_tables(grouped, output), *save(grouped, output)]
    except OSError as error:
        return _refused(f"--output: cannot write to {output} ({error.strerror})")
    console = Console()
    for panel in grouped:
        console.print(summary(panel))
        _say(console, [*panel.missing, *panel.unlike])
    _say(console, found.problems)
    _say(console, [str(file) for file in files if file.suffix != ".pdf"])
    return 0


def _say(console: "Console", lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _refused(line: str) -> int:
    print(f"alrun report: {line}", file=sys.stderr)  # noqa: T201
    return NO_RUNS
