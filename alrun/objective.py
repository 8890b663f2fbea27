"""`alrun objective`: the selections of runs scored by exact transport, beside the query time."""

import argparse
import sys

from alrun.report.words import parser_of_runs

ABOUT = """What the labels that runs had bought after each round are worth as a core set of the pool.

That is W, the least mean cost of carrying all rows of the pool evenly to the bought ones: exact, in one space
of features for all runs, whatever their strategy. Mean and deviation over seeds go to objective.csv and
objective.tex, the curves to objective.png. Where a run searched in the same space by the same metric, the gap
that its own bound left stands beside it. What was scored once is kept in the output folder.

The space is, if not given, the one in which the runs themselves select. It may be a choice of the group
featurizer (pca, pixels, vae, ...; with the data set's preset), a run folder (the features of that run), or a
.npy file of one vector a pool row. Features are read from the cache, or made.
"""
BAD_INPUT = 2


def objective(words: list[str]) -> int:
    """Writes table and figure and prints the table; 2 for bad input, in one clear line."""
    asked = _parser().parse_args(words)
    try:
        return _written(asked)
    except (ValueError, OSError) as error:
        print(f"alrun objective: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = parser_of_runs("objective", ABOUT, "objective")
    parser.add_argument("--space", default=None, help="see above (default: the runs' own)")
    parser.add_argument(
        "--metric",
        choices=("cosine", "euclidean"),
        default=None,
        help="cost between rows (default: the runs' own, cosine where none has one)",
    )
    parser.add_argument("--device", default="auto", help="for features that must be made (default: auto)")
    return parser


def _written(asked: argparse.Namespace) -> int:
    """Scores the runs and writes what was found; the exit code."""
    from rich.console import Console

    from alrun.cache import Cache
    from alrun.report.aggregating import panels
    from alrun.report.objectives import objective_table, save_objectives, title
    from alrun.report.reading import UnreadableError, read
    from alrun.scoring import scored
    from alrun.screen import Bars

    found = read(asked.folders)
    if not found.runs:
        where = ", ".join(map(str, asked.folders))
        raise UnreadableError(
            "\n".join([f"{where}: no run found", *(f"  {line}" for line in found.problems)])
        )
    output = asked.output or asked.folders[0] / "objective"
    with Bars(Console(stderr=True), "auto") as bars:
        kept = Cache(str(output / "scores"))
        result = scored(found.runs, asked.space, asked.metric, kept, asked.device, bars)
    (panel,) = panels(result.runs)
    files = save_objectives(panel, result.measure, output)
    console = Console()
    console.print(title(panel, result.measure), style="bold", soft_wrap=True, highlight=False)
    console.print(objective_table(panel, console.width))
    shown = [str(file) for file in files if file.suffix != ".pdf"]
    for line in [*panel.missing, *found.problems, *result.problems, *shown]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return 0
