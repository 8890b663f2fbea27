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

from alrun.features.keepsakes import CodeNetwork
from alrun.files import save_figure, write_text
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs
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
}

Records = list[dict[str, float]]


def keep_curves(folder: Path, name: Literal["elbo", "simclr", "fdal"], records: Records) -> None:
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


def sheet(lines: Mapping[str, Float32[ndarray, " b *stored"]]) -> Figure:
    """Images in rows under each other, named at the left, all on the gray scale of the first row."""
    images = np.stack([_channels_last(line) for line in lines.values()])
    low, high = min(0.0, images[0].min()), max(1.0, images[0].max())
    whole = _joined(np.clip((images - low) / (high - low), 0, 1))
    side = whole.shape[0] / len(lines)
    figure = Figure(figsize=(0.8 * images.shape[1] + 0.8, 0.8 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(whole, interpolation="nearest")
    axes.set(xticks=[], yticks=[side * (line + 0.5) for line in range(len(lines))], yticklabels=list(lines))
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    return figure


def _channels_last(images: Float32[ndarray, " b *stored"]) -> Float32[ndarray, "b h w 3"]:
    """Gray images in three channels, color ones without a fourth."""
    images = images[:, None] if images.ndim == 3 else images
    return np.moveaxis(np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images[:, :3], 1, -1)


def _joined(images: Float32[ndarray, "lines columns h w 3"]) -> Float32[ndarray, "H W 3"]:
    """All images on one white sheet, with gaps of a sixteenth of their height."""
    lines, columns, height, width, _ = images.shape
    gap = max(1, height // 16)
    bordered = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1)
    return bordered.swapaxes(1, 2).reshape(lines * (height + gap), columns * (width + gap), 3)
