"""What happens while trainers fit: test error and pseudo-labels over epochs; where they end, over labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from alrun.report.aggregating import Method, Panel
from alrun.report.epochs import Epochs
from alrun.report.looks import COUNTS, QUIET, Look, Looks, line, looks, styled, titled

WIDTH, HEIGHT = 6.4, 4.6  # inches a panel
LETTERS = 72  # of what a panel shows, on a line
MARKERS = 12  # on a line, about
CLAIMS = 4  # at most, above a panel

Watched = Mapping[Method, Sequence[Epochs]]


class Course(NamedTuple):
    """Epochs (or labels), mean over runs there, and sample standard deviation (NaN of a single run)."""

    across: Int64[ndarray, " e"]
    mean: Float64[ndarray, " e"]
    std: Float64[ndarray, " e"]


def draw_epochs(figure: Figure, watched: Watched, others: Mapping[Method, float], title: str) -> None:
    """Test error over epochs, a line a trainer with a band of one deviation; where stage 2 begins is marked.

    Right of it, the epochs around those marks alone, counted from them, where the error may rise before it
    falls. `others` are trainers that show no epochs, each with its final error (%): flat lines.
    """
    styles = _looks([*watched, *others])
    courses = {method: _error(each) for method, each in watched.items()}
    stones = {method: _boundary(each) for method, each in watched.items()}
    near = {method: (courses[method], mark) for method, mark in stones.items() if mark is not None}
    figure.set_size_inches(WIDTH * (2 if near else 1), HEIGHT)
    panels = np.ravel(figure.subplots(1, 2 if near else 1, squeeze=False))
    for axes in panels:
        styled(axes)
        axes.set(xlabel="epoch", ylabel="test error (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    whole = panels[0]
    for method, found in courses.items():
        _band(whole, found, styles[method.name], method.name, beneath=_begins(found, courses.values()))
    for method, final in others.items():
        look, name = styles[method.name], f"{method.name} (last epoch)"
        whole.axhline(final, color=look.color, linestyle=(0, (1.5, 1.5)), lw=1.3, label=name, zorder=2)
    for mark in sorted({mark for _, mark in near.values()}):
        _mark(whole, mark)
    titled(whole, "whole fit", *_few(_ends(*each) for each in courses.items()), letters=LETTERS)
    if near:
        _draw_near(panels[1], near, styles)
    _close(figure, whole, title)


def draw_pseudo_accuracy(figure: Figure, watched: Watched, title: str) -> None:
    """Accuracy of pseudo-labels of unbought rows, and of the network's own classes (S3, figure 4).

    Right of it, the mean weights of right and of wrong pseudo-labels. Departs: the network is the one that
    learns from these pseudo-labels, asked about some of the rows; the paper does not say whose it is.
    """
    styles = _looks(list(watched))
    figure.set_size_inches(2 * WIDTH, HEIGHT)
    left, right = figure.subplots(1, 2)
    for method, each in watched.items():
        look = styles[method.name]
        found = course(each, "pseudo_accuracy", _percent)
        _band(left, found, look, method.name)
        _thin(left, _beside(course(each, "network_accuracy", _percent), found), look, "--")
        _band(right, course(each, "pseudo_right_weight", float), look, method.name)
        _thin(right, course(each, "pseudo_wrong_weight", float), look, "--")
    told = _few(_pseudo_ends(method, watched[method]) for method in watched)
    titled(left, "accuracy on unbought rows", *told, letters=LETTERS)
    titled(right, "mean weight", "of right pseudo-labels (full) and of wrong ones (dashed)")
    left.set(xlabel="epoch", ylabel="right (%)")
    right.set(xlabel="epoch", ylabel="weight ω", ylim=(0, None))
    for axes in (left, right):
        styled(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dashed = Line2D([], [], color=QUIET, linestyle="--", lw=1.1, label="the network's own classes")
    _close(figure, left, title, dashed)


def draw_errors(axes: Axes, panel: Panel, styles: Looks) -> None:
    """Test error over labels, a line a trainer with a band of one deviation over runs (S3, figure 6).

    The panel's methods are those of `by_trainer`: a method's runs may be of several budgets.
    """
    ends = {}
    for method in sorted(panel.methods, key=lambda each: list(styles).index(each.name)):
        found = errors(method)
        _band(axes, found, styles[method.name], method.name)
        ends[method.name] = (int(found.across[-1]), float(found.mean[-1]))
    most = max(labels for labels, _ in ends.values())
    last = {name: error for name, (labels, error) in ends.items() if labels == most}
    best = min(last, key=lambda name: last[name])
    how = "ends lowest:" if len(last) > 1 else "ends at"
    titled(axes, panel.dataset, f"{best} {how} {last[best]:.1f} % ({most:,} labels)")
    axes.xaxis.set_major_formatter(COUNTS)
    axes.set(xlabel="labels", ylabel="test error (%)")


def errors(method: Method) -> Course:
    """Test error (%) of all runs of a method at each label count that any of them has reached."""
    points = [
        (int(labels), 100 * (1 - float(accuracy)))
        for run in method.all
        for labels, accuracy in zip(run.columns["labeled"], run.columns["accuracy"], strict=True)
    ]
    return _gathered(points)


def course(each: Sequence[Epochs], name: str, change: Callable[[float], float]) -> Course:
    """A column over epochs, where any of these runs has a number; the mean is over those that have one."""
    points = []
    for one in each:
        epochs, values = one.there(name)
        points += [
            (epoch, change(value)) for epoch, value in zip(epochs.tolist(), values.tolist(), strict=True)
        ]
    return _gathered(points)


def _gathered(points: Sequence[tuple[int, float]]) -> Course:
    across = np.unique(np.array([place for place, _ in points], np.int64))
    groups = [np.array([value for place, value in points if place == there]) for there in across.tolist()]
    means = np.array([group.mean() for group in groups], np.float64)
    stds = np.array([group.std(ddof=1) if len(group) > 1 else np.nan for group in groups], np.float64)
    return Course(across, means, stds)


def _beside(course: Course, other: Course) -> Course:
    """The part of a course from the first epoch of another on."""
    there = course.across >= other.across[:1].min(initial=course.across.max(initial=0))
    return Course(course.across[there], course.mean[there], course.std[there])


def _error(each: Sequence[Epochs]) -> Course:
    return course(each, "test_accuracy", lambda accuracy: 100 * (1 - accuracy))


def _percent(share: float) -> float:
    return 100 * share


def _boundary(each: Sequence[Epochs]) -> int | None:
    """Where stage 1 ends in all of these runs; None where there is no such epoch, or several."""
    found = {one.boundary for one in each}
    return found.pop() if len(found) == 1 else None


def _mark(axes: Axes, epoch: int) -> None:
    """Between the last epoch of stage 1 and the first of stage 2."""
    axes.axvline(epoch + 0.5, color=QUIET, linestyle="--", lw=0.9, zorder=1)


def _draw_near(axes: Axes, fits: Mapping[Method, tuple[Course, int]], styles: Looks) -> None:
    """The epochs around the ends of stage 1, which is epoch 0 here, and how far the error rises there."""
    reach = max(3, round(0.12 * max(int(found.across[-1]) for found, _ in fits.values())))
    for method, (found, mark) in fits.items():
        since = found.across - mark
        there = np.abs(since) <= reach
        _band(
            axes, Course(since[there], found.mean[there], found.std[there]), styles[method.name], method.name
        )
    _mark(axes, 0)
    axes.set(xlabel="epochs since stage 2 began")
    told = [line for method, (found, mark) in fits.items() if (line := _dip(method, found, mark))]
    titled(axes, "where stage 2 begins", *_few(told), letters=LETTERS)


def _dip(method: Method, found: Course, mark: int) -> str:
    """From the last error of stage 1 to the highest soon after it."""
    before, after = found.mean[found.across <= mark], found.across > mark
    if not len(before) or not after.any():
        return ""
    soon = np.flatnonzero(after)[: max(3, int(after.sum()) // 4)]
    worst = soon[int(found.mean[soon].argmax())]
    last, highest = round(float(before[-1]), 1), round(float(found.mean[worst]), 1)
    there = f"{highest:.1f} % (epoch {found.across[worst]})"
    if highest == last:
        return f"{method.name} is at {last:.1f} % before and does not rise above it"
    return f"{method.name} {'rises' if highest > last else 'falls'} from {last:.1f} to {there}"


def _ends(method: Method, found: Course) -> str:
    if not len(found.across):
        return f"{method.name} was never tested"
    deviation = "" if np.isnan(found.std[-1]) else f" ± {found.std[-1]:.1f}"
    return f"{method.name} ends at {found.mean[-1]:.1f}{deviation} %"


def _pseudo_ends(method: Method, each: Sequence[Epochs]) -> str:
    found = course(each, "pseudo_accuracy", _percent)
    if not len(found.across):
        return f"{method.name} makes no pseudo-labels"
    return f"{method.name} from {found.mean[0]:.1f} to {found.mean[-1]:.1f} %"


def _few(claims: Iterable[str]) -> list[str]:
    """All of them, or none where they would be too many."""
    told = list(claims)
    return told if len(told) <= CLAIMS else []


def _looks(methods: Sequence[Method]) -> Looks:
    return looks([Panel("", tuple(methods))])


def _begins(found: Course, courses: Iterable[Course]) -> bool:
    """Whether a longer one of these courses begins with this one, and would be drawn upon it."""
    count = len(found.mean)
    return any(
        len(other.mean) > count and np.array_equal(other.mean[:count], found.mean) for other in courses
    )


def _band(axes: Axes, found: Course, look: Look, name: str, *, beneath: bool = False) -> None:
    """A course and its deviation; one that lies beneath another is wide and pale, to be seen around it."""
    if not np.isnan(found.std).all():
        low, high = found.mean - found.std, found.mean + found.std
        axes.fill_between(found.across, low, high, color=look.color, alpha=0.13, lw=0)
    every = max(1, len(found.across) // MARKERS)
    style = line(look) | ({"lw": 6.0, "alpha": 0.4, "zorder": 2} if beneath else {"zorder": 3})
    axes.plot(found.across, found.mean, label=name, markevery=every, **style)  # type: ignore[arg-type]


def _thin(axes: Axes, found: Course, look: Look, style: str) -> None:
    axes.plot(found.across, found.mean, color=look.color, lw=1.1, linestyle=style, zorder=2)


def _close(figure: Figure, axes: Axes, title: str, *more: Line2D) -> None:
    """The title, and one legend below all panels."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    handles, names = axes.get_legend_handles_labels()
    handles, names = [*handles, *more], [*names, *(str(each.get_label()) for each in more)]
    figure.legend(
        handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9, handlelength=3
    )
