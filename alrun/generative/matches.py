"""Synthetic images above the real ones that they match, and how the search for them went."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from alrun.generative.search import Score
from alrun.training.views import unit

VERSIONED = False  # see alrun.code
SHOWN, PER_LINE = 60, 20
IMAGE, LINE, BLOCK = 0.62, 0.77, 1.75  # inches: an image, it and its score, a pair and all its words
BEFORE, HEAD, CURVE, MARGIN = (
    0.85,
    0.35,
    2.0,
    0.2,
)  # inches: names, title, the curve, what is free at the right
QUIET = "#595959"
WORDS = {"entropy": "entropy (nats)", "min_distance": "distance |w·x + b|"}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Synthetic images and their matches in the pool, in the order in which they are shown.

    Attributes:
        images: unit images. real: stored items. rows: of these.
        scores: of the synthetic images; theirs and those of their matches are by the model that was asked.
        matched: of the matches.
    """

    images: Float32[Tensor, " b *shape"]
    real: Shaped[Tensor, " b *shape"]
    rows: Int64[ndarray, " b"]
    scores: Float64[ndarray, " b"]
    matched: Float64[ndarray, " b"]


def draw_pairs(figure: Figure, pairs: Pairs, history: Float64[ndarray, " t"], score: Score) -> None:
    """Each synthetic image above its match, with the score and the pool row of each; the search below.

    Source: S4, figures 2 and 25 to 28.
    """
    count = len(pairs.rows)
    width = max(min(count, PER_LINE) * IMAGE, 5.0)
    height = -(-count // PER_LINE) * BLOCK
    whole, total = BEFORE + width + MARGIN, HEAD + height + CURVE
    figure.set_size_inches(whole, total)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, CURVE / total, 1, 1 - CURVE / total))
    axes.axis("off")
    axes.set(xlim=(-BEFORE, width + MARGIN), ylim=(height, -HEAD), autoscale_on=False)
    means = f"{pairs.scores.mean():.3f} of synthetic images, {pairs.matched.mean():.3f} of their matches"
    axes.text(
        0.1 - BEFORE, 0.15 - HEAD, f"{WORDS[score]}, mean of {count}: {means}", fontsize=10, va="center"
    )
    numbers = zip(pairs.matched, pairs.rows, strict=True)
    _draw_line(axes, 0.0, "synthetic", _shown(pairs.images), [f"{value:.2f}" for value in pairs.scores])
    _draw_line(axes, LINE, "match", _shown(pairs.real), [f"{value:.2f}\n#{row}" for value, row in numbers])
    below = (BEFORE / whole, 0.45 / total, min(width, 6.0) / whole, (CURVE - 0.65) / total)
    _draw_history(figure.add_axes(below), history, score)


def _draw_line(axes: Axes, top: float, name: str, images: list[ndarray], words: list[str]) -> None:
    """Images side by side, wrapped into blocks, each above its words."""
    for place, (image, word) in enumerate(zip(images, words, strict=True)):
        block, column = divmod(place, PER_LINE)
        left, upper = column * IMAGE, top + block * BLOCK
        if column == 0:
            axes.text(0.1 - BEFORE, upper + IMAGE / 2, name, fontsize=9, va="center")
        extent = (left + 0.02, left + IMAGE - 0.02, upper + IMAGE - 0.02, upper + 0.02)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
        axes.text(left + IMAGE / 2, upper + IMAGE, word, fontsize=6.5, ha="center", va="top", color=QUIET)


def _draw_history(axes: Axes, history: Float64[ndarray, " t"], score: Score) -> None:
    axes.plot(np.arange(len(history)), history, color="#d55e00", lw=1.6)
    axes.set(xlabel="steps of the search", ylim=(0, None), xlim=(0, len(history) - 1))
    axes.set_ylabel(f"mean {WORDS[score]}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.tick_params(labelsize=8)


def _shown(items: Shaped[Tensor, " b *shape"]) -> list[Float32[ndarray, "h w *c"]]:
    """Images as (h, w) or (h, w, 3), from 0 to 1."""
    images = unit(items).clamp(0, 1).numpy()
    return list(images[:, 0] if images.shape[1] == 1 else np.moveaxis(images[:, :3], 1, -1))
