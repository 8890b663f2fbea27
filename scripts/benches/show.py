"""The benchmark's table and figures."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from benches.measure import Line

Curve = tuple[str, tuple[int, ...], list[float], float]


def table(lines: list[Line]) -> Table:
    """One block a contest, ours first."""
    shown = Table(title="CPU seconds; ratio: this way's time over ours, paired")
    for name, justify in (
        ("item", "left"),
        ("size", "left"),
        ("way", "left"),
        ("seconds", "right"),
        ("first call", "right"),
        ("+MiB", "right"),
        ("ratio", "right"),
        ("limit s", "right"),
        ("/ limit", "right"),
        ("target", "left"),
    ):
        shown.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    for line, before in zip(lines, [None, *lines], strict=False):
        first = before is None or (line.item, line.size) != (before.item, before.size)
        if first and before is not None:
            shown.add_section()
        shown.add_row(
            line.item if first else "",
            line.size if first else "",
            line.way,
            f"{line.seconds:.3g}",
            "" if line.first_call is None else f"{line.first_call:.3g}",
            f"{line.memory:.0f}",
            f"{line.ratio:.3g}",
            "" if line.limit is None else f"{line.limit:.3g}",
            "" if line.over_limit is None else f"{line.over_limit:.3g}",
            line.target,
        )
    return shown


def draw_lines(lines: list[Line], path: Path) -> None:
    """Each way's time over ours, on a logarithmic axis, contest by contest; a gray tick marks the limit."""
    figure = Figure(figsize=(9, 0.27 * len(lines) + 1), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(lines))[::-1]
    ours = {(line.item, line.size): line.seconds for line in lines if line.first_call is not None}
    for place, line in zip(places, lines, strict=True):
        own = line.first_call is not None
        axes.barh(place, line.ratio, left=0, color="tab:blue" if own else "0.75", height=0.7)
        axes.text(line.ratio * 1.05, place, f"{line.seconds:.2g} s", va="center", fontsize=7)
        if own and line.limit:
            axes.plot(line.limit / ours[line.item, line.size], place, "|", color="k", markersize=9)
    axes.set_yticks(
        places,
        [f"{line.item}, {line.size}" if line.first_call is not None else f"{line.way}" for line in lines],
        fontsize=7,
    )
    axes.set_xscale("log")
    axes.set_xlabel("CPU time over ours (black tick: the computed limit)")
    axes.set_ylim(-0.7, len(lines) - 0.3)
    figure.savefig(path, dpi=150)


def draw_curves(curves: list[Curve], path: Path) -> None:
    """Seconds against n, both logarithmic, with the fitted slope in the legend."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for item, sizes, seconds, slope in curves:
        axes.plot(sizes, seconds, marker="o", label=f"{item}: n^{slope:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="rows n", ylabel="CPU seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
