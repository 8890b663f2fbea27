"""Seconds to select ten images against the size of the pool (S4, figure 6 and table 2).

    python scripts/asal_scale.py [--sizes 160000,500000,1600000,5000000,16000000] [--scanned 160000]

Pools of gray 28 x 28 images and of 50 features an image are written to files in `--folder` (984 bytes a row,
16 GB for 16 million) and taken away again. Networks are model=s4_cnn, generator=wgan_gp and S4's encoder with
a layer to 50 numbers, with weights by chance: only time is measured. The features of pool images are a
mixture of Gaussians. Each strategy selects by its own code; its files are not in memory before.

Beyond `--scanned` rows the strategies that send every image through the network are extrapolated: reading the
images is measured, and the network's seconds an image are those of the largest pool it was run on. Writes
s4_scale.csv and s4_scale.png, which mark these numbers, and prints the table with slopes in the logarithms.
`--clock cpu` counts the processor's seconds, which waiting for disks and for other programs is no part of.
"""

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benches.scale_figure import Line, print_table, save_picture
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from numpy import ndarray
from omegaconf import OmegaConf
from torch import nn

from alrun.cache import Making
from alrun.clock import Clock
from alrun.features.encoding import encoded
from alrun.features.featurizer import Embed
from alrun.generative.generator import Generator
from alrun.lifetime import Lifetime
from alrun.models.encoded import Encoder
from alrun.models.loss_predictor import LossPredictor
from alrun.models.maps import map_widths
from alrun.models.network import Adapt
from alrun.pool import Inputs, Moments, Pool, stream
from alrun.retrieval.projection import Projection
from alrun.rounds import Round, Work
from alrun.strategies.random import Random
from alrun.training.model import Model
from alrun.training.seeding import seeded

CPU = torch.device("cpu")
SHAPE, WIDTH, LABELED, SIZE = (28, 28), 50, 100, 10
PLAIN = Moments(np.zeros(1, np.float32), np.ones(1, np.float32))
SCANS = ("entropy", "learning_loss")
ENCODED = 20_000  # images on which the encoder's speed is measured
BLOCK, WARM = 100_000, 2000


@dataclass(frozen=True)
class Given:
    """Features that lie in a file, in the space of an encoder."""

    depends_on_model = False
    cached = False

    def make(self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making) -> ndarray:
        """None; they were put there."""
        raise ValueError("these features are given")

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """None; it was put there."""
        raise ValueError("this encoder is given")


class Parts:
    """Networks and strategies by the project's own settings."""

    def __init__(self) -> None:
        images = Inputs(np.zeros((2, *SHAPE), np.uint8))
        with seeded(np.random.default_rng(0), CPU):
            self.network = part("model", "model=s4_cnn").build(SHAPE, PLAIN, 10).eval()
            widths = map_widths(self.network, self.network.fixed(images.take(np.arange(1))))
            self.loss = LossPredictor(widths, 128).eval()
            self.generator: Generator = part("generator", "generator=wgan_gp").untrained(images)
            self.encoder = encoder()
        self.strategies: dict[str, Any] = {
            "random": Random(),
            "asal": part("strategy", "strategy=asal"),
            "coreset": part("strategy", "strategy=coreset", "strategy.space=features"),
            "entropy": part("strategy", "strategy=entropy"),
            "learning_loss": part("strategy", "strategy=learning_loss", "strategy.subset=null"),
        }

    def life(self, features: ndarray) -> Lifetime:
        """One in which all that is made once is there."""
        life = Lifetime(lambda *names: stream(0, *map(str, names)), Given(), None, CPU)
        life.once |= {"features": features, "encoder": self.encoder, "generator": self.generator}
        return life

    def round(self, number: int, images: ndarray, life: Lifetime) -> Round:
        """A round with a hundred labels bought."""
        inputs, labels = Inputs(images), np.full(len(images), -1, np.int64)
        bought = np.random.default_rng(0).choice(len(images), LABELED, replace=False)
        labels[bought] = np.arange(LABELED) % 10
        pool = Pool(inputs, labels, 10)
        model = Model(self.network, inputs, {}, nn.ModuleDict({"learning_loss": self.loss}))
        work = Work(Clock(CPU), lambda rows: rows * 0, SIZE)
        return Round(number, pool, pool.unlabeled, model, stream(0, "select", number), life, work)


def main() -> None:
    """Makes the files, measures, writes the table and the figure."""
    asked = parser().parse_args()
    sizes = sorted(int(size) for size in asked.sizes.split(","))
    folder = Path(asked.folder)
    folder.mkdir(parents=True, exist_ok=True)
    images, points = folder / "images.npy", folder / "points.npy"
    try:
        write_images(images, sizes[-1])
        write_points(points, sizes[-1])
        parts = Parts()
        list(measured(parts, images, points, [WARM], WARM))  # compiles
        lines = list(measured(parts, images, points, sizes, max(asked.scanned, sizes[0])))
    finally:
        for file in (images, points):
            file.unlink(missing_ok=True)
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "s4_scale.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Line._fields)
        writer.writerows(lines)
    shown = [line._replace(seconds=line.cpu_seconds) if asked.clock == "cpu" else line for line in lines]
    print_table(shown)
    save_picture(out / "s4_scale.png", shown, asked.training_hours)


