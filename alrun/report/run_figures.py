"""Figures of one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alrun.data.data import Data
from alrun.files import save_figure
from alrun.pool import Inputs
from alrun.report.reading import QUERY_PARTS
from alrun.training.model import Model

CLASS_COLORS = ("#d1495b", "#2e6f9e")


def draw_run(path: Path, records: Sequence[Mapping[str, Any]], choices: Mapping[str, str]) -> None:
    """Accuracy and query seconds by part against the number of labels."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = np.array([record["labeled"] for record in records])
    left.plot(labels, [100 * record["accuracy"] for record in records], marker="o", markersize=3.5)
    left.set(
        xlabel="labels", ylabel="test accuracy (%)", title=f"{choices['strategy']} on {choices['dataset']}"
    )
    queried = [record for record in records if record["round"] > 0]
    _draw_seconds(right, queried)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_seconds(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    at = np.array([record["labeled"] for record in records])
    bottom = np.zeros(len(records))
    width = 0.8 * np.diff(at).min() if len(at) > 1 else 1.0
    for part in QUERY_PARTS:
        seconds = np.array([record[f"{part}_seconds"] for record in records])
        axes.bar(at, seconds, width, bottom, label=part)
        bottom = bottom + seconds
    axes.set(xlabel="labels after the query", ylabel="query time (s)", title="query time by part")
    if len(records):
        axes.legend(frameon=False)


def draw_plane(path: Path, data: Data, model: Model, purchases: Sequence[Mapping[str, Any]]) -> None:
    """Pool, decision boundary and queried points in order, for items of two features (S0, figure 1).

    Synthetic items are left out: their rows are none of the data set's.
    """
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    pool, queried = figure.subplots(1, 2, sharex=True, sharey=True)
    first = np.array(purchases[0]["rows"], int) if purchases else np.empty(0, int)
    rows = np.array([row for batch in purchases[1:] for row in batch["rows"]], int)
    rows = rows[rows < len(data.labels)]
    for axes in (pool, queried):
        draw_boundary(axes, data, model)
        axes.set_aspect("equal")
    scatter(pool, data, np.arange(len(data.labels)), size=6)
    pool.set_title("pool and decision boundary")
    scatter(queried, data, first, size=40)
    if len(rows):
        points = queried.scatter(
            *data.inputs[rows].T,
            c=np.arange(1, len(rows) + 1),
            cmap="viridis",
            s=22,
            edgecolors="black",
            lw=0.4,
        )
        figure.colorbar(points, ax=queried, label="order of query", shrink=0.85)
    queried.set_title(f"first {len(first)} labels (large), then {len(rows)} queried")
    save_figure(figure, path)


def draw_boundary(axes: Axes, data: Data, model: Model) -> None:
    """The regions in which the model predicts each class, as a light background."""
    low, high = data.inputs.min(axis=0), data.inputs.max(axis=0)
    across, up = (np.linspace(low[i], high[i], 160, dtype=np.float32) for i in range(2))
    grid = np.stack(np.meshgrid(across, up), axis=-1)
    inputs = Inputs(grid.reshape(-1, 2), model.inputs.device)
    predicted = model.on(inputs).predict(np.arange(len(inputs))).argmax(axis=1).reshape(grid.shape[:2])
    axes.contourf(
        across, up, predicted, levels=np.arange(data.classes + 1) - 0.5, colors=_colors(data), alpha=0.18
    )
    axes.contour(
        across, up, predicted, levels=np.arange(data.classes - 1) + 0.5, colors="black", linewidths=0.8
    )


def scatter(axes: Axes, data: Data, rows: np.ndarray, size: float) -> None:
    """These rows as dots in the color of their class."""
    if len(rows):
        colors = np.array(_colors(data))[data.labels[rows]]
        axes.scatter(*data.inputs[rows].T, c=list(colors), s=size, edgecolors="none", alpha=0.8)


def _colors(data: Data) -> list[str]:
    return [CLASS_COLORS[label] if data.classes == 2 else f"C{label % 10}" for label in range(data.classes)]
