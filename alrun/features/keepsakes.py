"""What is kept of a trained encoder: its weights, a table of its epochs, and pictures that show a bad one."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from torch import nn

from alrun.files import atomic, save_figure, write_text
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.coder import Coding
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, Moments

SHOWN = 12
KINDS = {kind.__name__: kind for kind in (VaeNetwork, AutoencoderNetwork)}

CodeNetwork = VaeNetwork | AutoencoderNetwork
Records = list[dict[str, float]]


def keep_weights(folder: Path, network: nn.Module) -> None:
    """Writes `encoder.pt`, the network's state_dict."""
    with atomic(folder / "encoder.pt") as part:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, part)


def fill_weights(folder: Path, network: nn.Module) -> None:
    """Gives the network the weights that `keep_weights` wrote.

    Raises:
        OSError: the file is not there.
    """
    network.load_state_dict(torch.load(folder / "encoder.pt", map_location="cpu", weights_only=True))


def keep_codes(folder: Path, network: CodeNetwork, coding: Coding, scale: Moments) -> None:
    """Writes `encoder.pt` and `encoder.json` (what else `read_codes` needs)."""
    told = {
        "network": type(network).__name__,
        "coding": asdict(coding),
        "shape": list(network.coder.shape),
        "mean": scale.mean.tolist(),
        "std": scale.std.tolist(),
    }
    keep_weights(folder, network)
    write_text(folder / "encoder.json", json.dumps(told) + "\n")


def read_codes(folder: Path) -> CodeNetwork:
    """The network that `keep_codes` wrote, on the CPU, in evaluation mode.

    Raises:
        OSError: a file is not there.
    """
    told = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    scale = Moments(np.array(told["mean"], np.float32), np.array(told["std"], np.float32))
    with torch.random.fork_rng([]):
        network = KINDS[told["network"]](Coding(**told["coding"]), tuple(told["shape"]), scale)
    fill_weights(folder, network)
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def keep_curves(folder: Path, name: str, records: Records, drawn: Mapping[str, str]) -> None:
    """Writes `<name>.csv`, a line an epoch, and `<name>.png` of the columns `drawn`, by their words there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in record.items()} for record in records)
    write_text(folder / f"{name}.csv", text.getvalue())
    save_figure(curves(records, drawn), folder / f"{name}.png")


def keep_reconstructions(folder: Path, network: CodeNetwork, inputs: Inputs) -> None:
    """Writes of images `reconstructions.png`; samples come from torch's current generator."""
    if network.coder.canvas is not None:
        save_figure(reconstructions(network, inputs), folder / "reconstructions.png")


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
