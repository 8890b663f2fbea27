"""The figures of a report: one panel a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alrun.files import save_figure
from alrun.report.aggregating import Panel
from alrun.report.bars import ROW, draw_once_seconds, draw_query_seconds, once_cost, part_handles, query_cost
from alrun.report.curves import (
    TOP5,
    draw_accuracy_by_labels,
    draw_accuracy_by_query_time,
    draw_batch_entropy,
    draw_candidates,
    draw_objective,
    draw_top5_by_labels,
    draw_train_seconds,
    entropies,
)
from alrun.report.epochs import over_budgets
from alrun.report.epochs_picture import draw_errors
from alrun.report.label_shares import label_shares, shares_figure
from alrun.report.looks import Looks, grid, handles, looks
from alrun.report.reported import draw_reported, handles_of, marks, told

Draw = Callable[[Axes, Panel, Looks], None]

CURVES: dict[str, tuple[str, Draw]] = {
    "accuracy_by_query_time": ("Accuracy for the time spent on queries", draw_accuracy_by_query_time),
    "accuracy_by_labels": ("Accuracy for the labels bought", draw_accuracy_by_labels),
    "candidates": ("How many candidates the last criterion looked at", draw_candidates),
    "train_seconds": ("Training time, which no query pays", draw_train_seconds),
}
BARS = {
    "query_seconds": ("What a query costs", draw_query_seconds, query_cost),
    "once_seconds": ("What is made once, beside the query time", draw_once_seconds, once_cost),
}
PARTS = "means of the parts"
QUOTING = "accuracy_by_labels"
KINDS = (".png", ".pdf")


def figures(panels: Sequence[Panel]) -> dict[str, Figure]:
    """Every figure by its name; those that would be empty (nothing was made once) are left out."""
    styles = looks(panels)
    out = {name: _curves(title, draw, panels, styles) for name, (title, draw) in CURVES.items()}
    quote(out[QUOTING], panels, lambda error: 100 - error)
    if joined := over_budgets(panels):
        out["error_by_labels"] = errors_figure(joined)
    if ranked := [panel for panel in panels if any(method.has(TOP5) for method in panel.methods)]:
        out["top5_by_labels"] = _curves(
            "Top-5 accuracy for the labels bought", draw_top5_by_labels, ranked, styles
        )
    if asked := [panel for panel in panels if any(map(entropies, panel.methods))]:
        out["batch_entropy"] = _curves(
            "How unsure the model was of what was bought", draw_batch_entropy, asked, styles
        )
    if shares := label_shares(panels):
        out["label_shares"] = shares_figure(shares)
    for name, (title, draw, cost) in BARS.items():
        costs = [[cost(method) for method in panel.methods] for panel in panels]
        paid = [sum(float(each.total.mean()) > 0 for each in panel) for panel in costs]
        if any(paid):
            paying = [panel for panel, count in zip(panels, paid, strict=True) if count]
            out[name] = _bars(title, draw, paying, styles, max(paid))
            _legend(out[name], part_handles([each for panel in costs for each in panel]), PARTS)
    return out


def errors_figure(panels: Sequence[Panel]) -> Figure:
    """Test error by labels, of trainers whose runs differ in labels: see `over_budgets`."""
    figure = _curves("Test error for the labels bought", draw_errors, panels, looks(panels))
    quote(figure, panels, lambda error: error)
    return figure


def quote(figure: Figure, panels: Sequence[Panel], change: Callable[[float], float]) -> None:
    """Adds what the runs' settings quote from elsewhere, to the panels and to the legend."""
    if not (quoted := marks(panels)):
        return
    for axes, panel in zip(figure.axes, panels, strict=True):
        draw_reported(axes, panel, quoted, change)
    (legend,) = figure.legends
    entries = [*legend.legend_handles, *handles_of(quoted)]
    legend.remove()
    _legend(figure, [each for each in entries if isinstance(each, Line2D)], None)


def objective_figure(panel: Panel, title: str) -> Figure:
    """The objective of selections by labels, of runs that were scored."""
    return _curves(title, draw_objective, [panel], looks([panel]))


def save(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """Draws everything, as PNG and PDF; the files."""
    files = []
    for name, figure in figures(panels).items():
        for kind in KINDS:
            files.append(folder / f"{name}{kind}")
            save_figure(figure, files[-1])
    return files


def _curves(title: str, draw: Draw, panels: Sequence[Panel], styles: Looks) -> Figure:
    shown = [method.name for panel in panels for method in panel.methods]
    beside = [*shown, *map(told, marks(panels))]
    figure, places = grid(len(panels), beside=beside)
    for axes, panel in zip(places, panels, strict=True):
        draw(axes, panel, styles)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    _legend(figure, handles(styles, shown), None)
    return figure


def _bars(title: str, draw: Draw, panels: Sequence[Panel], styles: Looks, most: int) -> Figure:
    shown = [method.name for panel in panels for method in panel.methods]
    figure, places = grid(len(panels), height=1.9 + ROW * max(most, 3), words=shown, beside=[PARTS])
    for axes, panel in zip(places, panels, strict=True):
        draw(axes, panel, styles)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def _legend(figure: Figure, handles: Sequence[Line2D], title: str | None) -> None:
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside right upper",
            frameon=False,
            fontsize=9,
            title=title,
            title_fontsize=9,
            alignment="left",
            handlelength=3,
        )
