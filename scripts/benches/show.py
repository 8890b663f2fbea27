"""The benchmark's table and figures."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Transform
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
    """Contest by contest: each way's time over ours on a logarithmic axis; a bar marks the computed limit."""
    contests = list(dict.fromkeys((line.item, line.size) for line in lines))
    figure = Figure(figsize=(10, 0.17 * (len(lines) + 1.6 * len(contests)) + 1), layout="constrained")
    axes = figure.subplots()
    place, widest = 0.0, max(line.ratio for line in lines)
    for item, size in contests:
        own, *peers = [line for line in lines if (line.item, line.size) == (item, size)]
        axes.text(0, place, f"{item}, {size}", transform=_left(axes), fontsize=7, weight="bold", va="center")
        for line in (own, *peers):
            place -= 1
            color = "tab:blue" if line is own else "0.6"
            axes.plot([1, line.ratio], [place, place], color="0.85", linewidth=1, zorder=0)
            axes.plot(line.ratio, place, "o", color=color, markersize=5)
            axes.annotate(
                f"{line.way}, {line.seconds:.2g} s", (max(line.ratio, 1), place), (6, 0), va="center",
                textcoords="offset points", fontsize=6.5, color=color if line is own else "0.2",
            )  # fmt: skip
        if own.limit:
            axes.plot(own.limit / own.seconds, place + len(peers), "|", color="k", markersize=8)
        place -= 1.6
    axes.set(xscale="log", ylim=(place + 1, 1), yticks=[], xlim=(None, 1000 * widest))
    axes.set_xlabel("CPU time over ours; black bar: the computed limit")
    axes.axvline(1, color="tab:blue", linewidth=0.6, zorder=0)
    figure.savefig(path, dpi=150)


def _left(axes: Axes) -> Transform:
    """Across the axes' width, and in the data's y."""
    return axes.get_yaxis_transform()


def draw_curves(curves: list[Curve], path: Path) -> None:
    """Seconds against n, both logarithmic, with the fitted slope in the legend."""
    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for item, sizes, seconds, slope in curves:
        axes.plot(sizes, seconds, marker="o", label=f"{item}: n^{slope:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="rows n", ylabel="CPU seconds")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=7.5)
    figure.savefig(path, dpi=150)
