"""Pictures and tables that show how an encoder's training went; no feature follows from them."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from torch import Tensor

from alrun.features.keepsakes import CodeNetwork
from alrun.files import save_figure, write_text
from alrun.generative.generator import Generator
from alrun.models.encoded import Encoder
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs
from alrun.sheets import sheet
from alrun.training.views import Views, unit

VERSIONED = False  # see alrun.code
SHOWN = 12
CURVES = {
    "elbo": {"elbo": "−ELBO", "reconstruction": "squared error", "kl": "divergence, nats"},
    "simclr": {"loss": "NT-Xent loss", "positive": "similarity of two views"},
    "fdal": {
        "source_loss": "cross-entropy on the source",
        "discrepancy": "discrepancy of source and pool",
        "source_accuracy": "accuracy on the source",
    },
    "inversion": {
        "latents": "squared error of latents",
        "pixels": "squared error of pixels",
        "spread": "mean square of the pool's latents",
    },
}

Curve = Literal["elbo", "simclr", "fdal", "inversion"]
Records = list[dict[str, float]]


def keep_curves(folder: Path, name: Curve, records: Records) -> None:
    """Writes `<name>.csv`, a line an epoch, and `<name>.png` of some of its columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in record.items()} for record in records)
    write_text(folder / f"{name}.csv", text.getvalue())
    save_figure(curves(records, CURVES[name]), folder / f"{name}.png")


def keep_reconstructions(folder: Path, network: CodeNetwork, inputs: Inputs) -> None:
    """Writes of images `reconstructions.png`; samples come from torch's current generator."""
    if network.coder.canvas is not None:
        save_figure(reconstructions(network, inputs), folder / "reconstructions.png")


def keep_views(folder: Path, views: Views, inputs: Inputs) -> None:
    """Writes `views.png`: images of the pool above two views of each, by torch's current generator."""
    images = unit(inputs.take(shown_rows(inputs)))
    lines = {"pool": images, "view": views.of(images), "another": views.of(images)}
    save_figure(sheet({name: line.cpu().numpy() for name, line in lines.items()}), folder / "views.png")


@torch.no_grad()
def keep_inversions(
    folder: Path, encoder: Encoder, generator: Generator, inputs: Inputs, rng: np.random.Generator
) -> None:
    """Writes `reconstructions.png`: images of the pool and drawn ones, each above what is drawn of them."""
    images = unit(inputs.take(shown_rows(inputs)))
    drawn = unit(generator.images(generator.draw(len(images), rng)))

    def again(seen: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b c h w"]:
        return unit(generator.images(encoder(seen)))

    lines = {"pool": images, "of its latents": again(images), "drawn": drawn, "drawn again": again(drawn)}
    figure = sheet({name: line.cpu().numpy() for name, line in lines.items()})
    save_figure(figure, folder / "reconstructions.png")


def curves(records: Records, drawn: Mapping[str, str]) -> Figure:
    """These columns against epochs, by their size; those that are 0 throughout are left out."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    epochs = [record["epoch"] for record in records]
    for name, label in drawn.items():
        values = [abs(record[name]) for record in records]
        if any(values):
            axes.plot(epochs, values, label=label, marker="." if len(records) < SHOWN else "")
    axes.set(xlabel="epoch", ylabel="mean over items", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def shown_rows(inputs: Inputs) -> ndarray:
    """Up to twelve rows spread over the pool."""
    return np.unique(np.linspace(0, len(inputs) - 1, SHOWN).astype(np.int64))


@torch.no_grad()
def reconstructions(network: CodeNetwork, inputs: Inputs) -> Figure:
    """Items of the pool, what the decoder makes of them, and samples from a VAE's prior."""
    network.eval()
    x = inputs.take(shown_rows(inputs))
    coder = network.coder
    lines = {"pool": coder.stored(coder.scaled(x)), "decoded": network.reconstruct(x)}
    if isinstance(network, VaeNetwork):
        z = torch.randn(len(x), network.latent, device=inputs.device)
        lines["prior"] = coder.stored(network.decode(z))
    return sheet({name: line.cpu().numpy() for name, line in lines.items()})
