"""What grows with the labels or with the time spent on queries: lines with a band over seeds."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from numpy import ndarray

from alrun.report.aggregating import Method, Panel, spread
from alrun.report.looks import (
    COUNTS,
    QUIET,
    SECONDS,
    Look,
    Looks,
    compared,
    leader,
    line,
    logarithmic,
    seconds,
    titled,
)

TOP5, ENTROPY = "top5_accuracy", "batch_entropy"


def draw_accuracy_by_query_time(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Mean test accuracy against mean total query time, single seeds thin (S1, figures 5 and 8).

    The first set, which costs no query, has no place on the log axis. Lines mark the highest and the lowest
    final accuracy among methods.
    """
    shown = []
    for method in panel.methods:
        time, accuracy = method.total_query, 100 * method.values("accuracy")
        spent = time.mean(axis=0) > 0
        shown += time.mean(axis=0)[spent].tolist()
        look = styles[method.name]
        for own_time, own in zip(time, accuracy, strict=True):
            there = own_time > 0
            axes.plot(own_time[there], own[there], color=look.color, lw=0.6, alpha=0.3)
        _mean(axes, method, look, time.mean(axis=0)[spent], accuracy.mean(axis=0)[spent])
    _mark_finals(axes, [float(100 * each.values("accuracy")[:, -1].mean()) for each in panel.methods])
    if shown:
        axes.set_xscale("log")
        logarithmic(axes.xaxis, shown, SECONDS)
    best = leader(panel)
    time = seconds(float(best.total_query[:, -1].mean()))
    titled(axes, panel.dataset, f"{_ends(panel, best)} after {time} of queries")
    axes.set(xlabel="total query time", ylabel="test accuracy (%)")


def draw_accuracy_by_labels(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Test accuracy against labels: mean, a band of one standard deviation, single seeds (S1, figure 6)."""
    for method in panel.methods:
        _band(axes, method, styles[method.name], 100 * method.values("accuracy"), method.labels)
    best = leader(panel)
    titled(axes, panel.dataset, f"{_ends(panel, best)} with {best.labels[-1]:,} labels")
    axes.set(xlabel="labels", ylabel="test accuracy (%)")


def draw_top5_by_labels(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Share of test items whose class is among the five likeliest, by labels, of methods that have it."""
    ends = {}
    for method in panel.methods:
        if method.has(TOP5):
            values = 100 * method.values(TOP5)
            _band(axes, method, styles[method.name], values, method.labels)
            ends[method.name] = float(values[:, -1].mean())
    best = max(ends, key=lambda name: ends[name])
    told = (
        f"{best} ends highest: {ends[best]:.1f} %" if len(ends) > 1 else f"{best} ends at {ends[best]:.1f} %"
    )
    titled(axes, panel.dataset, told)
    axes.set(xlabel="labels", ylabel="top-5 test accuracy (%)")


def draw_batch_entropy(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Mean entropy of what a round bought, by the model that chose it (S4, figures 3b, 11, 13, 20 and 22).

    Methods without such a number are left out; so is the first set, which no model chose.
    """
    known = {method: entropies(method) for method in panel.methods}
    curves = {method: found for method, found in known.items() if found is not None}
    _bands(axes, curves, styles)
    means = {method.name: float(values.mean()) for method, (_, values) in curves.items()}
    best = max(means, key=lambda name: means[name])
    told = f"{best} buys {means[best]:.3g} nats on average"
    if means.get("random") and best != "random":
        told = f"{told}, {means[best] / means['random'] - 1:.0%} above random"
    titled(axes, panel.dataset, told)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="labels", ylabel="mean entropy of a batch (nats)")


def entropies(method: Method) -> tuple[ndarray, Float64[ndarray, "s r"]] | None:
    """Label counts at which every run knows the mean entropy of its batch, and these; None without any."""
    if not all(ENTROPY in run.columns for run in method.runs):
        return None
    values = method.values(ENTROPY)
    known = ~np.isnan(values).any(axis=0)
    return (method.labels[known], values[:, known]) if known.any() else None


def draw_candidates(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Rows among which the deciding criterion chose, by labels after the choice."""
    curves = {method: method.values("candidates")[:, method.queried] for method in panel.methods}
    curves = {method: values for method, values in curves.items() if values.size and values.min() > 0}
    _bands(axes, {method: (method.labels[method.queried], curves[method]) for method in curves}, styles)
    last = {method.name: float(values[:, -1].mean()) for method, values in curves.items()}
    if last:
        axes.set_yscale("log")
        means = np.concatenate([values.mean(axis=0) for values in curves.values()])
        logarithmic(axes.yaxis, means.tolist(), COUNTS)
        few, many = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])
        apart = last[few] < last[many]
        told = f"{few} decides among {last[few]:,.0f} in the end"
        titled(axes, panel.dataset, f"{told}, {many} among {last[many]:,.0f}" if apart else told)
    axes.set(xlabel="labels", ylabel="candidates of a query")


