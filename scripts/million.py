"""A pool of a million rows through `alrun strategy=dgal`, on the features as they are.

    uv run python scripts/million.py [--rows 1000000] [--width 64] [--folder /tmp/million]

Writes a Gaussian mixture as memory-mapped arrays, runs the command on it, and prints what the run recorded a
round, what was made once, its wall time and its peak memory beside the size of the pool.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from benches.measure import mixture
from rich.console import Console
from rich.table import Table

from alrun.state import read_records

SHOWN = (
    *("labeled", "accuracy", "query_seconds", "predict_seconds", "select_seconds", "candidates"),
    *("predicted", "first_unreached"),
)
TEST = 10_000


def main() -> None:
    """Makes the pool, runs the command, and prints its records."""
    asked = _parser().parse_args()
    folder = Path(asked.folder) / f"{asked.rows}x{asked.width}"
    write_pool(folder / "data", asked.rows, asked.width)
    words = [
        *("strategy=dgal", "dataset=arrays", f"dataset.path={folder / 'data'}", "featurizer=pixels"),
        *("strategy.first_size=1000", "budget.initial=100", "budget.per_round=100"),
        *("trainer.epochs=50", f"budget.rounds={asked.rounds}", f"output_dir={folder / 'outputs'}"),
        "tracker=none",
    ]
    console, began = Console(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "alrun.cli", *words], check=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    newest = max(folder.glob("outputs/arrays/dgal/*/rounds.csv"), key=lambda path: path.stat().st_mtime)
    records = read_records(newest)  # of a finished run, if nothing was left to do
    console.print(_table(records))
    once = {name: value for name, value in records[-1].items() if name.startswith("once_")}
    parts = [f"{name.removesuffix('_seconds')} {float(value):.1f} s" for name, value in once.items()]
    console.print(", ".join(parts))
    size = asked.rows * asked.width * 4 / 2**30
    console.print(f"{seconds:.0f} s in all, peak memory {peak:.2f} GiB, the pool itself {size:.2f} GiB")


def write_pool(folder: Path, rows: int, width: int) -> None:
    """`x_train.npy` and its companions, unless they are there with this shape."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "x_train.npy"
    if file.exists() and np.load(file, mmap_mode="r").shape == (rows, width):
        return
    points, classes = mixture(rows + TEST, width, np.random.default_rng(0))
    for name, part in (("test", slice(rows, None)), ("train", slice(rows))):
        np.save(folder / f"y_{name}.npy", classes[part])
        np.save(folder / f"x_{name}.npy", points[part])


def _table(records: list[dict[str, str]]) -> Table:
    table = Table(pad_edge=False)
    for name in SHOWN:
        table.add_column(name.removesuffix("_seconds").removeprefix("first_"), justify="right", no_wrap=True)
    for record in records:
        table.add_row(*(f"{float(record[name]):.4g}" if record.get(name) else "" for name in SHOWN))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--folder", default="/tmp/million")
    return parser


if __name__ == "__main__":
    main()
