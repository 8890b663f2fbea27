"""What is kept of a trained encoder so that it can be read back: its weights, and what codes mean."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from alrun.files import atomic, write_text
from alrun.models.autoencoder import AutoencoderNetwork
from alrun.models.coder import Coding
from alrun.models.s4_coder import S4Coding
from alrun.models.vae import VaeNetwork
from alrun.pool import Moments

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (VaeNetwork, AutoencoderNetwork, Coding, S4Coding)}

CodeNetwork = VaeNetwork | AutoencoderNetwork


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


def keep_codes(folder: Path, network: CodeNetwork, scale: Moments) -> None:
    """Writes `encoder.pt` and `encoder.json` (what else `read_codes` needs)."""
    told = {
        "network": type(network).__name__,
        "layers": type(network.coding).__name__,
        "coding": asdict(network.coding),
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
        coding = KINDS[told["layers"]](**told["coding"])
        network = KINDS[told["network"]](coding, tuple(told["shape"]), scale)
    fill_weights(folder, network)
    return network.to(memory_format=torch.channels_last).eval()
