"""How the labels bought so far divide among the classes: lines of their shares, a panel a method."""

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from alrun.report.aggregating import Method, Panel
from alrun.report.looks import grid, titled
from alrun.report.reading import Run, UnreadableError
from alrun.report.selection_picture import class_colors

MOST_CLASSES = 20  # lines of more cannot be told apart
LETTERS = 12  # of a class's name beside its line
APART = 0.075  # of the axis, between two names
MARK = 0.02
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shares:
    """Of each run of a method the share of each class among all labels bought so far, in [0, 1].

    Attributes:
        values: by run, label count and class; synthetic items that were bought count, too.
        pool: of the whole pool, None where the run did not write it down.
    """

    method: Method
    dataset: str
    values: Float64[ndarray, "s r c"]
    class_names: tuple[str, ...]
    pool: Float64[ndarray, " c"] | None


def label_shares(panels: Sequence[Panel]) -> list[Shares]:
    """Of every method whose runs have their purchases, and whose classes are few enough for lines.

    Damaged files are told and their methods left out.
    """
    found = []
    for panel in panels:
        for method in panel.methods:
            try:
                shares = _shares(panel, method)
            except UnreadableError as error:
                log.warning("%s; %s is left out of label_shares", error, method.name)
                continue
            if shares is not None and len(shares.class_names) <= MOST_CLASSES:
                found.append(shares)
    return found


def shares_figure(found: Sequence[Shares]) -> Figure:
    """Means over seeds, a band from the least to the largest (S4, figures 9, 10, 14, 15, 17, 18, 23, 24)."""
    names = [name[:LETTERS] for shares in found for name in shares.class_names]
    figure, places = grid(len(found), words=[max(names, key=len)])
    for axes, shares in zip(places, found, strict=True):
        alike = [each for each in found if each.dataset == shares.dataset]
        draw_shares(axes, shares, 100 * max(_top(each) for each in alike))
    figure.suptitle("Classes of the labels bought so far; marks on the right: of the pool", x=0.01, ha="left")
    return figure


def draw_shares(axes: Axes, shares: Shares, top: float) -> None:
    """The share of each class against the labels bought, up to `top` percent, its name at the end."""
    labels, percent = shares.method.labels, 100 * shares.values
    mean = percent.mean(axis=0)
    colors = class_colors(len(shares.class_names))
    ends = _apart(mean[-1], APART * top)
    for place, name in enumerate(shares.class_names):
        color = colors[place]
        axes.plot(labels, mean[:, place], color=color, lw=1.5)
        if len(percent) > 1:
            low, high = percent[:, :, place].min(axis=0), percent[:, :, place].max(axis=0)
            axes.fill_between(labels, low, high, color=color, alpha=0.12, lw=0)
        if shares.pool is not None:
            across = [1.0, 1.0 + MARK]
            level = 100 * shares.pool[place]
            axes.plot(across, [level] * 2, color=color, lw=2, transform=_beside(axes), clip_on=False)
        where = (1.0 + 2 * MARK, ends[place])
        short = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}."
        axes.text(*where, short, color=0.8 * color, fontsize=7.5, va="center", transform=_beside(axes))
    axes.set_ylim(0, top)
    axes.set(xlabel="labels", ylabel="share of the labels (%)")
    titled(axes, f"{shares.method.name}, {shares.dataset}", _said(shares, mean[-1]))


def _shares(panel: Panel, method: Method) -> Shares | None:
    """Nothing where a run has no `selections.csv`."""
    runs = [_counts(run) for run in method.runs if (run.folder / "selections.csv").is_file()]
    if len(runs) < len(method.runs):
        return None
    pools = [_pool(run) for run in method.runs]
    known = pools[0]
    count = max([len(known), *(each.shape[1] for each in runs)])
    kept = []
    for run, counts in zip(method.runs, runs, strict=True):
        at = np.isin(run.columns["labeled"], method.labels)
        rounds = run.columns["round"][at].astype(np.int64)
        if rounds.max() >= len(counts):
            raise UnreadableError(f"{run.folder / 'selections.csv'}: has no round {rounds.max()}")
        wide = np.zeros((len(rounds), count))
        wide[:, : counts.shape[1]] = counts[rounds]
        kept.append(wide / wide.sum(axis=1, keepdims=True))
    whole = len(known) == count and sum(known.values()) > 0
    names = tuple(known) if whole else tuple(map(str, range(count)))
    pool = np.array([*known.values()]) / sum(known.values()) if whole else None
    return Shares(method, panel.dataset, np.array(kept), names, pool)


def _counts(run: Run) -> Int64[ndarray, "r c"]:
    """Labels of each class bought up to each round."""
    file = run.folder / "selections.csv"
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            pairs = [(int(line["round"]), int(line["label"])) for line in csv.DictReader(opened)]
        rounds, labels = np.array(pairs, np.int64).reshape(-1, 2).T
        counts = np.zeros((rounds.max() + 1, labels.max() + 1), np.int64)
        np.add.at(counts, (rounds, labels), 1)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UnreadableError(f"{file}: cannot be read as purchases ({error})") from None
    return counts.cumsum(axis=0)


def _pool(run: Run) -> dict[str, int]:
    """Pool items by class name; nothing where the run did not write them down."""
    file = run.folder / "environment.json"
    try:
        told = json.loads(file.read_text(encoding="utf-8")).get("classes") or {}
        return {str(name): int(count) for name, count in told.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableError(f"{file}: cannot be read ({type(error).__name__}); restore it") from None


def _top(shares: Shares) -> float:
    """A little above the largest share."""
    pool = 0.0 if shares.pool is None else float(shares.pool.max())
    return min(1.0, 1.05 * max(float(shares.values.max()), pool))


def _apart(levels: Float64[ndarray, " c"], gap: float) -> Float64[ndarray, " c"]:
    """The levels in their order, moved apart to be at least `gap` from each other, around where they were."""
    order = np.argsort(levels, kind="stable")
    placed = levels[order].astype(np.float64)
    for _ in range(50):
        close = np.flatnonzero(np.diff(placed) < 0.999 * gap)
        for place in close:
            middle = (placed[place] + placed[place + 1]) / 2
            placed[place], placed[place + 1] = middle - gap / 2, middle + gap / 2
        if not close.size:
            break
    placed += max(0.0, -float(placed.min()))
    out = np.empty_like(placed)
    out[order] = placed
    return out


def _beside(axes: Axes):
    return axes.get_yaxis_transform()


def _said(shares: Shares, ends: Float64[ndarray, " c"]) -> str:
    most, least = int(ends.argmax()), int(ends.argmin())
    parts = []
    for word, place in (("most", most), ("least", least)):
        of = "" if shares.pool is None else f" (pool {100 * shares.pool[place]:.1f})"
        parts.append(f"{word}: {shares.class_names[place]} {ends[place]:.1f} %{of}")
    return ", ".join(parts)
