"""How often a match has the class of its synthetic image: table and figure (S4, figure 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure
from numpy import ndarray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from alrun.files import save_figure
from alrun.report.figures import KINDS
from alrun.report.looks import styled
from alrun.report.tables import Line, mean_and_std, write_lines

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
ROW = 0.42  # inches a bar
INK = "#1a1a1a"


@dataclass(frozen=True, eq=False)
class Agreement:
    """The runs of one method on a data set.

    Attributes:
        generator, featurizer: the choices made in these groups.
        images: synthetic images of all runs.
        values: of each run, in [0, 1].
        reference: mean test accuracy of the reference classifiers; NaN where labels were given by hand.
    """

    dataset: str
    method: str
    generator: str
    featurizer: str
    images: int
    values: Float64[ndarray, " s"]
    reference: float


def class_averaged(classes: Int64[ndarray, " b"], labels: Int64[ndarray, " b"], count: int) -> float:
    """The share of synthetic images whose match has their class, of each class alone, and then their mean.

    Classes without a synthetic image do not count, so that a generator may favor some of them.

    Args:
        classes: of the synthetic images.
        labels: of their matches.
        count: of the classes there are.

    Raises:
        ValueError: no image.
    Source: S4, supplementary B.1.
    """
    if not len(classes):
        raise ValueError("agreement needs a synthetic image at least, got none")
    all_of = np.bincount(classes, minlength=count)
    right = np.bincount(classes, classes == labels, count)
    return float((right[all_of > 0] / all_of[all_of > 0]).mean())


def save_agreements(found: Sequence[Agreement], folder: Path) -> list[Path]:
    """`agreement.csv`, a line a method, and the figure as PNG and PDF."""
    files = [folder / "agreement.csv", *(folder / f"agreement{kind}" for kind in KINDS)]
    write_lines(files[0], [_line(each) for each in found])
    figure = agreement_figure(found)
    for file in files[1:]:
        save_figure(figure, file)
    return files


def agreement_table(found: Sequence[Agreement]) -> Table:
    """A row a method."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("data set", "generator", "features", "method"):
        table.add_column(name, overflow="fold")
    for name in ("seeds", "images", "agreement (%)", "reference (%)"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        mean, std = 100 * each.values.mean(), 100 * each.values.std(ddof=1) if len(each.values) > 1 else None
        told = f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"
        reference = "by hand" if np.isnan(each.reference) else f"{100 * each.reference:.1f}"
        words = (each.dataset, each.generator, each.featurizer, each.method)
        table.add_row(*words, str(len(each.values)), f"{each.images:,}", told, reference)
    return table


def agreement_figure(found: Sequence[Agreement]) -> Figure:
    """A bar a method, colored by generator, with a whisker from the least to the most seed."""
    figure = Figure(figsize=(7.5, ROW * len(found) + 1.3), layout="constrained")
    axes = figure.subplots()
    styled(axes)
    axes.grid(visible=False, axis="y")
    generators = list(dict.fromkeys(each.generator for each in found))
    datasets = {each.dataset for each in found}
    names = [f"{each.featurizer}, {each.generator}" for each in found]
    if len(set(names)) < len(names):
        names = [f"{each.dataset}: {each.method}" for each in found]
    for place, each in enumerate(found):
        color = COLORS[generators.index(each.generator) % len(COLORS)]
        first = each.generator not in {earlier.generator for earlier in found[:place]}
        mean = 100 * each.values.mean()
        axes.barh(place, mean, height=0.62, color=color, alpha=0.75, label=each.generator if first else None)
        ends = [100 * each.values.min(), 100 * each.values.max()]
        axes.plot(ends, [place, place], color=INK, lw=1.1)
        axes.annotate(
            f"{mean:.1f}", (ends[1], place), (5, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(range(len(found)), names)
    axes.set(
        xlim=(0, 108), ylim=(len(found) - 0.4, -0.6), xlabel="agreement of match and synthetic image (%)"
    )
    axes.set_xticks(range(0, 101, 20))
    if len(datasets) == 1:
        axes.set_title(datasets.pop(), loc="left", fontsize=11, fontweight="bold")
    figure.legend(loc="outside lower center", ncols=max(1, len(generators)), frameon=False, fontsize=9)
    return figure


def _line(each: Agreement) -> Line:
    line: Line = {"dataset": each.dataset, "method": each.method, "generator": each.generator}
    line |= {"featurizer": each.featurizer, "seeds": len(each.values), "images": each.images}
    return {**line, **mean_and_std("agreement", each.values), "reference_accuracy": each.reference}
