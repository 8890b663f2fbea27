"""Bought images by round, with the classes that they cover (S2, figures 8 to 10)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from alrun.pool import Inputs
from alrun.report.purchases import Purchases

PER_LINE = 20  # images side by side
SHOWN = 60  # images of a round; how many more there are is said
IMAGE, WORD, GAP = 0.56, 0.16, 0.02  # inches: an image, its class below it, what is left free around it
BEFORE, BEHIND, HEAD = 0.85, 1.3, 0.34  # inches: left and right of the images, above each strategy
LETTERS = 10  # of a class name
NEW, SEEN = "#b03a00", "#595959"


@dataclass(frozen=True)
class Line:
    """Images that stand side by side: the words before them, their pool rows, and the words behind."""

    before: str
    rows: tuple[int, ...]
    behind: str


def draw_images(
    figure: Figure, inputs: Inputs, class_names: Sequence[str], bought: Mapping[str, Purchases], most: int
) -> None:
    """Strategies below one another, each with a line for each of its first `most` purchases.

    Images stand in the order of purchase, each above its class, which is bold where it is the first of it;
    the end of the line says how many classes are covered so far. Pixels are shown from 0 (or the least, if
    that is less) to the most of all that are shown.

    Raises:
        ValueError: items that are no images, or nothing was bought.
    """
    if not inputs.is_image:
        raise ValueError(f"items of shape {inputs.shape} are no images; choose --kind rounds")
    blocks = {name: lines(each, most, len(class_names)) for name, each in bought.items()}
    shown = [row for block in blocks.values() for line in block for row in line.rows]
    if not shown:
        raise ValueError("a picture of images needs a purchase at least, these runs bought nothing yet")
    images = dict(zip(shown, gray_or_rgb(inputs.array[shown]), strict=True))
    across = max(len(line.rows) for block in blocks.values() for line in block)
    height = sum(HEAD + len(block) * (IMAGE + WORD) for block in blocks.values())
    axes = _canvas(figure, across * IMAGE, height)
    top = 0.0
    for name, block in blocks.items():
        axes.text(0.1 - BEFORE, top + 0.24, name, fontsize=11, fontweight="bold")
        top += HEAD
        words = _words(bought[name], class_names)
        for line in block:
            _draw(axes, line, images, words, top)
            top += IMAGE + WORD


def lines(purchases: Purchases, most: int, classes: int) -> list[Line]:
    """The first `most` purchases cut into lines of at most 20 images; of a large one the first 60."""
    found = []
    for number in purchases.numbers[:most]:
        rows = purchases.of(number).rows.tolist()
        shown = rows[:SHOWN]
        covered = len(np.unique(purchases.answers[purchases.rounds <= number]))
        end = f"{covered} of {classes} classes"
        more = f"{len(rows) - len(shown)} more; {end}" if len(rows) > len(shown) else end
        starts = range(0, len(shown), PER_LINE)
        for start in starts:
            before = f"round {number}" if start == 0 else ""
            behind = more if start == starts[-1] else ""
            found.append(Line(before, tuple(shown[start : start + PER_LINE]), behind))
    return found


def _words(purchases: Purchases, class_names: Sequence[str]) -> dict[int, tuple[str, bool]]:
    """For each bought row the name of its class, and whether it was the first of it."""
    found, seen = {}, set[int]()
    for row, answer in zip(purchases.rows.tolist(), purchases.answers.tolist(), strict=True):
        name = class_names[answer]
        short = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
        found[row] = (short, answer not in seen)
        seen.add(answer)
    return found


def _canvas(figure: Figure, width: float, height: float) -> Axes:
    """Axes over the whole figure in inches, (0, 0) where the first image begins, growing downwards."""
    figure.set_size_inches(BEFORE + width + BEHIND, height + 0.1)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(-BEFORE, width + BEHIND), ylim=(height + 0.1, 0), autoscale_on=False)
    return axes


def _draw(
    axes: Axes,
    line: Line,
    images: Mapping[int, ndarray],
    words: Mapping[int, tuple[str, bool]],
    top: float,
) -> None:
    middle = top + IMAGE / 2
    axes.text(0.1 - BEFORE, middle, line.before, fontsize=9, va="center")
    axes.text(len(line.rows) * IMAGE + 0.1, middle, line.behind, fontsize=9, va="center")
    for place, row in enumerate(line.rows):
        left = place * IMAGE
        extent = (left + GAP, left + IMAGE - GAP, top + IMAGE - GAP, top + GAP)
        axes.imshow(images[row], cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
        name, new = words[row]
        axes.text(
            left + IMAGE / 2,
            top + IMAGE,
            name,
            fontsize=6.5,
            ha="center",
            va="top",
            color=NEW if new else SEEN,
            fontweight="bold" if new else "normal",
        )


def gray_or_rgb(items: Shaped[ndarray, "b ..."]) -> list[Float32[ndarray, "h w *c"]]:
    """Stored images as (h, w) or (h, w, 3), all on one scale from 0 to 1."""
    values = items.astype(np.float32)
    low, high = min(0.0, float(values.min())), float(values.max())
    values = (values - low) / (high - low if high > low else 1)
    if values.ndim == 3:
        return list(values)
    return list(values[:, 0] if values.shape[1] == 1 else np.moveaxis(values[:, :3], 1, -1))
