"""`alrun agreement`: whether the matches of synthetic images are of their class."""

import argparse
import sys
from pathlib import Path

from alrun.report.words import parser_of_runs

ABOUT = """How often the match of a synthetic image has its class (S4, figure 7).

The class of a synthetic image is what a reference classifier says of it: the run's model and trainer, on all
labels of the pool, trained once for all seeds and kept with the runs' artifacts. Or it comes from a CSV file
with the columns round, image and label (a class name or its number); images that it does not name do not
count.

Of each class alone the share is taken of synthetic images whose match has the same true label, and then the
mean over classes, so that a generator which favors some of them is not judged by these. Mean and deviation
over seeds go to agreement.csv, a line for each feature map, generator and other settings of runs; the figure
is agreement.png. Runs of strategies that keep no synthetic images are left out.
"""
BAD_INPUT = 2


def agreement(words: list[str]) -> int:
    """Writes table and figure and prints the table; 2 for bad input, in one clear line."""
    asked = _parser().parse_args(words)
    try:
        return _written(asked)
    except (ValueError, OSError) as error:
        print(f"alrun agreement: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = parser_of_runs("agreement", ABOUT, "agreement")
    parser.add_argument(
        "--labels", type=Path, default=None, help="classes of one run's synthetic images, as CSV: see above"
    )
    parser.add_argument("--device", default="auto", help="for the reference classifier (default: auto)")
    return parser


def _written(asked: argparse.Namespace) -> int:
    """Judges the runs and writes what was found; the exit code."""
    from rich.console import Console

    from alrun.judging import Judge, judged, with_synthetic
    from alrun.report.agreements import agreement_table, save_agreements
    from alrun.report.reading import UnreadableError, read
    from alrun.screen import Bars

    found = read(asked.folders)
    runs = with_synthetic(found.runs)
    if not runs:
        where = ", ".join(map(str, asked.folders))
        lines = [f"{where}: no run with synthetic images found", *(f"  {line}" for line in found.problems)]
        raise UnreadableError("\n".join(lines))
    if asked.labels is not None and len(runs) > 1:
        raise ValueError(f"--labels: are of one run, got {len(runs)}; give the folder of one")
    output = asked.output or asked.folders[0] / "agreement"
    with Bars(Console(stderr=True), "auto") as bars:
        judge = Judge(asked.device, bars, asked.labels)
        agreements, problems = judged(runs, judge)
    files = save_agreements(agreements, output)
    console = Console()
    console.print(agreement_table(agreements))
    for line in [*found.problems, *problems, *(str(file) for file in files if file.suffix != ".pdf")]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return 0