def draw_train_seconds(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Seconds of the fit after each purchase; no part of the query time."""
    total = 0.0
    for method in panel.methods:
        values = method.values("train_seconds")
        total = max(total, float(values.sum(axis=1).mean()))
        _band(axes, method, styles[method.name], values, method.labels)
    axes.set_ylim(bottom=0)
    titled(axes, panel.dataset, f"at most {seconds(total)} of training in a run, on average")
    axes.set(xlabel="labels", ylabel="training (s a round)")


def draw_objective(axes: Axes, panel: Panel, styles: Looks) -> None:
    """The objective that selections were scored by, by labels (S2, tables 1 and 8); least is best."""
    for method in panel.methods:
        _band(axes, method, styles[method.name], method.values("objective"), method.labels)
    rivals = compared(panel)
    best = min(rivals, key=lambda method: method.values("objective")[:, -1].mean())
    end = float(best.values("objective")[:, -1].mean())
    told = f"{best.name} ends lowest: {end:.3g}" if len(rivals) > 1 else f"{best.name} ends at {end:.3g}"
    titled(axes, panel.dataset, f"{told} with {best.labels[-1]:,} labels")
    axes.set(xlabel="labels", ylabel="objective W")


def _bands(
    axes: Axes, curves: Mapping[Method, tuple[ndarray, Float64[ndarray, "s r"]]], styles: Looks
) -> None:
    """A band a method, by its labels and values; of methods that lie on one another all are seen."""
    alike: dict[tuple[float, ...], list[Method]] = {}
    for method, (_, values) in curves.items():
        alike.setdefault(tuple(values.mean(axis=0).tolist()), []).append(method)
    for same in alike.values():
        for i, method in enumerate(same):
            labels, values = curves[method]
            _band(axes, method, styles[method.name], values, labels, turn=(i, len(same)))


def _band(
    axes: Axes,
    method: Method,
    look: Look,
    values: Float64[ndarray, "s r"],
    labels: ndarray,
    turn: tuple[int, int] = (0, 1),
) -> None:
    over = spread(values)
    for single in values:
        axes.plot(labels, single, color=look.color, lw=0.6, alpha=0.3)
    if len(values) > 1:
        axes.fill_between(
            labels, over.mean - over.std, over.mean + over.std, color=look.color, alpha=0.1, lw=0
        )
    _mean(axes, method, look, labels, over.mean, turn)


def _mean(
    axes: Axes, method: Method, look: Look, across: ndarray, up: ndarray, turn: tuple[int, int] = (0, 1)
) -> None:
    """The line of a method; of `turn[1]` lines that lie on one another each shows every so many dashes."""
    place, count = turn
    shared = {} if count == 1 else {"linestyle": (-5 * place, (5, 5 * (count - 1)))}
    every = (place, max(count, len(across) // 7, 1))
    axes.plot(across, up, label=method.name, zorder=3, markevery=every, **line(look, **shared))  # type: ignore[arg-type]


def _mark_finals(axes: Axes, finals: list[float]) -> None:
    best, worst = max(finals), min(finals)
    for value, place in ((best, "bottom"), (worst, "top")) if best > worst else ((best, "center"),):
        axes.axhline(value, color=QUIET, lw=0.7, zorder=1)
        axes.annotate(
            f"{value:.1f}",
            (1, value),
            xytext=(3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va=place,
            fontsize=8,
            color=QUIET,
            annotation_clip=False,
        )


def _ends(panel: Panel, best: Method) -> str:
    over = spread(100 * best.values("accuracy")[:, -1:])
    deviation = "" if np.isnan(over.std[0]) else f" ± {over.std[0]:.1f}"
    return f"{best.name}{_rank(panel, best)} {over.mean[0]:.1f}{deviation} %"


def _rank(panel: Panel, best: Method) -> str:
    """What is said of the best method: highest of all, or of those that can be compared with it."""
    rivals = compared(panel)
    others = [method for method in panel.methods if method not in rivals]
    if not others:
        return " ends highest:" if len(rivals) > 1 else ""
    seeds, labels = f"{len(best.seeds)} seeds", f"{best.labels[-1]:,} labels"
    if all(len(method.seeds) < len(best.seeds) for method in others):
        having = seeds
    elif all(method.labels[-1] < best.labels[-1] for method in others):
        having = labels
    else:
        having = f"{seeds} and {labels}"
    return f" ends highest of {len(rivals)} with {having}:" if len(rivals) > 1 else f", alone with {having}:"
