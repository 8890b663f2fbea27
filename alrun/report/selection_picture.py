"""Where in a space of features the bought rows lie, early and late (S1, figures 2 to 4)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy import ndarray

COMPONENTS = 50
NEIGHBORS = 10
NAMED_CLASSES = 30  # names of more would cover the points
INK = "#1a1a1a"

Projection = Literal["tsne", "pca"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Pictured rows: their features, true classes, and the round in which each was bought, -1 for never.

    `drawn` rows stand for the pool, whether bought or not; the others are pictured because they were bought.
    Round 0 is the first set; rounds up to `half` are early, those after it late.
    """

    points: Float32[ndarray, "m d"]
    labels: Int64[ndarray, " m"]
    rounds: Int64[ndarray, " m"]
    drawn: Bool[ndarray, " m"]
    class_names: tuple[str, ...]

    @property
    def half(self) -> int:
        """The last early round: of 7 rounds the fourth."""
        return (max(0, int(self.rounds.max())) + 1) // 2

    @property
    def first(self) -> ndarray:
        """Rows of the first set (bool, (m,))."""
        return self.rounds == 0

    @property
    def early(self) -> ndarray:
        """Rows queried in the first half of the rounds (bool, (m,))."""
        return (self.rounds > 0) & (self.rounds <= self.half)

    @property
    def late(self) -> ndarray:
        """Rows queried in the second half of the rounds (bool, (m,))."""
        return self.rounds > self.half


def pictured(
    total: int, bought: Int64[ndarray, " b"], most: int, rng: np.random.Generator
) -> tuple[Int64[ndarray, " m"], Bool[ndarray, " m"]]:
    """At most `most` of `total` pool rows, drawn, and every bought row, sorted; and which were drawn."""
    drawn = rng.permutation(total)[:most]
    rows = np.union1d(drawn, bought).astype(np.int64)
    return rows, np.isin(rows, drawn)


def projected(points: Float32[ndarray, "m d"], projection: Projection) -> Float64[ndarray, "m 2"]:
    """Coordinates in the plane; the same points give the same picture.

    `pca`: the two leading principal components. `tsne`: scikit-learn's t-SNE of the 50 leading components,
    begun at the first two; distances within clusters mean something, those between them little.

    Raises:
        ValueError: fewer than three points, or one that is not finite.
    """
    from sklearn.manifold import TSNE

    leading = _leading(points)
    if projection == "pca":
        flat = np.zeros((len(leading), 2))
        flat[:, : leading.shape[1]] = leading[:, :2]
        return flat
    perplexity = min(30.0, (len(points) - 1) / 3)
    start = "pca" if leading.shape[1] > 1 else "random"
    fitted = TSNE(2, init=start, perplexity=perplexity, random_state=0)
    return fitted.fit_transform(leading).astype(np.float64)


def among_strangers(selection: Selection) -> Float64[ndarray, " m"]:
    """For each point the share of its ten nearest drawn points that belong to another class, 0 to 1.

    Purchases that were not drawn are neighbors of none: there are many of them where the strategy looked, and
    they would shift the shares that they are judged by. Distances are those of the 50 leading principal
    components, not of the picture. Near a boundary between classes the share is high.

    Raises:
        ValueError: fewer than two drawn points, fewer than three points, or one that is not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    drawn = np.flatnonzero(selection.drawn)
    if len(drawn) < 2:
        raise ValueError(f"neighbors need two drawn points at least, got {len(drawn)}")
    leading = _leading(selection.points)
    search = NearestNeighbors(n_neighbors=min(NEIGHBORS + 1, len(drawn))).fit(leading[drawn])
    found = drawn[search.kneighbors(leading, return_distance=False)]
    others = found != np.arange(len(leading))[:, None]
    others[others.all(axis=1), -1] = False
    near = found[others].reshape(len(leading), -1)
    return (selection.labels[near] != selection.labels[:, None]).mean(axis=1)


def draw_selection(figure: Figure, selection: Selection, places: Float64[ndarray, "m 2"], title: str) -> None:
    """All points in light colors by class; the first set and early queries on the left, late ones right.

    Titles compare the neighbors of queries with those of the drawn points, which stand for the pool.
    """
    shares = among_strangers(selection)
    rounds, half = int(selection.rounds.max()), selection.half
    figure.set_size_inches(11, 5.6)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes in (left, right):
        _background(axes, selection, places)
    _marked(left, selection, places, selection.first, "^", 20.0)
    _marked(left, selection, places, selection.early, "o", 22.0)
    _marked(right, selection, places, selection.late, "s", 18.0)
    for axes, name, rows in ((left, "early", selection.early), (right, "late", selection.late)):
        share = (
            f", {100 * shares[rows].mean():.0f} % of their neighbors of another class" if rows.any() else ""
        )
        axes.set_title(f"{name}: {rows.sum():,} queries{share}", loc="left", fontsize=10)
    pool = shares[selection.drawn].mean()
    everywhere = f"Everywhere in the pool {100 * pool:.0f} % of neighbors are of another class."
    figure.suptitle(f"{title}\n{everywhere}", x=0.01, ha="left", fontsize=12)
    handles = [
        Line2D([], [], ls="", marker=marker, color=INK, label=label, markersize=5.5)
        for marker, label, rows in (
            ("^", "first set", selection.first),
            ("o", _span(1, half), selection.early),
            ("s", _span(half + 1, rounds), selection.late),
        )
        if rows.any()
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
        )


def _background(axes: Axes, selection: Selection, places: ndarray) -> None:
    colors = class_colors(len(selection.class_names))[selection.labels]
    axes.scatter(*places.T, c=0.45 * colors + 0.55, s=7, lw=0, zorder=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if len(selection.class_names) > NAMED_CLASSES:
        return
    for label in np.unique(selection.labels):
        own = places[selection.labels == label]
        middle = np.median(own, axis=0)
        across, up = own[((own - middle) ** 2).sum(axis=1).argmin()].tolist()
        halo = [withStroke(linewidth=2.5, foreground="white")]
        name = selection.class_names[label]
        axes.annotate(
            name,
            (across, up),
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold",
            path_effects=halo,
            zorder=2,
        )


def _marked(
    axes: Axes, selection: Selection, places: ndarray, rows: ndarray, marker: str, size: float
) -> None:
    """Bought rows as dark marks in a shade of their class."""
    if rows.any():
        colors = 0.5 * class_colors(len(selection.class_names))[selection.labels[rows]]
        axes.scatter(*places[rows].T, c=colors, s=size, marker=marker, edgecolors="white", lw=0.5, zorder=3)


def class_colors(classes: int) -> Float64[ndarray, "c 3"]:
    """A color (red, green, blue in 0..1) a class: ten that are told apart well, then twenty, then a wheel."""
    if classes <= 20:
        return np.array(colormaps["tab10" if classes <= 10 else "tab20"].colors)[:classes]  # type: ignore[attr-defined]
    return np.asarray(colormaps["hsv"](np.arange(classes) / classes))[:, :3]


def _span(first: int, last: int) -> str:
    return f"round {first}" if first == last else f"rounds {first} to {last}"


def _leading(points: Float32[ndarray, "m d"]) -> Float64[ndarray, "m k"]:
    from sklearn.decomposition import PCA

    if len(points) < 3:
        raise ValueError(f"a picture needs three points at least, got {len(points)}")
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ValueError(f"a picture needs finite features, got NaN or infinity in point {bad}")
    count = min(COMPONENTS, *points.shape)
    return PCA(count, random_state=0).fit_transform(points.astype(np.float64))
