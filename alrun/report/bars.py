"""What methods cost: bars on a log axis, their parts marked at their own seconds.

Parts are not stacked: on a log axis the length of a stacked part says nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy import ndarray

from alrun.report.aggregating import Method, Panel
from alrun.report.looks import SECONDS, Looks, logarithmic, seconds, titled
from alrun.report.reading import QUERY_PARTS

MARKERS = {"predict": "o", "features": "s", "graph": "^", "select": "D", "other": "P"}
ROW = 0.34  # inches a bar
INK = "#1a1a1a"


class Cost(NamedTuple):
    """Seconds of a method, a number a seed; and the mean of each part."""

    total: Float64[ndarray, " s"]
    parts: Mapping[str, float]


def query_cost(method: Method) -> Cost:
    """Average query seconds a round, and what they consist of."""
    parts = {part: float(method.average(f"{part}_seconds").mean()) for part in QUERY_PARTS}
    return Cost(method.average_query, parts)


def once_cost(method: Method) -> Cost:
    """Seconds of what is made once in a run: features (a VAE's training, say), their graph, all other."""
    names = {name for run in method.runs for name in run.once}
    groups = {"features": ("features",), "graph": ("graph",), "other": sorted(names - {"features", "graph"})}
    everything = [name for group in groups.values() for name in group]
    parts = {name: float(method.once(group).mean()) for name, group in groups.items()}
    return Cost(method.once(everything), parts)


def draw_query_seconds(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Average query time of a round, by method (S1, figures 7, 10, 12 and 13).

    The claim leaves random draws out: they choose nothing.
    """
    costs = {method.name: query_cost(method) for method in panel.methods}
    costs = {name: cost for name, cost in costs.items() if not np.isnan(cost.total).any()}
    _bars(axes, costs, styles)
    choosing = {method.name for method in panel.methods if method.strategy != "random"}
    means = {name: float(cost.total.mean()) for name, cost in costs.items() if name in choosing}
    slow, fast = _ends({name: mean for name, mean in means.items() if mean > 0})
    apart = bool(slow and fast) and means[slow] > means[fast]
    claim = f"{slow} takes {_times(means[slow] / means[fast])} the time of {fast}" if apart else ""
    titled(axes, panel.dataset, claim)
    axes.set_xlabel("average query time of a round")


def draw_once_seconds(axes: Axes, panel: Panel, styles: Looks) -> None:
    """What is made once in a run and stands beside the query time: features, their graph, other."""
    costs = {method.name: once_cost(method) for method in panel.methods}
    paid = {name: cost for name, cost in costs.items() if cost.total.mean() > 0}
    _bars(axes, paid, styles)
    free = len(costs) - len(paid)
    titled(axes, panel.dataset, f"{free} other method{'s' * (free != 1)} without such costs" if free else "")
    axes.set_xlabel("seconds spent once in a run")


def part_handles(costs: list[Cost]) -> list[Line2D]:
    """Legend entries of the parts that cost something anywhere."""
    used = [part for part in MARKERS if any(cost.parts.get(part, 0) > 0 for cost in costs)]
    return [
        Line2D([], [], ls="", marker=MARKERS[part], markersize=6, mfc="white", mec=INK, label=part)
        for part in used
    ]


def _bars(axes: Axes, costs: Mapping[str, Cost], styles: Looks) -> None:
    """Bars, the cheapest on top, with a whisker from the least to the most seed."""
    order = sorted(costs, key=lambda name: (float(costs[name].total.mean()), name))
    means = [float(costs[name].total.mean()) for name in order]
    positive = [mean for mean in means if mean > 0]
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.4, -0.6)
    if not positive:
        axes.set_xticks([])
        return
    # a part below a thousandth of its whole would only stretch the axis
    parts = [
        value for cost in costs.values() for value in cost.parts.values() if value > cost.total.mean() / 1e3
    ]
    left = 10 ** np.floor(np.log10(min([*positive, *parts])) - 0.15)
    right = max(float(costs[name].total.max()) for name in order) * 8
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    logarithmic(axes.xaxis, [left, right], SECONDS, most=5)
    for place, name in enumerate(order):
        _bar(axes, place, costs[name], styles[name].color, left)


def _bar(axes: Axes, place: int, cost: Cost, color: str, left: float) -> None:
    mean, least, most = float(cost.total.mean()), float(cost.total.min()), float(cost.total.max())
    axes.barh(place, max(mean - left, 0), left=left, height=0.62, color=color, alpha=0.55, lw=0)
    if least < most:
        axes.plot([max(least, left), most], [place, place], color=INK, lw=1.1, solid_capstyle="butt")
    for part, value in cost.parts.items():
        if value >= left:
            axes.plot(value, place, marker=MARKERS[part], ms=5.5, mfc="white", mec=INK, mew=0.9, ls="")
    axes.annotate(
        seconds(mean),
        (max(most, left), place),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
    )


def _ends(means: Mapping[str, float]) -> tuple[str, str]:
    """The slowest and the fastest; empty names if there is none."""
    if not means:
        return "", ""
    return max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 9.5 else f"{ratio:.1f} times"
