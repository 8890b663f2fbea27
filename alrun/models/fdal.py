"""The network of f-DAL: an encoder, a head, and an auxiliary head that tells two domains apart."""

from dataclasses import asdict, dataclass
from math import log, prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from alrun.config import content_digest
from alrun.models.encoded import ChannelsLast, Encoder
from alrun.models.mlp import connected
from alrun.models.network import Adapt, channels_first
from alrun.models.pretrained import Weights, load_weights, require_file, size_for, standard
from alrun.models.resnet import SMALL_SIDE, imagenet, residual, widest
from alrun.models.trunk import Trunk
from alrun.models.view import View
from alrun.pool import Inputs

Divergence = Literal["pearson", "jensen_shannon"]

SETTING = "featurizer.backbone.pretrained"
DEPTHS: dict[str, Literal[18, 34, 50]] = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
# First weights of the public Office-31 demo, which has them from MDD (Zhang et al. 2019).
BOTTLENECK_STD, BOTTLENECK_BIAS, HEAD_STD = 0.005, 0.1, 0.01


@dataclass(frozen=True)
class Backbone:
    """What stands before the bottleneck.

    Attributes:
        kind: torchvision's residual network, averaged over the image (with a small stem for sides up to 64 if
            it is not pretrained), or connected ReLU layers on standardized, flattened items; `auto` is
            resnet50 for images and mlp for others.
        pretrained: false, true (torchvision's ImageNet weights) or the path of a state_dict; of residual
            networks.
        hidden: widths of the layers of mlp; without any the bottleneck stands on the items themselves.
        crop: side in pixels of what a residual network sees of an image, see `View`; null for all of it.
        flip: whether it is mirrored by chance while training.
    """

    kind: Literal["auto", "resnet18", "resnet34", "resnet50", "mlp"]
    pretrained: bool | str
    hidden: list[Annotated[int, Ge(1)]]
    crop: Annotated[int, Ge(32)] | None
    flip: bool

    def __post_init__(self) -> None:
        """Refuses weights that nothing would read.

        Raises:
            ValueError: `pretrained` for an mlp.
            FileNotFoundError: `pretrained` names a file that does not exist.
        """
        if self.kind == "mlp":
            self._require_none("featurizer.backbone.kind=mlp has none")
        require_file(self.pretrained, setting=SETTING)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that matter, weights by what is in them."""
        return {**asdict(self), "pretrained": self._weights}

    @property
    def _weights(self) -> bool | str:
        if isinstance(self.pretrained, str):
            return content_digest(Path(self.pretrained).expanduser())
        if not self.pretrained:
            return False
        depth = DEPTHS["resnet50" if self.kind == "auto" else self.kind]
        return imagenet(depth).url.rsplit("/", 1)[1]

    def _require_none(self, why: str) -> None:
        if self.pretrained:
            raise ValueError(
                f"{SETTING}={self.pretrained} is for residual networks, and {why}; set {SETTING}=false"
            )

    def build(self, inputs: Inputs, *, filled: bool) -> Trunk:
        """A fresh one for items like these; the rest of its weights come from torch's current generator.

        Without `filled` pretrained weights are not read, since others will take their place.

        Raises:
            ValueError: a residual network for items that are no images, a crop larger than they are, a
                weights file that does not fit, or pretrained weights for items that are no images.
            FileNotFoundError: the weights file is not there.
        """
        kind = ("resnet50" if inputs.is_image else "mlp") if self.kind == "auto" else self.kind
        if kind == "mlp":
            self._require_none(f"items of shape {inputs.shape}, no images, get featurizer.backbone.kind=mlp")
            numbers = prod(inputs.shape)
            widths = [numbers, *self.hidden]
            layers = connected(numbers, self.hidden, batch_norm=False, dropout=0.0)
            adapt = Adapt(inputs.shape, inputs.moments, (numbers,))
            return Trunk(adapt, layers, widths[-1], max(widths))
        return self._residual(DEPTHS[kind], inputs, filled)

    def _residual(self, depth: Literal[18, 34, 50], inputs: Inputs, filled: bool) -> Trunk:
        stored = channels_first(inputs.shape)[1:]
        if self.crop is not None and min(stored) < self.crop:
            raise ValueError(
                f"featurizer.backbone.crop={self.crop} must be at most the images' shorter side of "
                f"{min(stored)}; lower it, or use null"
            )
        sides = stored if self.crop is not None else size_for(inputs.shape, None)
        seen = (self.crop, self.crop) if self.crop is not None else sides
        small = not self.pretrained and max(seen) <= SMALL_SIDE
        network, width = residual(depth, small_stem=small)
        if self.pretrained and filled:
            _fill(network, self.pretrained, imagenet(depth))
        moments = standard(imagenet(depth)) if self.pretrained else inputs.moments
        layers = nn.Sequential(View(self.crop, self.flip), ChannelsLast(network))
        most = max(3 * prod(sides), widest(depth, seen, small_stem=small))
        return Trunk(Adapt(inputs.shape, moments, (3, *sides)), layers, width, most)


class FdalNetwork(nn.Module):
    """Encoder g, head h, and auxiliary head h' of the same layers behind a gradient reversal.

    g is a backbone and a bottleneck, Linear-BatchNorm-ReLU-Dropout. Heads are Linear-ReLU-Dropout-Linear, or
    spectral ones: LeakyReLU, and both linear layers of spectral norm 1. Bottleneck and plain h begin with
    small normal weights, all else with torch's own; so h' begins elsewhere than h.

    Source: Acuna et al. 2021, figure 1; plain heads S2, appendix E.1; spectral ones and first weights the
    authors' Office-31 demo (github.com/nv-tlabs/fDAL), where spectral heads in effect keep torch's own.
    """

    def __init__(
        self, backbone: Trunk, bottleneck: int, classes: int, *, dropout: float, spectral: bool
    ) -> None:
        """First weights, the backbone's apart, come from torch's current generator."""
        super().__init__()
        self.adapt, self.backbone, self.widest = backbone.adapt, backbone.layers, backbone.widest
        first = _small(nn.Linear(backbone.width, bottleneck), BOTTLENECK_STD, BOTTLENECK_BIAS)
        norm = nn.BatchNorm1d(bottleneck)
        self.bottleneck = nn.Sequential(first, norm, nn.ReLU(), nn.Dropout(dropout))
        self.width = bottleneck
        self.head = _head(bottleneck, classes, dropout, spectral)
        self.auxiliary = _head(bottleneck, classes, dropout, spectral)
        if not spectral:
            _small(self.head[0], HEAD_STD, 0.0)
            _small(self.head[-1], HEAD_STD, 0.0)

    def forward(
        self, x: Shaped[Tensor, " b *stored"], coefficient: float
    ) -> tuple[Float32[Tensor, "b c"], Float32[Tensor, " b"]]:
        """Logits of h, and for each item the output of h' at the class that h predicts.

        What h' learns reaches g times -`coefficient`, and h not at all.
        """
        features = self.bottleneck(self.backbone(self.adapt(x)))
        logits = self.head(features).float()
        told = self.auxiliary(reversed_gradient(features, coefficient)).float()
        return logits, told.gather(1, logits.argmax(1, keepdim=True))[:, 0]

    def encoder(self) -> Encoder:
        """What gives the features: g, whose weights take no gradients from now on."""
        layers = nn.Sequential(self.backbone, self.bottleneck)
        return Encoder(self.adapt, layers, width=self.width, widest=self.widest)


def discrepancy(
    divergence: Divergence, source: Float[Tensor, " s"], target: Float[Tensor, " t"]
) -> Float[Tensor, ""]:
    """How far apart v is in both domains: mean T(v) over the source minus mean f*(T(v)) over the target.

    Its supremum over all v is the f-divergence.

    Pearson chi squared: T(v) = v, f*(T(v)) = v^2 / 4 + v. Jensen-Shannon: T(v) = log 2 - softplus(-v),
    f*(T(v)) = softplus(v) - log 2, at most 2 log 2. Both are 0 where all v are 0.

    Source: Acuna et al. 2021, section 4, with T and f* of the authors' code.
    """
    if divergence == "pearson":
        return source.mean() - (target.square() / 4 + target).mean()
    return 2 * log(2) - functional.softplus(-source).mean() - functional.softplus(target).mean()


def reversed_gradient(x: Float[Tensor, " b *f"], coefficient: float) -> Float[Tensor, " b *f"]:
    """The same numbers, whose gradient comes back times -`coefficient`. Source: Ganin et al. 2016."""
    return _Reversal.apply(x, coefficient)  # type: ignore[return-value]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, coefficient: float) -> Tensor:
        context.coefficient = coefficient
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -context.coefficient * gradient, None


def _fill(network: nn.Module, pretrained: bool | str, weights: Weights) -> None:
    try:
        load_weights(network, pretrained, weights, prefix="")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{SETTING}=true needs {weights.url}, which is neither in torch's cache nor could it be "
            f"downloaded; give {SETTING}=<file>"
        ) from error


def _head(width: int, classes: int, dropout: float, spectral: bool) -> nn.Sequential:
    first, last = nn.Linear(width, width), nn.Linear(width, classes)
    if spectral:
        first, last = spectral_norm(first), spectral_norm(last)
    return nn.Sequential(first, nn.LeakyReLU() if spectral else nn.ReLU(), nn.Dropout(dropout), last)


def _small(layer: nn.Module, std: float, bias: float) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    nn.init.normal_(layer.weight, std=std)
    nn.init.constant_(layer.bias, bias)
    return layer
