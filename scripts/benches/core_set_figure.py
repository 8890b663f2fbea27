"""How far above the proven bound the core sets of each method are: a panel for each pool."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from alrun.files import save_figure
from alrun.report.looks import KNOWN, styled

Line = Mapping[str, str]
ORDER = ("wasserstein", "kmedoids", "random", "coreset", "wasserstein_eoc")
NAMES = {
    "wasserstein": "ours",
    "wasserstein_eoc": "the paper's method",
    "kmedoids": "k-medoids",
    "coreset": "greedy k-centers",
    "random": "random",
}


def save_picture(file: Path, lines: Sequence[Line]) -> None:
    """One panel for each data set and number of rows, in their order in the table."""
    pools = list(dict.fromkeys((line["dataset"], line["rows"]) for line in lines))
    figure = Figure(figsize=(3.1 * len(pools), 3.4), layout="constrained")
    for axes, pool in zip(np.atleast_1d(figure.subplots(1, len(pools), sharey=True)), pools, strict=True):
        draw(axes, [line for line in lines if (line["dataset"], line["rows"]) == pool])
        axes.set_title(f"{pool[0]}, {int(pool[1]):,} rows", fontsize=10, loc="left")
    first = figure.axes[0]
    first.set_ylabel("above the proven bound (%)")
    handles = {
        text: line
        for axes in figure.axes
        for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    save_figure(figure, file)


def draw(axes: Axes, lines: Sequence[Line]) -> None:
    """Each method's excess over the highest bound that any search proved for that batch."""
    bounds: dict[int, float] = {}
    for line in lines:
        if line.get("bound"):
            size = int(line["size"])
            bounds[size] = max(bounds.get(size, 0.0), float(line["bound"]))
    for method in ORDER:
        least: dict[int, float] = {}
        for line in lines:
            if line["method"] == method and int(line["size"]) in bounds:
                size, cost = int(line["size"]), float(line["objective"])
                least[size] = min(least.get(size, np.inf), cost)
        if least:
            sizes = sorted(least)
            color, marker = KNOWN[method]
            excess = [100 * (least[size] / bounds[size] - 1) for size in sizes]
            axes.plot(sizes, excess, marker=marker, color=color, label=NAMES[method], ms=4)
    axes.set(yscale="log", xlabel="batch")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    styled(axes)
