"""The objective table: what selections are worth as core sets, a strategy and budget (S2, tables 1, 2, 8)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from alrun.files import save_figure, write_text
from alrun.report.aggregating import Method, Panel, spread
from alrun.report.figures import KINDS, objective_figure
from alrun.report.tables import Line, mean_and_std, write_lines

MOST_BUDGETS = 12  # columns of the LaTeX table; the CSV file has all
CELL = 12  # letters a column of the printed table
NONE = "–"  # no label, no objective
ESCAPES = str.maketrans({each: f"\\{each}" for each in "_%&#$"})


class Measure(NamedTuple):
    """The space of features and the metric between them that objectives are taken in."""

    space: str
    metric: str

    def __str__(self) -> str:
        return f"{self.space}, {self.metric}"


def title(panel: Panel, where: Measure) -> str:
    """What is measured, in words."""
    return f"{panel.dataset}: objective W ({where})"


def save_objectives(panel: Panel, where: Measure, folder: Path) -> list[Path]:
    """`objective.csv`, `objective.tex` and the figure, as PNG and PDF."""
    csv, tex = folder / "objective.csv", folder / "objective.tex"
    write_lines(csv, list(by_budget(panel, where)))
    write_text(tex, latex(panel, where))
    files = [csv, tex]
    figure = objective_figure(panel, f"Objective W ({where})")
    for kind in KINDS:
        files.append(folder / f"objective{kind}")
        save_figure(figure, files[-1])
    return files


def by_budget(panel: Panel, where: Measure) -> Iterator[Line]:
    """A line for each method and label count: objective and certified gap, mean and deviation over seeds."""
    for method in panel.methods:
        for place, labels in enumerate(method.labels.tolist()):
            line: Line = {"dataset": panel.dataset, **where._asdict(), "method": method.name}
            line |= {"labels": labels, "seeds": len(method.runs)}
            for name in ("objective", "gap"):
                line |= mean_and_std(name, method.values(name)[:, place])
            yield line


def objective_table(panel: Panel, width: int) -> Table:
    """A row for each method, the least objective in the end first; the certified gap where there is one.

    As many budgets are told as fit into `width` letters.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    names = max(len(method.name) for method in panel.methods)
    budgets = told_budgets(panel, max(2, (width - names) // CELL))
    table.add_column("strategy", overflow="fold", min_width=min(names, width // 3))
    for budget in budgets:
        table.add_column(f"{budget:,}", justify="right", no_wrap=True)
    digits = _digits(panel)
    for method in sorted(panel.methods, key=_in_the_end):
        cells = [_cell(method, budget, digits).replace(" ±", "\n±") for budget in budgets]
        gaps = [f"\ngap {gap} %" if (gap := _gap(method, budget)) else "" for budget in budgets]
        table.add_row(method.name, *(f"{cell}{gap}" for cell, gap in zip(cells, gaps, strict=True)))
    return table


def latex(panel: Panel, where: Measure) -> str:
    """The same table for LaTeX with booktabs; the least mean of each budget is bold."""
    budgets, digits = told_budgets(panel, MOST_BUDGETS), _digits(panel)
    cells = {method.name: [_cell(method, budget, digits) for budget in budgets] for method in panel.methods}
    least = [_least([each[place] for each in cells.values()]) for place in range(len(budgets))]
    rows = [["strategy", *map(str, budgets)]]
    for method in panel.methods:
        rows.append([_plain(method.name), *map(_latex_cell, cells[method.name], least)])
        if any(gaps := [_gap(method, budget) for budget in budgets]):
            rows.append([r"\quad gap (\%)", *gaps])
    lines = [" & ".join(row) + r" \\" for row in rows]
    head = [
        f"% {title(panel, where)}, mean and deviation over seeds; the least is bold",
        rf"\begin{{tabular}}{{l{'r' * len(budgets)}}}",
    ]
    return "\n".join(
        [*head, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}", ""]
    )


def told_budgets(panel: Panel, most: int) -> list[int]:
    """At most so many of the label counts that methods have, the first and the last among them."""
    every = np.unique(np.concatenate([method.labels for method in panel.methods]))
    kept = np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(np.int64))
    return every[kept].tolist()


def _in_the_end(method: Method) -> tuple[bool, float]:
    """What methods are sorted by; one without a last objective comes last."""
    mean = float(method.values("objective")[:, -1].mean())
    return bool(np.isnan(mean)), mean


def _least(cells: list[str]) -> str:
    """The mean to be shown bold, blank where there is none."""
    return min((cell.split()[0] for cell in cells if cell not in ("", NONE)), key=float, default="")


def _digits(panel: Panel) -> int:
    """Decimals that give the largest objective four digits."""
    values = np.concatenate([method.values("objective").ravel() for method in panel.methods])
    largest = float(values[np.isfinite(values)].max(initial=0.0))
    return int(np.clip(3 - np.floor(np.log10(largest)), 0, 6)) if largest > 0 else 4


def _cell(method: Method, budget: int, digits: int) -> str:
    """Mean, and deviation where there are seeds; a dash for none, blank for a budget the method has not."""
    there = method.labels == budget
    if not there.any():
        return ""
    over = spread(method.values("objective")[:, there])
    if np.isnan(over.mean[0]):
        return NONE
    deviation = "" if np.isnan(over.std[0]) else f" ± {over.std[0]:.{digits}f}"
    return f"{over.mean[0]:.{digits}f}{deviation}"


def _gap(method: Method, budget: int) -> str:
    """The mean certified gap in percent; blank where a seed has none."""
    gaps = method.values("gap")[:, method.labels == budget]
    return f"{100 * gaps.mean():.1f}" if gaps.size and np.isfinite(gaps).all() else ""


def _latex_cell(cell: str, least: str) -> str:
    if cell == NONE:
        return "--"
    mean, _, deviation = cell.partition(" ± ")
    shown = rf"\textbf{{{mean}}}" if mean == least else mean
    return rf"{shown} {{\scriptsize$\pm$ {deviation}}}" if deviation else shown


def _plain(name: str) -> str:
    return name.translate(ESCAPES)
