"""The first purchases of several strategies, side by side in one map of the pool (S2, figure 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from alrun.report.purchases import Purchases
from alrun.report.selection_picture import INK, class_colors

SIDE = 2.9  # inches a map
NEW, OLD = 46.0, 16.0  # size of marks in points squared
NAMED = 20  # classes in a legend, at most


@dataclass(frozen=True, eq=False)
class Map:
    """Pool rows (sorted), their places in the plane and their true classes."""

    rows: Int64[ndarray, " m"]
    places: Float64[ndarray, "m 2"]
    labels: Int64[ndarray, " m"]
    class_names: tuple[str, ...]

    def at(self, rows: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """Where these pool rows stand among those of the map."""
        return np.searchsorted(self.rows, rows)


def draw_rounds(figure: Figure, ground: Map, bought: Mapping[str, Purchases], most: int, title: str) -> None:
    """A column a strategy, a row for each of its first `most` purchases: new marks large, earlier ones small.

    Every bought row must be on the map. Titles count the classes that are covered so far.

    Raises:
        ValueError: nothing was bought.
    """
    depth = min(most, max((len(each.numbers) for each in bought.values()), default=0))
    if not depth:
        raise ValueError("a picture of purchases needs one at least, these runs bought nothing yet")
    figure.set_size_inches(max(SIDE * len(bought), 5.0), SIDE * depth + 0.9)
    panels = figure.subplots(depth, len(bought), squeeze=False, sharex=True, sharey=True)
    for column, (name, purchases) in zip(panels.T, bought.items(), strict=True):
        for place, axes in enumerate(column):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if place < len(purchases.numbers):
                _draw(axes, ground, purchases, purchases.numbers[place])
        column[0].set_title(f"{name}\n{column[0].get_title(loc='left')}", loc="left", fontsize=9.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    _legend(figure, ground.class_names, depth)


def _draw(axes: Axes, ground: Map, purchases: Purchases, number: int) -> None:
    """The pool in light colors by true class, what was bought up to this round in full ones."""
    colors = class_colors(len(ground.class_names))
    axes.scatter(*ground.places.T, c=0.4 * colors[ground.labels] + 0.6, s=4, lw=0, zorder=1)
    new, old = (
        ground.at(purchases.rows[there]) for there in (purchases.rounds == number, purchases.rounds < number)
    )
    shades = 0.8 * colors[ground.labels]
    axes.scatter(*ground.places[old].T, c=INK, s=OLD, edgecolors="white", lw=0.4, zorder=2)
    axes.scatter(*ground.places[new].T, c=shades[new], s=NEW, edgecolors=INK, lw=0.9, zorder=3)
    covered = len(np.unique(purchases.answers[purchases.rounds <= number]))
    told = f"round {number}: {len(new) + len(old)} labels, {covered} of {len(ground.class_names)} classes"
    axes.set_title(told, loc="left", fontsize=9.5)


def _legend(figure: Figure, class_names: Sequence[str], depth: int) -> None:
    """What the marks mean, and the colors of up to twenty classes."""
    marks = [("bought in this round", "white", INK, 7.0), ("bought before", INK, INK, 3.5)][:depth]
    if len(class_names) <= NAMED:
        colors = class_colors(len(class_names))
        marks += [(name, color, color, 5.0) for name, color in zip(class_names, colors, strict=True)]
    handles = [
        Line2D([], [], ls="", marker="o", mfc=face, mec=edge, markersize=size, label=label)
        for label, face, edge, size in marks
    ]
    columns = min(len(handles), int(figure.get_size_inches()[0] // 1.3))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.1,
    )