def measured(parts: Parts, images: Path, points: Path, sizes: list[int], scanned: int) -> Iterator[Line]:
    """Lines of all strategies and sizes; what is made once as `once: ...`."""
    pace: dict[str, tuple[float, float]] = {}
    for n in sizes:
        yield from preparing(parts, images, points, n)
        for name, strategy in parts.strategies.items():
            if name in SCANS and n > scanned:
                continue
            life = parts.life(fresh(points, n))
            if name == "asal":  # the index is made once, in the first round
                strategy.select(parts.round(1, fresh(images, n), life), SIZE)
            current = parts.round(2, fresh(images, n), life)
            line = Line(name, n, *timed(lambda who=strategy, at=current: who.select(at, SIZE)), "measured")
            yield told(line)
            if name in SCANS:
                pace[name] = line.seconds / n, line.cpu_seconds / n  # reading included, a thousandth of it
        if n > scanned:
            wall, cpu = timed(lambda n=n: read(fresh(images, n)))
            yield told(Line("read images", n, wall, cpu, "measured"))
            for name in SCANS:
                more, busy = (each * n for each in pace[name])
                kind = "network extrapolated, reading measured"
                yield told(Line(name, n, wall + more, cpu + busy, kind))


def preparing(parts: Parts, images: Path, points: Path, n: int) -> Iterator[Line]:
    """What ASAL needs once: features of all images (speed measured on some), projection and index."""
    wall, cpu = timed(lambda: encoded(parts.encoder, Inputs(fresh(images, min(n, ENCODED)))))
    share, kind = n / min(n, ENCODED), f"extrapolated from {min(n, ENCODED)} images"
    yield told(Line("once: features", n, wall * share, cpu * share, kind))
    asal, features = parts.strategies["asal"], fresh(points, n)

    def index() -> object:
        return asal.retrieval.over(Projection.of(features, asal.dims).apply(features))

    yield told(Line("once: projection and index", n, *timed(index), "measured"))


def told(line: Line) -> Line:
    """The line, once it is said."""
    print(
        f"{line.name}, {line.rows:,} rows: {line.seconds:.4g} s ({line.cpu_seconds:.4g} of CPU)", flush=True
    )
    return line


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and seconds of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def fresh(file: Path, n: int) -> ndarray:
    """The first n rows, as a memory map whose file is not in memory any more."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return np.load(file, mmap_mode="r")[:n]


def read(images: ndarray) -> int:
    """All images as the network's scan takes them."""
    inputs = Inputs(images)
    return sum(int(inputs.take(rows)[:, 0, 0].sum()) for rows in inputs.blocks())


def part(group: str, *overrides: str) -> Any:
    """One instantiated part of the composed settings."""
    with initialize_config_module("alrun.conf", version_base="1.3"):
        settings = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return instantiate(settings[group], _convert_="all")  # type: ignore[index]


def encoder() -> Encoder:
    """S4's encoder of gray images (table 4), and a layer to as many numbers as the features in the file."""
    layers: list[nn.Module] = []
    for before, after in ((1, 3), (3, 6), (6, 12)):
        layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
    adapt = Adapt(SHAPE, PLAIN, (1, *SHAPE))
    stack = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, WIDTH))
    return Encoder(adapt, stack, width=WIDTH, widest=28 * 28)


def write_images(file: Path, n: int) -> None:
    """Images by chance; what they show takes no time."""
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(n, *SHAPE))
    rng = np.random.default_rng(0)
    some = rng.integers(256, size=(BLOCK, *SHAPE), dtype=np.uint8)
    for start in range(0, n, BLOCK):
        block = out[start : start + BLOCK]
        block[:] = np.roll(some, int(rng.integers(28)), axis=2)[: len(block)]
    out.flush()


def write_points(file: Path, n: int) -> None:
    """A mixture of a thousand Gaussians."""
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(n, WIDTH))
    rng = np.random.default_rng(0)
    centers = 3 * rng.standard_normal((1000, WIDTH), dtype=np.float32)
    for start in range(0, n, BLOCK):
        block = out[start : start + BLOCK]
        block[:] = centers[rng.integers(1000, size=len(block))]
        block += rng.standard_normal(block.shape, dtype=np.float32)
    out.flush()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--sizes", default="160000,500000,1600000,5000000,16000000")
    made.add_argument("--scanned", type=int, default=160_000, help="largest pool that the network scans")
    made.add_argument("--training-hours", type=float, default=26.6, help="S4's for GAN and autoencoder")
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    made.add_argument("--folder", default="/tmp/asal_scale")
    made.add_argument("--out", default="outputs")
    return made


if __name__ == "__main__":
    main()
