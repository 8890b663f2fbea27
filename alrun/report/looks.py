"""How methods look, the same in every figure; numbers on axes; panels in a grid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from alrun.report.aggregating import Method, Panel

# Okabe and Ito's colors and shades of them: one hue a family, told apart without color by the marker.
KNOWN = {
    "dgal": ("#d55e00", "*"),
    "dgal_lc": ("#f28e4c", "v"),
    "dgal_entropy": ("#a63603", "^"),
    "dgal_badge": ("#d6336c", "P"),
    "dgal_coreset": ("#8c2d04", "D"),
    "dgal_diffusion": ("#f0a500", "*"),
    "diffusion": ("#e69f00", "o"),
    "diffusion_one_shot": ("#c7a14a", "h"),
    "diffusion_narrowed": ("#9c6f00", "d"),
    "propagation": ("#7f5539", "p"),
    "two_stage": ("#882255", "p"),
    "seals": ("#7a6f00", "X"),
    "vae_seals": ("#b5a642", "x"),
    "neighbors": ("#94a300", "<"),
    "badge": ("#cc79a7", "P"),
    "wasserstein": ("#7b1fa2", "*"),
    "wasserstein_eoc": ("#a569bd", "^"),
    "wasserstein_eoc_p": ("#4a148c", "v"),
    "wasserstein_vanilla": ("#c39bd3", "s"),
    "coreset": ("#009e73", "D"),
    "kmedoids": ("#3b7d4f", "s"),
    "probcover": ("#66c2a4", "d"),
    "typiclust": ("#117733", "8"),
    "vaal": ("#44aa99", "H"),
    "waal": ("#2a6f78", "h"),
    "margin": ("#0072b2", "s"),
    "least_confidence": ("#56b4e9", "v"),
    "entropy": ("#003f6b", "^"),
    "bald": ("#332288", ">"),
    "dropout_confidence": ("#7c8fc9", "<"),
    "dropout_entropy": ("#9d7cc9", "1"),
    "random_margin": ("#4d4d4d", "s"),
    "random": ("#8c8c8c", "o"),
}
# Where trainers are compared.
TRAINERS = {
    "mean_teacher_label_propagation": ("#7b1fa2", "D"),
    "label_propagation": ("#d55e00", "*"),
    "mean_teacher": ("#0072b2", "s"),
    "supervised": ("#4d4d4d", "o"),
}
OTHERS = (
    *(("#aa4499", "d"), ("#5f9ea0", "<"), ("#661100", ">"), ("#999933", "h"), ("#6699cc", "p")),
    *(("#000000", "8"), ("#cc6677", "H")),
)
# Variants of one strategy: line, and how much white (or, below zero, black) is mixed into its color.
VARIANTS = (("-", 0.0), ((0, (4.0, 1.5)), 0.4), ((0, (1.5, 1.0)), -0.35), ((0, (6.0, 1.5, 1.5, 1.5)), 0.6))
QUIET = "#595959"

COLUMNS = 3
WIDTH, HEIGHT, LEGEND, LETTER = 4.5, 3.5, 1.1, 0.078  # inches
LETTERS = 66  # of what a panel shows, on a line


@dataclass(frozen=True)
class Look:
    """Color and marker of a strategy; the line and a shade tell its variants apart."""

    color: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


Looks = dict[str, Look]


def looks(panels: Iterable[Panel]) -> Looks:
    """A look for every method's name, in the order of legends.

    Known strategies keep theirs in every report (known trainers, where a method's `strategy` is one); others
    take the remaining ones in alphabetical order.
    """
    variants: dict[str, set[str]] = {}
    for panel in panels:
        for method in panel.methods:
            variants.setdefault(method.strategy, set()).add(method.name)
    known = KNOWN | TRAINERS
    strangers = sorted(set(variants) - set(known))
    pairs = known | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(strangers)}
    return {
        name: _look(pair, i)
        for strategy, pair in pairs.items()
        for i, name in enumerate(sorted(variants.get(strategy, ())))
    }


def _look(pair: tuple[str, str], variant: int) -> Look:
    line, share = VARIANTS[variant % len(VARIANTS)]
    toward = np.full(3, 1.0 if share > 0 else 0.0)
    color = (1 - abs(share)) * np.array(to_rgb(pair[0])) + abs(share) * toward
    return Look(to_hex((color[0], color[1], color[2])), pair[1], line)


def leader(panel: Panel) -> Method:
    """The most accurate method on average among those that `compared` lets compete."""
    return max(compared(panel), key=lambda method: method.values("accuracy")[:, -1].mean())


def compared(panel: Panel) -> list[Method]:
    """The methods whose ends can be compared: those with the most labels, of these those with the most seeds.

    A mean over fewer seeds may be high because its seeds were easy.
    """
    labels = max(method.labels[-1] for method in panel.methods)
    there = [method for method in panel.methods if method.labels[-1] == labels]
    seeds = max(len(method.seeds) for method in there)
    return [method for method in there if len(method.seeds) == seeds]


def line(look: Look, **others: object) -> dict[str, object]:
    """How a method's mean is drawn, in a panel and in the legend."""
    flat = look.marker in "x1"
    return {
        "color": look.color,
        "linestyle": look.line,
        "lw": 1.7,
        "marker": look.marker,
        "markersize": 8.5 if look.marker == "*" else 5.5,
        "markeredgecolor": look.color if flat else "white",
        "markeredgewidth": 1.2 if flat else 0.5,
        **others,
    }


def handles(styles: Looks, names: Iterable[str]) -> list[Line2D]:
    """Legend entries of these methods, in the fixed order."""
    shown = set(names)
    return [Line2D([], [], label=name, **line(styles[name])) for name in styles if name in shown]  # type: ignore[arg-type]


def grid(
    count: int, *, height: float = HEIGHT, words: Iterable[str] = (), beside: Iterable[str] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of this height (inches).

    There is room for the longest of `words` left of each panel, and for a legend of `beside` on the right.
    """
    columns = min(COLUMNS, count)
    width = WIDTH + LETTER * max(map(len, words), default=0)
    legend = LEGEND + LETTER * max(map(len, beside), default=0)
    rows = ceil(count / columns)
    figure = Figure(figsize=(width * columns + legend, height * rows + 0.3), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    places = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for unused in places[count:]:
        unused.remove()
    for axes in places[:count]:
        styled(axes)
    return figure, list(places[:count])


def styled(axes: Axes) -> None:
    """A light grid, no frame above and on the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5)


def titled(axes: Axes, dataset: str, *claims: str, letters: int = LETTERS) -> None:
    """The data set, and below it what the panel shows: lines of so many letters at most, claim by claim."""
    lines = [line for claim in claims for line in wrap(claim, letters)]
    pad = 9 + 11 * max(len(lines), 1)
    axes.set_title(dataset, loc="left", fontsize=11, fontweight="bold", pad=pad)
    axes.annotate(
        "\n".join(lines),
        (0, 1),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=QUIET,
    )


def logarithmic(axis: Axis, values: Sequence[float], word: FuncFormatter, most: int = 7) -> None:
    """Ticks for a log axis of these values: decades, about `most`, and steps between them where few."""
    decades = np.log10(max(values) / min(values)) if len(values) else 0.0
    steps = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps, numticks=most if decades > 2 else 12))
    axis.set_major_formatter(word)
    axis.set_minor_formatter(NullFormatter())


def seconds(value: float) -> str:
    """Seconds in the unit that suits: `12 ms`, `3.4 s`, `2.5 h`."""
    if value == 0:
        return "0 s"
    if value >= 7200:
        return f"{_digits(value / 3600)} h"
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * length:
            return f"{_digits(value / length)} {unit}"
    return f"{_digits(value / 1e-6)} µs"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


SECONDS = FuncFormatter(lambda value, place: seconds_tick(value))
COUNTS = FuncFormatter(lambda value, place: f"{value:,.0f}")


def seconds_tick(value: float) -> str:
    """A tick's seconds, never in minutes or hours: decades stay decades."""
    if value >= 1:
        return f"{value:,.0f} s"
    return f"{value * 1e3:g} ms" if value >= 1e-3 else f"{value * 1e6:g} µs"
