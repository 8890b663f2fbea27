"""torchvision's networks as bodies: local or cached weights, frozen or not."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from alrun.models.network import IMAGENET, Adapt, Network
from alrun.pool import Moments

SMALLEST = 32
HEADS = ("fc.", "classifier.")


def load(network: nn.Module, name: str, pretrained: bool | str) -> None:
    """Puts weights into a torchvision network; its own classifier's are left out.

    `pretrained` is False (nothing), True (torchvision's default ImageNet weights, cached or downloaded) or a
    local state_dict file in torchvision's naming.

    Raises:
        FileNotFoundError: no such file, or no cached weights and no network.
        ValueError: a file that is no state_dict, or whose entries do not fit.
    """
    if pretrained is False:
        return
    source = f"torchvision's weights for {name}" if pretrained is True else str(pretrained)
    weights = _downloaded(name) if pretrained is True else _read(Path(str(pretrained)))
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(HEADS)}
    wrong = [
        key
        for key, value in own.items()
        if not key.endswith("num_batches_tracked") and getattr(weights.get(key), "shape", None) != value.shape
    ]
    if wrong:
        raise ValueError(
            f"model.pretrained: {source} does not fit {name}: {', '.join(wrong[:3])} missing or of another "
            f"shape ({len(wrong)} in all); give a state_dict of torchvision.models.{name}"
        )
    network.load_state_dict({key: weights.get(key, value) for key, value in own.items()}, strict=False)


def adapted(shape: tuple[int, ...], moments: Moments, side: int, pretrained: bool | str) -> Adapt:
    """Three channels of `side` pixels, standardized as the weights were trained, or by the pool's moments."""
    if pretrained is not False:
        return Adapt(IMAGENET, 3, side)
    three = Moments(*(np.broadcast_to(part, 3).copy() for part in moments)) if len(moments.mean) == 1 else moments
    del shape
    return Adapt(three, 3, side)


def assembled(
    adapt: Adapt, convolutions: nn.Module, hidden: tuple[nn.Module, int], classes: int, freeze: bool
) -> Network:
    """Convolutions (frozen or trainable), hidden layers and their width, and a last linear layer."""
    layers, width = hidden
    head = nn.Linear(width, classes)
    if freeze:
        return Network(adapt, convolutions, layers, head)
    return Network(adapt, nn.Identity(), nn.Sequential(convolutions, layers), head)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"model.pretrained: no file {path}; give a state_dict file, true or false")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"model.pretrained: {path} is no weights file ({type(error).__name__})") from None
    except Exception as error:
        # torch.load raises the pickle module's own errors for foreign or unsafe content
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(f"model.pretrained: {path} is no plain weights file; pickled objects are refused") from None
    if not isinstance(weights, dict):
        raise ValueError(f"model.pretrained: {path} holds a {type(weights).__name__}, not a state_dict")
    return weights


def _downloaded(name: str) -> dict[str, Any]:
    weights = get_model_weights(name).DEFAULT
    try:
        return dict(get_model(name, weights=weights).state_dict())
    except (URLError, OSError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
        raise FileNotFoundError(
            f"model.pretrained: no cached weights and no download ({error}); put torchvision's file at {place} "
            "or give model.pretrained=<file>"
        ) from None
