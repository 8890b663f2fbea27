"""What the ImageNet families share: weights from a file, the stored images in color, the frozen part."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from alrun.models.network import Adapt, Network, channels_first, enlarged
from alrun.pool import Moments

SMALLEST = 32
HEADS = ("classifier.", "fc.")
COUNTER = "num_batches_tracked"
SHOWN = 3


def require_file(pretrained: bool | str) -> None:
    """Refuses a weights file that is not there, before any work starts.

    Raises:
        FileNotFoundError: `pretrained` names a file and it does not exist.
    """
    if isinstance(pretrained, str) and not Path(pretrained).expanduser().is_file():
        raise FileNotFoundError(
            f"model.pretrained names a weights file that does not exist: {pretrained}; "
            "give the path of a state_dict in torchvision's naming, or model.pretrained=false"
        )


def color(
    shape: tuple[int, ...], moments: Moments, size: tuple[int, int], weights: WeightsEnum | None
) -> Adapt:
    """Stored images as three channels of this size, one gray channel repeated.

    Standardized by the mean and std of torchvision's weights, which want inputs in [0, 1], or else by the
    pool's moments.
    """
    if weights is None:
        return Adapt(shape, moments, (3, *size))
    preset = weights.transforms()
    own = Moments(np.array(preset.mean, np.float32), np.array(preset.std, np.float32))
    return Adapt(shape, own, (3, *size))


def size_for(shape: tuple[int, ...], image_size: int | None) -> tuple[int, int]:
    """Height and width the network gets: `image_size` squared, or the stored size, at least 32 a side."""
    _, height, width = channels_first(shape)
    return (image_size, image_size) if image_size is not None else enlarged((height, width), SMALLEST)


def joined(
    adapt: Adapt, convolution: nn.Module, rest: nn.Module, head: nn.Linear, *, freeze: bool
) -> Network:
    """The network of these parts, its convolutional part frozen or trained."""
    if freeze:
        return Network(adapt, convolution, rest, head)
    return Network(adapt, nn.Identity(), nn.Sequential(convolution, rest), head)


def load_weights(module: nn.Module, pretrained: bool | str, default: WeightsEnum, prefix: str) -> None:
    """Fills the module from a state_dict in torchvision's naming, where its entries begin with `prefix`.

    Entries of the classifying end are ignored; any other that is missing, left over (a deeper network's) or
    of another shape is refused. `pretrained` is a file, or True for `default`, which torch's cache holds or
    which is downloaded into it.

    Raises:
        FileNotFoundError: there is no such file, or it can neither be found in the cache nor downloaded.
        ValueError: the file is no state_dict, or one of another network.
    """
    require_file(pretrained)
    path = Path(pretrained).expanduser() if isinstance(pretrained, str) else _cached(default)
    state = {name: value for name, value in _read(path).items() if not name.startswith(HEADS)}
    wanted = {prefix + name: value for name, value in module.state_dict().items()}
    # Files older than torch 0.4.1 do not count batches, and a fixed momentum does not need it.
    state = {name: value for name, value in wanted.items() if name.endswith(COUNTER)} | state
    wrong = [f"missing {name}" for name in wanted if name not in state]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    wrong += [f"left over {name}" for name in state if name not in wanted]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(
            f"weights file {path} does not fit {type(default).__name__.removesuffix('_Weights')}: "
            f"{'; '.join(wrong[:SHOWN])}{more}; give torchvision's state_dict of this architecture"
        )
    module.load_state_dict({name.removeprefix(prefix): state[name] for name in wanted})


def _read(path: Path) -> Mapping[str, Tensor]:
    """The state_dict in a file, on the CPU; nothing in it is executed."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights file {path} must be a state_dict saved by torch.save, but cannot be read as one "
            f"({reason}); save it with torch.save(network.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ValueError(
            f"weights file {path} must hold a state_dict (names to tensors), got {type(state).__name__}; "
            "save it with torch.save(network.state_dict(), path)"
        )
    return state


def _cached(weights: WeightsEnum) -> Path:
    """The file of torchvision's weights in torch's cache, downloaded if it is not there yet."""
    name = weights.url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        begins = Path(name).stem.rsplit("-", 1)[1]
        torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=begins, progress=False)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"model.pretrained=true needs {name} and it could not be downloaded ({error}); "
            f"put {weights.url} into {path.parent}, or give model.pretrained=<file>"
        ) from error
    return path
