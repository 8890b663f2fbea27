"""How near to the pool the core sets of several methods are, and how much is proven (S2, tables 1 and 2).

    python scripts/core_sets.py mnist 5000 10,20,40 --seconds 180 --methods wasserstein,wasserstein_eoc

Features are the 50 leading principal components of a data set in `data/`; every selection is priced by exact
transport. A line is one search: its objective after 1, 3 and 20 minutes (as far as it ran), bound and gap at
the end, and with --parts the seconds that its parts took. Lines are added to --out; --picture draws them.
"""

import argparse
import cProfile
import csv
import pstats
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from benches.core_set_figure import save_picture
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from jaxtyping import Float32
from numpy import ndarray
from omegaconf import OmegaConf

from alrun.cache import scratch
from alrun.coverage.k_center import k_center
from alrun.features.simple import Pca
from alrun.pool import NOT_BOUGHT, Inputs, Pool, stream
from alrun.wasserstein.ascent import Task
from alrun.wasserstein.descent import choice
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.medoids import medoids
from alrun.wasserstein.rules import Rules
from alrun.wasserstein.search import Limits, Search

MOMENTS = (60.0, 180.0, 1200.0)
PARTS = {
    "transport": ("semi_discrete.py", "transport"),
    "distances": ("distances.py", "between"),
    "lift": ("lift.py", "lifted"),
    "c_transform": ("c_transform.py", "c_transform"),
    "ascent": ("ascent.py", "climb"),
    "master": ("master.py", "solve"),
}


def settings(*overrides: str) -> dict[str, Any]:
    """The settings of alrun with these overrides."""
    with initialize_config_module("conf", version_base=None):
        found: Any = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    return found


def features_of(name: str, rows: int, seed: int) -> Float32[ndarray, "n 50"]:
    """Principal components of so many images, drawn by the seed."""
    source = settings(f"dataset={name}", f"dataset.pool_size={rows}")["dataset"]
    data = instantiate(source).load(Path("data"), stream(seed, "split"))
    pool = Pool(Inputs(data.inputs), np.full(len(data.labels), NOT_BOUGHT, np.int64), data.classes)
    with TemporaryDirectory() as folder:
        return Pca(50).make(pool, lambda rows: rows, stream(seed, "pca"), scratch(Path(folder)))


def searched(task: Task, method: str, seconds: float, seed: int) -> dict[str, Any]:
    """One search by a strategy's rules."""
    chosen = settings(f"strategy={method}")["strategy"]
    rules = Rules(**{name: chosen[name] for name in Rules.__dataclass_fields__})
    limits = Limits(seconds, None, chosen["gap"])
    found = Search(task, rules, limits, stream(seed, "search"), lambda record: None).run()
    line: dict[str, Any] = {"objective": found.choice.cost, "bound": found.bound, "gap": found.gap}
    for moment in MOMENTS:
        until = [record for record in found.records if record["seconds"] <= moment]
        if until and (seconds >= moment or found.stopped in ("gap", "optimal")):
            line |= {
                f"objective_{moment:.0f}s": until[-1]["objective"],
                f"gap_{moment:.0f}s": until[-1]["gap"],
            }
    return line | {"iterations": len(found.records) - 1, "stopped": found.stopped}


def chosen_by(task: Task, method: str, seed: int) -> dict[str, Any]:
    """The cost of a rival's selection."""
    rng = stream(seed, method)
    if method == "random":
        rows = rng.choice(task.candidates, task.free, replace=False)
    elif method == "coreset":
        rows, _ = k_center(task.ground.points, task.fixed, task.candidates, task.free)
    else:
        rows = medoids(task, rng, 3)
    return {"objective": choice(task, rows).cost}


def parts_of(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds inside the named functions, what they call included."""
    stats: Any = pstats.Stats(profile)
    return {
        f"{part}_seconds": round(
            sum(
                numbers[3]
                for (file, _, function), numbers in stats.stats.items()
                if function == name and file.endswith(end)
            ),
            2,
        )
        for part, (end, name) in PARTS.items()
    }


def main() -> None:
    """Searches, prints and adds lines to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", default="mnist")
    parser.add_argument("rows", type=int, nargs="?", default=5000)
    parser.add_argument("sizes", nargs="?", default="10,20,40", help="10,20,40")
    parser.add_argument("--methods", default="wasserstein,wasserstein_eoc,kmedoids,coreset,random")
    parser.add_argument("--metric", default="cosine", choices=["cosine", "euclidean"])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("outputs/core_sets.csv"))
    parser.add_argument("--picture", type=Path, help="draws all lines of --out here and searches nothing")
    asked = parser.parse_args()
    if asked.picture is not None:
        save_picture(asked.picture, list(csv.DictReader(asked.out.open())))
        return
    ground = Ground.of(features_of(asked.dataset, asked.rows, asked.seed), asked.metric)
    for size in map(int, asked.sizes.split(",")):
        task = Task(ground, np.empty(0, np.int64), np.arange(len(ground)), size)
        for method in asked.methods.split(","):
            begun, profile = time.perf_counter(), cProfile.Profile()
            with profile if asked.parts else TemporaryDirectory():
                if method.startswith("wasserstein"):
                    line = searched(task, method, asked.seconds, asked.seed)
                else:
                    line = chosen_by(task, method, asked.seed)
            line |= {"seconds": round(time.perf_counter() - begun, 1)} | (
                parts_of(profile) if asked.parts else {}
            )
            known = {name: getattr(asked, name) for name in ("dataset", "rows", "metric", "seed")}
            keep(asked.out, {**known, "size": size, "method": method, **line})


def keep(path: Path, line: dict[str, Any]) -> None:
    """Adds a line to the table, whose columns are those of all lines."""
    lines = list(csv.DictReader(path.open())) if path.exists() else []
    lines.append(line)
    names = list(dict.fromkeys(name for each in lines for name in each))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(lines)
    print(", ".join(f"{name} {value}" for name, value in line.items() if value is not None), flush=True)


if __name__ == "__main__":
    main()
