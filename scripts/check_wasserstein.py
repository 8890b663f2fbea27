"""Searches for Wasserstein core sets against every selection of small pools (ALGORITHMS 3.8).

    python scripts/check_wasserstein.py
    python scripts/check_wasserstein.py --seeds 1

For seeds 0 to 7 (or fewer), 12 normal points in the plane, 2 to 4 columns, both metrics, with and without a
labeled row, and every variant of the search: the optimum is found and proven, every iteration stands between
bounds that hold, and every cut of every kind holds at every selection, as priced by POT. Prints a line a
variant; ends with status 1 if anything is wrong. Takes ten minutes.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from every_selection import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    VARIANTS,
    Priced,
    audited,
    distances,
    pool,
    task_of,
)

SEEDS, SIZES = 8, (2, 3, 4)
METRICS, LABELED = ("euclidean", "cosine"), ((), (3,))


def main() -> int:
    """All variants on all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = range(parser.parse_args().seeds)
    shown = Table(title="12 points, 2 to 4 columns")
    for name in ("variant", "cases", "iterations: mean", "most", "cuts held against all", "wrong"):
        shown.add_column(name, justify="left" if name == "variant" else "right")
    cases = [
        (points, metric, size, fixed, Priced.of(distances(points, metric), size, fixed))
        for points, metric, size, fixed in itertools.product(map(pool, seeds), METRICS, SIZES, LABELED)
    ]
    wrong: list[str] = []
    for name, rules in VARIANTS.items():
        audits = [
            audited(priced, task_of(points, metric, size, fixed), rules)
            for points, metric, size, fixed, priced in cases
        ]
        steps = [len(each.found.records) - 1 for each in audits]
        faults = [fault for each in audits for fault in each.wrong]
        checked = sum(each.cuts for each in audits)
        shown.add_row(
            name, *map(str, (len(cases), round(np.mean(steps), 1), max(steps), checked, len(faults)))
        )
        wrong += [f"{name}: {fault}" for fault in faults]
    console = Console(width=110)
    console.print(shown)
    for fault in wrong[:20]:
        console.print(fault)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
