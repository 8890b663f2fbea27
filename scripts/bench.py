"""The engine against its peers, on this machine: one table, its CSV, and the scaling plots.

    uv run python scripts/bench.py                     all of it, about half an hour
    uv run python scripts/bench.py transport --quick   one room, small sizes

Seconds are CPU seconds with `--threads` threads (default 1); first calls compile. Peers come with `uv sync
--group peers`; those not installed are left out. Writes bench.csv, bench.png, scaling.csv and scaling.png to
--output (outputs/).
"""

import argparse
import csv
import os
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

ROOMS = ("neighbors", "diffusion", "coverage", "transport", "k_medoids")


def main() -> None:
    """Runs what the command line names."""
    arguments = parsed()
    for name in ("OMP", "MKL", "OPENBLAS"):  # before the libraries are loaded
        os.environ[f"{name}_NUM_THREADS"] = str(arguments.threads)
    fresh = TemporaryDirectory()  # so that first calls compile, as on a new machine
    os.environ["NUMBA_CACHE_DIR"] = fresh.name
    import faiss
    import torch

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    modules = [import_module(f"benches.{room}") for room in arguments.rooms]
    if arguments.what != "scaling":
        compare(modules, arguments.quick, arguments.output)
    if arguments.what != "table":
        scale(modules, arguments.quick, arguments.output)
    fresh.cleanup()


def compare(modules: list[ModuleType], quick: bool, output: Path) -> None:
    """The table: printed, as CSV and as a figure."""
    from benches.measure import measured
    from benches.show import draw_lines, table
    from rich.console import Console

    lines = []
    for contest in (contest for module in modules for contest in module.contests(quick)):
        print(f"{contest.item}, {contest.size} ...", flush=True)
        lines += measured(contest)
    Console(width=150).print(table(lines))
    write(output / "bench.csv", [asdict(line) for line in lines])
    draw_lines(lines, output / "bench.png")


def scale(modules: list[ModuleType], quick: bool, output: Path) -> None:
    """Seconds against n with the fitted slopes: printed, as CSV and as a figure."""
    from benches.measure import scaled
    from benches.show import draw_curves

    curves, records = [], []
    for scaling in (
        each for module in modules if hasattr(module, "scalings") for each in module.scalings(quick)
    ):
        seconds, slope = scaled(scaling)
        shown = ", ".join(f"{n:,}: {s:.3g} s" for n, s in zip(scaling.sizes, seconds, strict=True))
        print(f"{scaling.item}: {shown}; slope {slope:.2f}", flush=True)
        curves.append((scaling.item, scaling.sizes, seconds, slope))
        for n, s in zip(scaling.sizes, seconds, strict=True):
            records.append({"item": scaling.item, "n": n, "seconds": s, "slope": slope})
    write(output / "scaling.csv", records)
    draw_curves(curves, output / "scaling.png")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rooms", nargs="*", default=list(ROOMS), metavar="room", help=f"of {', '.join(ROOMS)}"
    )
    parser.add_argument("--what", choices=("all", "table", "scaling"), default="all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"rooms are {', '.join(ROOMS)}, got {', '.join(sorted(unknown))}")
    return arguments


def write(path: Path, records: list[dict[str, object]]) -> None:
    """A CSV file of records with the same keys."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


if __name__ == "__main__":
    main()
