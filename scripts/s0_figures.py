"""Figures 1 to 4 of S0 from run folders, and the numbers behind them.

    alrun -m +experiment=s0_checkerboard strategy=random,least_confidence,coreset,diffusion seed=0,1,2,3,4
    python scripts/s0_figures.py outputs/checkerboard figures

Reads `<folder>/<strategy>/seed*`; prints accuracy (mean and variance over seeds, in percent) at a few label
counts and the mean query seconds of a round; writes curves.png and, for points in the plane, queries.png.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from alrun.assembly import assemble
from alrun.files import save_figure
from alrun.models.encoded import FrozenHead
from alrun.pool import NOT_BOUGHT, Inputs, Pool
from alrun.report.run_figures import draw_boundary, scatter
from alrun.state import RunFolder, Saved, read_records
from alrun.training.model import restored

FIRST_QUERIES = 110
Curves = dict[str, np.ndarray]


def main() -> None:
    """Reads, prints, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a data set's folder of runs, e.g. outputs/checkerboard")
    parser.add_argument("target", type=Path, help="where the figures go")
    asked = parser.parse_args()
    runs = {
        strategy.name: sorted(path.parent for path in strategy.glob("seed*/rounds.csv"))
        for strategy in sorted(asked.folder.iterdir())
        if strategy.is_dir()
    }
    curves = {name: accuracies(folders) for name, folders in runs.items()}
    labels = np.array(
        [int(line["labeled"]) for line in read_records(next(iter(runs.values()))[0] / "rounds.csv")]
    )
    asked.target.mkdir(parents=True, exist_ok=True)
    print_table(labels, curves, runs)
    draw_curves(labels, curves, asked.target / "curves.png")
    if asked.folder.name == "checkerboard":
        draw_queries({name: folders[0] for name, folders in runs.items()}, asked.target / "queries.png")
    print(f"figures in {asked.target}")


def accuracies(folders: list[Path]) -> np.ndarray:
    """Test accuracy in percent, one row a seed, one column a round; only rounds that all seeds have."""
    lines = [
        [100 * float(line["accuracy"]) for line in read_records(path / "rounds.csv")] for path in folders
    ]
    return np.array([line[: min(map(len, lines))] for line in lines])


def print_table(labels: np.ndarray, curves: Curves, runs: dict[str, list[Path]]) -> None:
    """Mean and variance over seeds at each quarter of the labels; query seconds."""
    at = [round(share * (len(labels) - 1)) for share in (0.25, 0.5, 0.75, 1)]
    print(
        "strategy          seeds "
        + "".join(f"{labels[i]:>8} labels (var)" for i in at)
        + "   query s a round"
    )
    for name, values in curves.items():
        cells = "".join(f"{values[:, i].mean():>14.2f} ({values[:, i].var(ddof=1):5.2f})" for i in at)
        lines = [line for path in runs[name] for line in read_records(path / "rounds.csv")[1:]]
        seconds = np.mean([float(line["query_seconds"]) for line in lines])
        print(f"{name:<18}{len(values):>4}{cells}{seconds:>17.4f}")
    for name, values in curves.items():
        print(f"{name:<18} variance over seeds, mean of all rounds: {values.var(axis=0, ddof=1).mean():.2f}")


def draw_curves(labels: np.ndarray, curves: Curves, path: Path) -> None:
    """Accuracy with the band from the worst to the best seed, and its variance, against labels (figure 2)."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    top, bottom = figure.subplots(1, 2)
    for name, values in curves.items():
        (line,) = top.plot(labels, values.mean(axis=0), label=name)
        top.fill_between(labels, values.min(axis=0), values.max(axis=0), alpha=0.12, color=line.get_color())
        bottom.plot(labels, values.var(axis=0, ddof=1), label=name)
    top.set(xlabel="labels", ylabel="test accuracy (%)", title="mean, and band from worst to best seed")
    bottom.set(xlabel="labels", ylabel="variance of accuracy (%²)", title="variance over seeds")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    top.legend(frameon=False)
    save_figure(figure, path)


def draw_queries(folders: dict[str, Path], path: Path) -> None:
    """Pool, final decision boundary and the first 110 queries in yellow, a panel a strategy (figure 1)."""
    figure = Figure(figsize=(3.4 * len(folders), 3.7), layout="constrained")
    for axes, (name, folder) in zip(np.ravel(figure.subplots(1, len(folders))), folders.items(), strict=True):
        settings: Any = OmegaConf.to_container(OmegaConf.load(folder / "settings.yaml"))
        experiment, saved = assemble(settings), RunFolder(folder).load()
        data = experiment.dataset.load(Path(experiment.data_dir), experiment.stream("split"))
        assert not isinstance(experiment.model, FrozenHead)
        pool = Pool(Inputs(data.inputs), np.full(len(data.labels), NOT_BOUGHT, np.int64), data.classes)
        assert saved.weights is not None
        draw_boundary(axes, data, restored(experiment.model, pool, saved.weights, saved.facts))
        scatter(axes, data, np.arange(len(data.labels)), size=5)
        rows = queried(saved)[:FIRST_QUERIES]
        axes.scatter(*data.inputs[rows].T, c="#ffd500", s=26, edgecolors="black", linewidths=0.6)
        axes.set(title=f"{name}, first {len(rows)} queries", aspect="equal", xticks=[], yticks=[])
    save_figure(figure, path)


def queried(saved: Saved) -> list[int]:
    """Rows in the order in which they were queried, the first set left out."""
    return [row for batch in saved.purchases[1:] for row in batch["rows"]]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
