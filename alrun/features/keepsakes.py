"""What is kept of a trained encoder: its weights, a table of its epochs, and pictures that show a bad one."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from alrun.files import atomic, save_figure, write_text
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.coder import Coding
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, Moments

SHOWN = 12
KINDS = {kind.__name__: kind for kind in (VaeNetwork, AutoencoderNetwork)}

Encoder = VaeNetwork | AutoencoderNetwork
Records = list[dict[str, float]]


def keep_encoder(folder: Path, network: Encoder, coding: Coding, scale: Moments) -> None:
    """Writes `encoder.pt` (a state_dict) and `encoder.json` (what else `read_encoder` needs)."""
    told = {
        "network": type(network).__name__,
        "coding": asdict(coding),
        "shape": list(network.coder.shape),
        "mean": scale.mean.tolist(),
        "std": scale.std.tolist(),
    }
    with atomic(folder / "encoder.pt") as part:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, part)
    write_text(folder / "encoder.json", json.dumps(told) + "\n")


def read_encoder(folder: Path) -> Encoder:
    """The network that `keep_encoder` wrote, on the CPU, in evaluation mode.

    Raises:
        OSError: a file is not there.
    """
    told = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    scale = Moments(np.array(told["mean"], np.float32), np.array(told["std"], np.float32))
    with torch.random.fork_rng([]):
        network = KINDS[told["network"]](Coding(**told["coding"]), tuple(told["shape"]), scale)
    network.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def keep_table(folder: Path, records: Records) -> None:
    """Writes `elbo.csv`, a line an epoch.

    Seconds; items per second; means over the items of the ELBO (without its constant), the squared error and
    the divergence in nats; and how many of the code's numbers have a variance above 0.01 among items.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in record.items()} for record in records)
    write_text(folder / "elbo.csv", text.getvalue())


def keep_pictures(folder: Path, network: Encoder, inputs: Inputs, records: Records) -> None:
    """Writes `elbo.png`, and of images `reconstructions.png`; samples come from torch's current generator."""
    save_figure(curve(records), folder / "elbo.png")
    if network.coder.canvas is not None:
        save_figure(reconstructions(network, inputs), folder / "reconstructions.png")


def curve(records: Records) -> Figure:
    """The loss and its terms against epochs."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    epochs = [record["epoch"] for record in records]
    for name, label in (("elbo", "−ELBO"), ("reconstruction", "squared error"), ("kl", "divergence, nats")):
        values = [abs(record[name]) for record in records]
        if any(values):
            axes.plot(epochs, values, label=label, marker="." if len(records) < SHOWN else "")
    axes.set(xlabel="epoch", ylabel="mean over items", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@torch.no_grad()
def reconstructions(network: Encoder, inputs: Inputs) -> Figure:
    """Twelve items spread over the pool, what the decoder makes of them, and samples from a VAE's prior."""
    network.eval()
    rows = np.unique(np.linspace(0, len(inputs) - 1, SHOWN).astype(np.int64))
    x = inputs.take(rows)
    coder = network.coder
    lines = {"pool": coder.stored(coder.scaled(x)), "decoded": network.reconstruct(x)}
    if isinstance(network, VaeNetwork):
        z = torch.randn(len(rows), network.code(x).shape[1], device=inputs.device)
        lines["prior"] = coder.stored(network.decode(z))
    images = np.stack([_channels_last(line.cpu().numpy()) for line in lines.values()])
    low, high = min(0.0, images[0].min()), max(1.0, images[0].max())
    sheet = _sheet(np.clip((images - low) / (high - low), 0, 1))
    side = sheet.shape[0] / len(lines)
    figure = Figure(figsize=(0.8 * len(rows) + 0.8, 0.8 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    axes.set(xticks=[], yticks=[side * (line + 0.5) for line in range(len(lines))], yticklabels=list(lines))
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    return figure


def _channels_last(images: Float32[ndarray, " b *stored"]) -> Float32[ndarray, "b h w 3"]:
    """Gray images in three channels, color ones without a fourth."""
    images = images[:, None] if images.ndim == 3 else images
    return np.moveaxis(np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images[:, :3], 1, -1)


def _sheet(images: Float32[ndarray, "lines columns h w 3"]) -> Float32[ndarray, "H W 3"]:
    """All images on one white sheet, with gaps of a sixteenth of their height."""
    lines, columns, height, width, _ = images.shape
    gap = max(1, height // 16)
    bordered = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1)
    return bordered.swapaxes(1, 2).reshape(lines * (height + gap), columns * (width + gap), 3)
