"""Pseudo-labels that are right and wrong: their weights, and the images of those that are wrong for sure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alrun.pool import Inputs
from alrun.report.epochs import Kept
from alrun.report.image_grid import LETTERS, gray_or_rgb
from alrun.report.looks import QUIET, styled

BINS = 40
RIGHT, WRONG = "#0072b2", "#d55e00"
PANEL = (3.9, 2.9)  # inches
SHOWN, PER_LINE = 40, 10
IMAGE, WORDS, MARGIN = 0.95, 0.36, 0.12  # inches: an image, the words below it, what is free around all


def draw_weights(figure: Figure, kept: Mapping[str, Sequence[Kept]], title: str) -> None:
    """Weights of right and of wrong pseudo-labels, a line a run, a column an epoch (S3, figure 5).

    Departs: the two are stacked, so that both are seen wherever they are.
    """
    most = max(len(each) for each in kept.values())
    figure.set_size_inches(PANEL[0] * most, PANEL[1] * len(kept) + 0.6)
    panels = figure.subplots(len(kept), most, squeeze=False, sharex=True, sharey="row")
    for line, (name, each) in zip(panels, kept.items(), strict=True):
        for axes in line[len(each) :]:
            axes.remove()
        for axes, one in zip(line, each, strict=False):
            _draw_weights(axes, one)
        line[0].set_ylabel(f"{name}\nunbought rows" if len(kept) > 1 else "unbought rows")
    for axes in panels[-1, : len(list(kept.values())[-1])]:
        axes.set_xlabel("weight ω")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    legend = panels[0, 0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _draw_weights(axes: Axes, kept: Kept) -> None:
    styled(axes)
    parts = [kept.weights[kept.right], kept.weights[~kept.right]]
    names = ["right pseudo-labels", "wrong pseudo-labels"]
    edges = np.linspace(0, 1, BINS + 1).tolist()
    axes.hist(parts, edges, stacked=True, color=[RIGHT, WRONG], label=names, alpha=0.85)  # type: ignore[arg-type]
    axes.set(xlim=(0, 1))
    told = f"{100 * kept.right.mean():.1f} % right" if len(kept.rows) else "no row"
    means = [
        f"{part.mean():.2f} {word}" for part, word in zip(parts, ("right", "wrong"), strict=True) if len(part)
    ]
    axes.set_title(f"after epoch {kept.epoch}: {told}", loc="left", fontsize=10, fontweight="bold", pad=18)
    axes.annotate(
        f"mean weight {', '.join(means)}",
        (0, 1),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color=QUIET,
    )


def draw_wrong(figure: Figure, inputs: Inputs, kept: Kept, class_names: Sequence[str], title: str) -> None:
    """The wrong pseudo-labels of largest weight as images, the heaviest first (S3, figure 7).

    Of equal weights the smaller row comes first.

    Raises:
        ValueError: items that are no images, or no pseudo-label of positive weight is wrong.
    """
    if not inputs.is_image:
        raise ValueError(f"items of shape {inputs.shape} are no images; choose --kind weights")
    wrong = np.flatnonzero(~kept.right & (kept.weights > 0))
    if not len(wrong):
        raise ValueError(f"after epoch {kept.epoch} no pseudo-label with a weight is wrong; nothing to show")
    order = wrong[np.argsort(-kept.weights[wrong], kind="stable")][:SHOWN]
    images = gray_or_rgb(inputs.array[kept.rows[order]])
    across, down = min(PER_LINE, len(order)), -(-len(order) // PER_LINE)
    width, height = max(across * IMAGE, 5.0), down * (IMAGE + WORDS)
    figure.set_size_inches(width + 2 * MARGIN, height + 0.6)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(-MARGIN, width + MARGIN), ylim=(height + 0.1, -0.5), autoscale_on=False)
    axes.text(0, -0.22, title, fontsize=11, fontweight="bold")
    for place, (one, image) in enumerate(zip(order.tolist(), images, strict=True)):
        left, top = place % PER_LINE * IMAGE, place // PER_LINE * (IMAGE + WORDS)
        extent = (left + 0.06, left + IMAGE - 0.06, top + IMAGE - 0.12, top)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
        true, taken = (_short(class_names[int(each[one])]) for each in (kept.truth, kept.labels))
        gap = (" ", "\n") if len(true) + len(taken) <= LETTERS else ("\n", " ")
        words = f"{true} →{gap[0]}{taken}{gap[1]}{kept.weights[one]:.2f}"
        axes.text(left + IMAGE / 2, top + IMAGE - 0.1, words, fontsize=6.5, ha="center", va="top")


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
