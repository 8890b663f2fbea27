"""The objective and its proven bound as a search goes on (S2, figure 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy import ndarray

# Okabe and Ito's.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d", "#882255")
OBJECTIVE, BOUND = "-", "--"
QUIET = "#595959"
FAR_BELOW = 2.0  # a bound so many objectives below zero bends the axis


@dataclass(frozen=True, eq=False)
class Curve:
    """One search: at each record its time, its iteration, the best objective and the best bound so far.

    Times (seconds since the search began) and iterations never fall. Both values are NaN where there is none:
    a bound is none before the first proof, and never one where the search left something out.
    """

    seconds: Float64[ndarray, " k"]
    iteration: Shaped[ndarray, " k"]
    objective: Float64[ndarray, " k"]
    bound: Float64[ndarray, " k"]

    @property
    def gap(self) -> float:
        """What is unproven in the end, as a share of the objective; NaN without a bound."""
        ends = [values[np.isfinite(values)][-1:] for values in (self.objective, self.bound)]
        if not all(len(each) for each in ends):
            return float("nan")
        objective, bound = (float(each[0]) for each in ends)
        return 0.0 if objective == bound else (objective - bound) / abs(objective)


def draw_bounds(figure: Figure, curves: Mapping[str, Curve]) -> None:
    """Each search by iteration on the left and by time on the right: objective, bound, the gap shaded.

    The name of a single search may be empty. Axes bend below minus the objective where bounds lie far below
    zero, as those of weak cuts do.

    Raises:
        ValueError: no search, or one without a single objective.
    """
    if not curves:
        raise ValueError("a figure of bounds needs a search at least, got none")
    if empty := [name for name, curve in curves.items() if not np.isfinite(curve.objective).any()]:
        raise ValueError(f"a figure of bounds needs an objective at least, {empty[0]} has none")
    figure.set_size_inches(9.6, 3.9 + 0.2 * ceil(len(curves) / 2))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, curve in enumerate(curves.values()):
        pen = _Pen(COLORS[place % len(COLORS)], 1.4 + 0.4 * (len(curves) - 1 - place), 0.12 / len(curves))
        _draw(left, curve.iteration.astype(np.float64), curve, pen)
        _draw(right, curve.seconds, curve, pen)
    _bend(left, list(curves.values()))
    _spread(right.xaxis, np.concatenate([curve.seconds for curve in curves.values()]))
    left.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    left.set(xlabel="iteration", ylabel="objective and bound")
    right.set(xlabel="time (s)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8.5)
    _legend(figure, curves)


class _Pen(NamedTuple):
    """Color and width of lines, opacity of gaps; earlier lines are wider, so that later ones show them."""

    color: str
    width: float
    shade: float


def _draw(axes: Axes, across: Float64[ndarray, " k"], curve: Curve, pen: _Pen) -> None:
    """Steps: what was found or proven holds until the next record."""
    both = np.isfinite(curve.objective) & np.isfinite(curve.bound)
    if both.any():
        axes.fill_between(
            across[both],
            curve.bound[both],
            curve.objective[both],
            step="post",
            color=pen.color,
            alpha=pen.shade,
            lw=0,
        )
    for values, line in ((curve.objective, OBJECTIVE), (curve.bound, BOUND)):
        there = np.isfinite(values)
        if not there.any():
            continue
        axes.step(across[there], values[there], where="post", color=pen.color, linestyle=line, lw=pen.width)
        if there.sum() == 1:
            axes.plot(across[there], values[there], marker="o", markersize=4, color=pen.color)


def _bend(axes: Axes, curves: list[Curve]) -> None:
    """Makes room for the bounds: linear around the objectives, logarithmic far below them."""
    objective = np.nanmax(np.concatenate([curve.objective for curve in curves]))
    bounds = np.concatenate([curve.bound for curve in curves])
    lowest = float(np.nanmin(bounds)) if np.isfinite(bounds).any() else 0.0
    if objective > 0 and lowest < -FAR_BELOW * objective:
        decades = 10.0 ** np.arange(ceil(np.log10(objective)), ceil(np.log10(-lowest)) + 1)
        ticks = MaxNLocator(4).tick_values(0, float(objective))
        axes.set_yscale("symlog", linthresh=float(ticks[-1]), linscale=2.0)
        axes.yaxis.set_major_locator(FixedLocator(np.concatenate([-decades[::-1], ticks]).tolist()))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.3g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if lowest < 0:
        axes.axhline(0, color=QUIET, lw=0.7)


def _spread(axis: Axis, seconds: Float64[ndarray, " k"]) -> None:
    """A log axis where times span more than two decades."""
    positive = seconds[seconds > 0]
    if len(positive) == 0 or positive.max() < 100 * positive.min():
        return
    axis.axes.set_xscale("log")
    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, curves: Mapping[str, Curve]) -> None:
    handles = [
        Line2D([], [], color=QUIET, linestyle=OBJECTIVE, lw=1.5, label="best selection's objective"),
        Line2D([], [], color=QUIET, linestyle=BOUND, lw=1.5, label="proven bound"),
    ]
    for place, (name, curve) in enumerate(curves.items()):
        gap = 100 * curve.gap
        proven = "no bound" if np.isnan(gap) else f"gap {gap:,.{0 if gap >= 9.95 else 2}f} % in the end"
        color = COLORS[place % len(COLORS)]
        handles.append(
            Line2D([], [], color=color, lw=4, alpha=0.8, label=f"{name}: {proven}" if name else proven)
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
