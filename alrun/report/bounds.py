"""`alrun bounds`: objective and proven bound of several searches over one another."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alrun.report.words import parser_of_runs

if TYPE_CHECKING:
    from alrun.report.reading import Run
    from alrun.wasserstein.picture import Curve

ABOUT = """How the searches of strategy=wasserstein and its variants went, by iteration and by time:
the objective of the best selection so far, and the bound that none can beat.

One figure a round (bounds-round001.png and .pdf). Strategies and settings that differ are drawn over one
another, each by its run of the smallest seed that all have. Runs without a search (wasserstein.csv) are left
out.
"""
BAD_INPUT = 2


def bounds(words: list[str]) -> int:
    """Draws the figures and says where they are; 2 for bad input, in one clear line."""
    asked = parser_of_runs("bounds", ABOUT, "bounds").parse_args(words)
    try:
        for line in write(asked.folders, asked.output or asked.folders[0] / "bounds"):
            print(line)  # noqa: T201
    except (ValueError, OSError) as error:
        print(f"alrun bounds: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT
    return 0


def write(folders: Sequence[Path], output: Path) -> list[str]:
    """A figure a round, as PNG and PDF; the PNG files, and what could not be read.

    Raises:
        ValueError: no search at all, or searches that cannot be compared: on several data sets, in several
            spaces, by several metrics, for other numbers of labels, or without a seed in common.
    """
    from matplotlib.figure import Figure

    from alrun.files import save_figure
    from alrun.report.figures import KINDS
    from alrun.report.reading import read
    from alrun.report.searches import TABLE, read_searches
    from alrun.wasserstein.picture import draw_bounds

    found = read(folders)
    runs = variants([run for run in found.runs if (run.folder / TABLE).exists()])
    searches = {name: read_searches(run.folder) for name, run in runs.items()}
    output.mkdir(parents=True, exist_ok=True)
    told = list(found.problems)
    for number in sorted({number for each in searches.values() for number, _ in each}):
        figure = Figure(layout="constrained")
        draw_bounds(figure, of_round(searches, number))
        figure.suptitle(title(runs, number), x=0.01, ha="left", fontsize=12)
        for kind in KINDS:
            save_figure(figure, output / f"bounds-round{number:03d}{kind}")
        told.append(str(output / f"bounds-round{number:03d}.png"))
    return told


def of_round(searches: Mapping[str, Mapping[tuple[int, int], "Curve"]], number: int) -> dict[str, "Curve"]:
    """The searches of one round; where a variant divided the pool, its parts by their numbers."""
    found = {}
    for name, each in searches.items():
        parts = {part: curve for (own, part), curve in each.items() if own == number}
        found |= {f"{name}, part {part}" if len(parts) > 1 else name: curve for part, curve in parts.items()}
    return found


def variants(runs: Sequence["Run"]) -> dict[str, "Run"]:
    """One run for each method, all of the least seed that all methods have.

    Raises:
        ValueError: no run, or runs that cannot be compared.
    """
    from alrun.report.aggregating import panels
    from alrun.report.searches import TABLE

    if not runs:
        raise ValueError(f"no run with a search ({TABLE}) found; make one with strategy=wasserstein")
    found = panels(runs)
    if len(found) != 1:
        told = ", ".join(panel.dataset for panel in found)
        raise ValueError(f"searches to be compared must be on one data set, got {told}")
    methods = found[0].methods
    seeds = frozenset.intersection(*(method.seeds for method in methods))
    if not seeds:
        told = "; ".join(f"{each.name} of {', '.join(map(str, sorted(each.seeds)))}" for each in methods)
        raise ValueError(f"searches to be compared must have a seed in common, got {told}")
    chosen = {method.name: method.of(frozenset({min(seeds)})).runs[0] for method in methods}
    _require_one_problem(chosen)
    return chosen


def _require_one_problem(runs: Mapping[str, "Run"]) -> None:
    """Nothing, if the searches have one pool, space, metric, and number of labels after each round.

    Raises:
        ValueError: they have not.
    """
    shared = min(run.done for run in runs.values())
    (first, problem), *others = ((name, _problem(run, shared)) for name, run in runs.items())
    for other, theirs in others:
        if differing := [what for what in problem if problem[what] != theirs[what]]:
            told = "; ".join(f"{what} {problem[what]} and {theirs[what]}" for what in differing)
            raise ValueError(
                f"searches to be compared must be for one problem, {first} and {other} differ: {told}"
            )


def _problem(run: "Run", last: int) -> dict[str, object]:
    """What a search must share with another to be for the same selections, up to this round."""
    from alrun.report.purchases import pool_mark

    return {
        "pool": pool_mark(run.folder),
        "featurizer": run.settings["featurizer"],
        "strategy.metric": run.settings["strategy"].get("metric"),
        "labels": run.columns["labeled"][run.columns["round"] <= last].astype(int).tolist(),
    }


def title(runs: Mapping[str, "Run"], number: int) -> str:
    """Data set, seed, round and labels in words; a round that is not whole in any run has no labels yet."""
    longest = max(runs.values(), key=lambda run: run.done)
    labels = longest.columns["labeled"][longest.columns["round"] == number]
    news = f"{int(labels[0]):,} labels" if len(labels) else "under way"
    told = f"{longest.dataset}, seed {longest.seed}, round {number}: {news}"
    later = number > min(longest.columns["round"][longest.columns["labeled"] > 0])
    return f"{told}, each variant after its own earlier ones" if later and len(runs) > 1 else told
