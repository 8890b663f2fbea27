"""Features by a backbone trained on other images."""

import difflib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor, nn

from alrun.cache import Making
from alrun.config import content_digest
from alrun.features.encoding import encoded, require_unit_images
from alrun.features.featurizer import Embed
from alrun.models.encoded import ChannelsLast, Encoder
from alrun.models.network import Adapt
from alrun.models.pretrained import COUNTER, Weights, fetched, misfits, read_state, refusal, standard
from alrun.pool import Inputs, Pool

ENDS = ("classifier", "fc", "heads", "head")


@dataclass(frozen=True)
class Pretrained:
    """What a torchvision classifier's end receives, feature maps averaged over the image.

    Images are resized whole (bilinear, antialiased) to `image_size` squared, null for the size the weights
    were trained at; one gray channel is repeated; channels are standardized as the weights want it.
    512 numbers for SqueezeNet, ResNet-18 and VGG (whose maps are averaged before its hidden layers); a vision
    transformer's class token.

    Attributes:
        name: as in `torchvision.models.list_models(module=torchvision.models)`.
        weights: true for torchvision's ImageNet weights from torch's cache, or downloaded into it; or the
            path of a state_dict in torchvision's naming. Entries of the classifying end are not needed.
    """

    name: str
    weights: bool | str
    image_size: Annotated[int, Ge(1)] | None
    depends_on_model = False

    def __post_init__(self) -> None:
        """Refuses what cannot be loaded.

        Raises:
            ValueError: no such backbone, or no weights.
            FileNotFoundError: `weights` names a file that does not exist.
        """
        from torchvision import models

        known = models.list_models(module=models)
        if self.name not in known:
            close = difflib.get_close_matches(self.name, known, 1) or ["resnet18"]
            raise ValueError(f"featurizer.name is no backbone of torchvision: {self.name}; try {close[0]}")
        if self.weights is False:
            raise ValueError("featurizer.weights=false is a random network; use true (ImageNet), or a file")
        if isinstance(self.weights, str) and not Path(self.weights).expanduser().is_file():
            raise FileNotFoundError(
                f"featurizer.weights names a file that does not exist: {self.weights}; "
                "give the path of a state_dict in torchvision's naming"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that matter, weights by what is in them."""
        named = self._preset.url.rsplit("/", 1)[1] if isinstance(self.weights, bool) else None
        weights = named or content_digest(Path(str(self.weights)).expanduser())
        return {"name": self.name, "weights": weights, "image_size": self.image_size}

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """Features of all inputs, block by block.

        Raises:
            ValueError: the items are no gray or color images, or lie outside [0, 1]; the weights do not fit.
            FileNotFoundError: torchvision's weights are neither in the cache nor can they be downloaded.
        """
        del embed, rng
        encoder = self.encoder(making.folder, pool.inputs)
        return encoded(encoder, pool.inputs, making.epoch, making.folder)

    def encoder(self, folder: Path, inputs: Inputs) -> Encoder:
        """The backbone for items like these; nothing is read from the folder.

        Raises:
            ValueError: the items are no gray or color images, or lie outside [0, 1]; the weights do not fit.
            FileNotFoundError: torchvision's weights are neither in the cache nor can they be downloaded.
        """
        del folder
        require_unit_images(inputs, "pretrained")
        side = self.image_size or self._preset.transforms().crop_size[0]
        adapt = Adapt(inputs.shape, standard(self._preset), (3, side, side))
        backbone = ChannelsLast(self._backbone()).eval()
        with torch.inference_mode():
            width = backbone(torch.zeros(1, *adapt.out)).shape[1]
        return Encoder(adapt, backbone, width=width, widest=prod(adapt.out)).to(inputs.device)

    @property
    def _preset(self) -> Weights:
        from torchvision import models

        return models.get_model_weights(self.name).DEFAULT  # type: ignore[attr-defined]

    def _backbone(self) -> nn.Module:
        """The network up to its classifying end, in evaluation mode, with the weights."""
        from torchvision import models

        with torch.random.fork_rng([]):
            network = models.get_model(self.name, weights=None)
        end = _end(network)
        _require_size(network, self.image_size)
        path = self._file()
        state = {name: value for name, value in read_state(path).items() if not name.startswith(f"{end}.")}
        wanted = {
            name: value for name, value in network.state_dict().items() if not name.startswith(f"{end}.")
        }
        # Files older than torch 0.4.1 do not count batches.
        state = {name: value for name, value in wanted.items() if name.endswith(COUNTER)} | state
        if wrong := misfits(state, wanted):
            raise ValueError(
                f"{refusal(path, self.name, wrong)}; give torchvision's state_dict of this backbone, or the "
                "featurizer.name of the file's"
            )
        network.load_state_dict(state, strict=False)
        return without_end(network).eval()

    def _file(self) -> Path:
        if isinstance(self.weights, str):
            return Path(self.weights).expanduser()
        try:
            return fetched(self._preset.url)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"featurizer.weights=true needs {self._preset.url}, which is neither in torch's cache nor "
                f"could it be downloaded ({error.__cause__}); give featurizer.weights=<file>"
            ) from error


class _Averaged(nn.Module):
    """Feature maps averaged over the image; vectors as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x


def without_end(network: nn.Module) -> nn.Module:
    """The network, changed to give what its classifying end received, maps averaged over the image."""
    pool = getattr(network, "avgpool", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size not in (1, (1, 1)):
        # VGG and AlexNet flatten a map of several pixels
        network.avgpool = _Averaged()
        setattr(network, _end(network), nn.Identity())
    else:
        setattr(network, _end(network), _Averaged())
    return network


def _end(network: nn.Module) -> str:
    return next(name for name in ENDS if hasattr(network, name))


def _require_size(network: nn.Module, image_size: int | None) -> None:
    own = getattr(network, "image_size", None)
    if isinstance(own, int) and image_size not in (None, own):
        raise ValueError(
            f"{type(network).__name__} takes images of {own} pixels a side, got featurizer.image_size "
            f"{image_size}; leave it null"
        )
