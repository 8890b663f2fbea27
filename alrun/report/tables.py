"""The numbers behind the figures: CSV files, and a short table for a terminal."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from alrun.files import write_text
from alrun.report.aggregating import Method, Panel, spread
from alrun.report.bars import once_cost, query_cost
from alrun.report.curves import TOP5
from alrun.report.epochs import over_budgets
from alrun.report.epochs_picture import errors
from alrun.report.looks import seconds
from alrun.report.ratios import ratios
from alrun.report.reported import reported, told

Line = dict[str, Any]


def save_tables(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """`report.csv`, `methods.csv` and `ratios.csv`; blank where there is no number.

    `errors.csv` is there where runs differ in labels alone, `reported.csv` where settings quote others.
    """
    tables: dict[str, list[Line]] = {}
    for name, lines in (("report", by_labels), ("methods", by_method), ("ratios", by_pair)):
        tables[name] = [line for panel in panels for line in lines(panel)]
    further = {
        "errors": [line for panel in over_budgets(panels) for line in by_trainers_labels(panel)],
        "reported": [line for panel in panels for line in by_quote(panel)],
    }
    tables |= {name: lines for name, lines in further.items() if lines}
    for name, lines in tables.items():
        write_lines(folder / f"{name}.csv", lines)
    return [folder / f"{name}.csv" for name in tables]


def by_labels(panel: Panel) -> Iterator[Line]:
    """A line for each method and label count: accuracy, total query seconds, candidates."""
    for method in panel.methods:
        columns = {
            "accuracy": method.values("accuracy"),
            "total_query_seconds": method.total_query,
            "candidates": np.where(method.queried, method.values("candidates"), np.nan),
            **({TOP5: method.values(TOP5)} if method.has(TOP5) else {}),
        }
        for place, labels in enumerate(method.labels.tolist()):
            line: Line = {"dataset": panel.dataset, "method": method.name, "labels": labels}
            line["seeds"] = len(method.runs)
            for name, values in columns.items():
                line |= mean_and_std(name, values[:, place])
            yield line


def by_method(panel: Panel) -> Iterator[Line]:
    """A line for each method: where it ends, what its queries cost, what it makes once.

    Averages are over the queried rounds. `settings` is how it differs from others of the same strategy.
    """
    for method in panel.methods:
        query, once = query_cost(method), once_cost(method)
        line: Line = {"dataset": panel.dataset, "method": method.name, "strategy": method.strategy}
        line |= {"seeds": len(method.runs), "labels": int(method.labels[-1])}
        line |= mean_and_std("final_accuracy", method.values("accuracy")[:, -1])
        if method.has(TOP5):
            line |= mean_and_std(f"final_{TOP5}", method.values(TOP5)[:, -1])
        line |= mean_and_std("total_query_seconds", method.total_query[:, -1])
        line |= mean_and_std("average_query_seconds", query.total)
        line |= {f"average_{part}_seconds": value for part, value in query.parts.items()}
        line |= {"average_train_seconds": float(method.average("train_seconds").mean())}
        line |= mean_and_std("once_seconds", once.total)
        line |= {f"once_{part}_seconds": value for part, value in once.parts.items()}
        yield {**line, "settings": method.settings}


def by_pair(panel: Panel) -> Iterator[Line]:
    """A line for each ordered pair of methods: query time at the highest accuracy that both reach."""
    for pair in ratios(panel):
        one, other = pair.at
        yield {
            "dataset": panel.dataset,
            "a": pair.first,
            "b": pair.second,
            "seeds": pair.seeds,
            "accuracy": pair.accuracy,
            "labels_a": one.labels,
            "labels_b": other.labels,
            "query_seconds_a": one.query_seconds,
            "query_seconds_b": other.query_seconds,
            "ratio": pair.ratio,
        }


def by_trainers_labels(panel: Panel) -> Iterator[Line]:
    """A line for each trainer and label count: test error (%) over all runs that reached it."""
    for method in panel.methods:
        found = errors(method)
        for labels, mean, std in zip(*(each.tolist() for each in found), strict=True):
            line: Line = {"dataset": panel.dataset, "trainer": method.name, "labels": labels}
            yield {**line, "error_mean": mean, "error_std": std}


def by_quote(panel: Panel) -> Iterator[Line]:
    """A line for each error (%) that was reported elsewhere and not run here."""
    for name, quoted in reported(panel).items():
        for labels, error in quoted.items():
            yield {"dataset": panel.dataset, "name": told(name), "labels": labels, "error": error}


def summary(panel: Panel) -> Table:
    """A line for each method, the most accurate first; accuracy with its deviation over seeds.

    Below them, apart, what was reported elsewhere for as many labels as a method ends with.
    """
    table = Table(
        title=panel.dataset, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("strategy", overflow="fold")
    top5 = ["top-5 (%)"] if any(method.has(TOP5) for method in panel.methods) else []
    for name in ("seeds", "labels", "accuracy (%)", *top5, "total query", "made once"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in sorted(panel.methods, key=lambda each: -each.values("accuracy")[:, -1].mean()):
        once = float(once_cost(method).total.mean())
        query = seconds(float(method.total_query[:, -1].mean()))
        best = [_final(method, TOP5) if method.has(TOP5) else "-" for _ in top5]
        numbers = (str(len(method.runs)), f"{method.labels[-1]:,}", _final(method, "accuracy"), *best, query)
        table.add_row(method.name, *numbers, seconds(once) if once else "-")
    table.add_section()
    ends = {int(method.labels[-1]) for method in panel.methods}
    for name, quoted in reported(panel).items():
        for labels in sorted(ends & set(quoted)):
            table.add_row(told(name), "-", f"{labels:,}", f"{100 - quoted[labels]:.2f}")
    return table


def _final(method: Method, name: str) -> str:
    over = spread(100 * method.values(name)[:, -1:])
    return f"{over.mean[0]:.2f}" + ("" if np.isnan(over.std[0]) else f" ± {over.std[0]:.2f}")


def mean_and_std(name: str, values: np.ndarray) -> Line:
    """`<name>_mean` and `<name>_std` of numbers, one a seed."""
    over = spread(values[:, None])
    return {f"{name}_mean": float(over.mean[0]), f"{name}_std": float(over.std[0])}


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """A CSV file with a column for every key; blank where a line has no such key or NaN."""
    names = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    """Nine digits suffice for seconds and shares; NaN is blank."""
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.9g}"
