"""Pictures and tables that show how a generator's training went; no number of it follows from them."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from alrun.files import save_figure, write_text
from alrun.generative.variety import Variety
from alrun.sheets import sheet

VERSIONED = False  # see alrun.code

COLUMNS = 12
LOSSES = {
    "gap": "critic: real − generated",
    "penalty": "gradient penalty",
    "consistency": "consistency term",
    "generator": "generator's loss",
}
VARIETY = {"spread": "spread", "nearness": "distance to the nearest real", "reach": "reach"}

Images = Float32[ndarray, " b *stored"]
Records = Sequence[Mapping[str, float]]


def keep_losses(folder: Path, records: Records) -> None:
    """Writes `losses.csv`, a line a block of iterations, and `losses.png`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in record.items()} for record in records)
    write_text(folder / "losses.csv", text.getvalue())
    figure = Figure(figsize=(7, 5), layout="constrained")
    losses, varieties = figure.subplots(2, 1, sharex=True)
    _lines(losses, records, LOSSES)
    losses.set(ylabel="mean of a block")
    losses.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    _lines(varieties, records, VARIETY)
    varieties.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    varieties.set(xlabel="iterations of the generator", ylabel="beside the pool's", ylim=(0, None))
    save_figure(figure, folder / "losses.png")


def keep_samples(folder: Path, pool: Float32[ndarray, " k *stored"], drawn: Images) -> None:
    """Writes `samples.png`: a row of the pool's images above rows of generated ones."""
    lines = {"pool": pool[:COLUMNS]}
    for start in range(0, len(drawn) - COLUMNS + 1, COLUMNS):
        lines[f"drawn {start // COLUMNS + 1}"] = drawn[start : start + COLUMNS]
    save_figure(sheet(_even(lines)), folder / "samples.png")


def keep_stages(folder: Path, stages: Mapping[int, Images]) -> None:
    """Writes `stages.png`: what became of the same latents after so many iterations."""
    lines = {f"{done:,}": images[:COLUMNS] for done, images in stages.items()}
    save_figure(sheet(_even(lines)), folder / "stages.png")


def keep_variety(folder: Path, found: Variety) -> None:
    """Writes `diversity.png`: distances of pairs, and to the nearest real image, of both kinds of images."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    pairs, nearest = figure.subplots(1, 2)
    numbers = found.numbers
    _histograms(pairs, {"generated": found.generated, "pool": found.real})
    pairs.set(xlabel="distance of a pair", ylabel="share", title=f"spread {numbers['spread']:.2f}")
    _histograms(nearest, {"generated": found.nearest, "pool": found.real_nearest})
    nearest.set(
        xlabel="distance to the nearest of other pool images",
        title=f"nearness {numbers['nearness']:.2f}, reach {numbers['reach']:.2f}",
    )
    pairs.legend()
    save_figure(figure, folder / "diversity.png")


def _lines(axes: Axes, records: Records, drawn: Mapping[str, str]) -> None:
    places = [record["iteration"] for record in records]
    for name, label in drawn.items():
        if name in records[0]:
            axes.plot(places, [record[name] for record in records], label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _histograms(axes: Axes, distances: Mapping[str, Float32[ndarray, " p"]]) -> None:
    both = np.concatenate(list(distances.values()))
    edges = np.linspace(0, max(float(both.max()), 1e-6), 41).tolist()
    for name, values in distances.items():
        axes.hist(values, edges, weights=np.full(len(values), 1 / len(values)), alpha=0.6, label=name)


def _even(lines: Mapping[str, Images]) -> dict[str, Images]:
    """Lines of the same length: that of the shortest."""
    width = min(len(line) for line in lines.values())
    return {name: line[:width] for name, line in lines.items()}
