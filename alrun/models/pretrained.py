"""What the ImageNet families share: weights from a file, the stored images in color, the frozen part."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from alrun.models.network import Adapt, Network, channels_first, enlarged
from alrun.pool import Moments

SMALLEST = 32
HEADS = ("classifier.", "fc.")
COUNTER = "num_batches_tracked"
SHOWN = 3
# What torch raises for bytes that hold no tensors, or that it will not load.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, OSError)


@runtime_checkable
class Weights(Protocol):
    """Weights that torchvision can download, a member of one of its `WeightsEnum`s.

    torchvision is imported where a network of its is built: its import takes seconds.
    """

    @property
    def url(self) -> str:
        """Where they come from."""
        ...

    @property
    def transforms(self) -> Callable[[], Any]:
        """Makes what prepares images for them."""
        ...


def require_file(
    pretrained: bool | str, naming: str = "torchvision", setting: str = "model.pretrained"
) -> None:
    """Refuses a weights file that is not there, before any work starts; `naming` is whose names it must use.

    Raises:
        FileNotFoundError: `pretrained` names a file and it does not exist.
    """
    if isinstance(pretrained, str) and not Path(pretrained).expanduser().is_file():
        raise FileNotFoundError(
            f"{setting} names a weights file that does not exist: {pretrained}; "
            f"give the path of a state_dict in {naming}'s naming, or {setting}=false"
        )


def standard(weights: Weights) -> Moments:
    """Mean and std that torchvision's weights want of inputs in [0, 1]."""
    preset = weights.transforms()
    return Moments(np.array(preset.mean, np.float32), np.array(preset.std, np.float32))


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


def load_weights(module: nn.Module, pretrained: bool | str, default: Weights, prefix: str) -> None:
    """Fills the module from a state_dict in torchvision's naming, where its entries begin with `prefix`.

    Entries of the classifying end are ignored; any other that is missing, left over (a deeper network's) or
    of another shape is refused. `pretrained` is a file, or True for `default`, which torch's cache holds or
    which is downloaded into it.

    Raises:
        FileNotFoundError: there is no such file, or it can neither be found in the cache nor downloaded.
        ValueError: the file is no state_dict, or one of another network.
    """
    require_file(pretrained)
    path = Path(pretrained).expanduser() if isinstance(pretrained, str) else fetched(default.url)
    state = {name: value for name, value in read_state(path).items() if not name.startswith(HEADS)}
    wanted = {prefix + name: value for name, value in module.state_dict().items()}
    # Files older than torch 0.4.1 do not count batches, and a fixed momentum does not need it.
    state = {name: value for name, value in wanted.items() if name.endswith(COUNTER)} | state
    if wrong := misfits(state, wanted):
        network = type(default).__name__.removesuffix("_Weights")
        raise ValueError(
            f"{refusal(path, network, wrong)}; give torchvision's state_dict of this architecture"
        )
    module.load_state_dict({name.removeprefix(prefix): state[name] for name in wanted})


def misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What keeps a state from being the wanted one: entries of another shape, missing or left over."""
    wrong = [f"missing {name}" for name in wanted if name not in state]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    return wrong + [f"left over {name}" for name in state if name not in wanted]


def refusal(path: Path, network: str, wrong: list[str]) -> str:
    """Says that a file is of another network, by the first of its misfits."""
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return f"weights file {path} does not fit {network}: {'; '.join(wrong[:SHOWN])}{more}"


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The state_dict in a `.safetensors` file or one saved by torch, on the CPU; nothing in it is executed.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        state: Any = _loaded(path)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights file {path} must be a state_dict saved by torch.save (or .safetensors), but "
            f"cannot be read as one ({reason}); save it with torch.save(network.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ValueError(
            f"weights file {path} must hold a state_dict (names to tensors), got {type(state).__name__}; "
            "save it with torch.save(network.state_dict(), path)"
        )
    return state


def _loaded(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path, device="cpu")
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return torch.load(path, map_location="cpu", weights_only=True)


def fetched(url: str) -> Path:
    """The file of this address in torch's cache, downloaded if it is not there yet; its name ends in a hash.

    Raises:
        FileNotFoundError: it is not in the cache and cannot be downloaded.
    """
    name = url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        begins = Path(name).stem.rsplit("-", 1)[1]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=begins, progress=False)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"model.pretrained=true needs {name} and it could not be downloaded ({error}); "
            f"put {url} into {path.parent}, or give model.pretrained=<file>"
        ) from error
    return path
