"""Selection seconds against the size of the pool: the table, and the figure beside S4's numbers."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from alrun.files import save_figure
from alrun.report.looks import KNOWN

LOOKS = {**KNOWN, "asal": ("#d55e00", "*"), "learning_loss": ("#56b4e9", "v")}
# S4 (TITAN X): figure 6a at 16M CelebA images without reading them, table 2 at 9.6M LSUN images with it.
PAPER = {"asal": [(16e6, 44.0), (9.604e6, 471.0)], "entropy": [(16e6, 53 * 60.0), (9.604e6, 3660.0)]}
ONCE = "once: "
# S4, section 5.5: features 32 s for 160,000 images and an index of 5 minutes, all at 16M
PAPER_ONCE = 32.0 * 100 + 5 * 60


class Line(NamedTuple):
    """Seconds of one strategy on a pool of so many rows, and how they were come by."""

    name: str
    rows: int
    seconds: float
    cpu_seconds: float
    kind: str


def slope(lines: list[Line], name: str) -> float:
    """Of log seconds on log rows; nan for a single size."""
    own = [line for line in lines if line.name == name and line.seconds > 0]
    if len({line.rows for line in own}) < 2:
        return float("nan")
    rows, seconds = np.log([line.rows for line in own]), np.log([line.seconds for line in own])
    return float(np.polyfit(rows, seconds, 1)[0])


def crossing(lines: list[Line]) -> float:
    """Rows from which on asal selects faster than entropy, by the lines between sizes; 0 if always."""
    asal, entropy = (
        dict((line.rows, line.seconds) for line in lines if line.name == name) for name in ("asal", "entropy")
    )
    sizes = sorted(asal.keys() & entropy.keys())
    gaps = [np.log(asal[n] / entropy[n]) for n in sizes]
    if gaps[0] <= 0:
        return 0.0
    for (n, gap), (m, after) in pairwise(zip(sizes, gaps, strict=True)):
        if after <= 0:
            return float(np.exp(np.log(n) + gap / (gap - after) * np.log(m / n)))
    return float("inf")


def cycles(lines: list[Line], hours: float) -> list[tuple[int, float]]:
    """Figure 6b: for each size the rounds after which asal, with what it makes once, has cost less."""
    made = []
    for n in sorted({line.rows for line in lines}):
        at = {line.name: line.seconds for line in lines if line.rows == n}
        once = sum(seconds for name, seconds in at.items() if name.startswith(ONCE))
        if (gain := at["entropy"] - at["asal"]) > 0:
            made.append((n, (once + 3600 * hours) / gain))
    return made


def print_table(lines: list[Line]) -> None:
    """Seconds by strategy and size; extrapolated ones are marked."""
    console, sizes = Console(width=110), sorted({line.rows for line in lines})
    table = Table("seconds", *(f"{size:,}" for size in sizes), "slope", pad_edge=False)
    for name in dict.fromkeys(line.name for line in lines):
        at = {line.rows: line for line in lines if line.name == name}
        cells = [f"{at[n].seconds:.3g}{mark(at[n])}" if n in at else "" for n in sizes]
        table.add_row(name, *cells, f"{slope(lines, name):.2f}")
    console.print(table)
    console.print("~ extrapolated: reading measured, the network's seconds an image from the largest scan")
    console.print(f"asal selects faster than entropy from {crossing(lines):,.0f} rows on (0: at every size)")


def mark(line: Line) -> str:
    """A tilde where a number was not measured as a whole."""
    return "" if line.kind == "measured" else "~"


def save_picture(file: Path, lines: list[Line], hours: float) -> None:
    """Both panels of figure 6, ours and S4's numbers."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_seconds(left, lines)
    draw_cycles(right, lines, hours)
    save_figure(figure, file)


def draw_seconds(axes: Axes, lines: list[Line]) -> None:
    """Figure 6a."""
    for name in ("random", "asal", "coreset", "entropy", "learning_loss"):
        own = [line for line in lines if line.name == name]
        color, marker = LOOKS[name]
        rows, seconds = [line.rows for line in own], [line.seconds for line in own]
        axes.loglog(rows, seconds, color=color, label=f"{name}, slope {slope(lines, name):.2f}")
        for line in own:
            face = color if line.kind == "measured" else "white"
            axes.plot(line.rows, line.seconds, marker, color=color, markerfacecolor=face)
        for place, (n, paper) in enumerate(PAPER.get(name, [])):
            told = f"S4 {name} (6a: 16M, table 2: 9.6M)" if place == 0 else None
            axes.plot(n, paper, marker, color=color, markersize=11, markerfacecolor="none", label=told)
    axes.set(xlabel="images in the pool", ylabel="seconds to select 10 images, reading included")
    axes.set_title("One round (hollow: the network's share extrapolated)", fontsize=10)
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 0.12))
    axes.grid(alpha=0.3)


def draw_cycles(axes: Axes, lines: list[Line], hours: float) -> None:
    """Figure 6b, with and without the training of the networks."""
    for spent, told in ((0.0, "features and index"), (hours, f"the same and {hours:g} h of training")):
        if found := cycles(lines, spent):
            rows, rounds = zip(*found, strict=True)
            axes.loglog(rows, rounds, "o-", label=told)
    paper = (PAPER_ONCE + 26.6 * 3600) / (53 * 60 - 44)
    axes.plot(16e6, paper, "k*", markersize=11, label=f"S4 at 16M, from its numbers: {paper:.0f}")
    axes.set(xlabel="images in the pool", ylabel="rounds until asal has cost less than entropy")
    axes.set_title("Transition point", fontsize=10)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
