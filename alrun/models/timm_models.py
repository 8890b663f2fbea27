"""The networks of the library timm (PyTorch image models), by name."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Lt
from torch import Tensor, nn

from alrun.models.mlp import ending
from alrun.models.network import Adapt, Network
from alrun.models.pretrained import fetched, joined, misfits, read_state, refusal, require_file
from alrun.pool import Moments

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

SIMILAR = 3
HUB = "https://huggingface.co"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Timm:
    """timm's model of this `name`, its classifier replaced by hidden layers and an output of one's own.

    `hidden`: widths of ReLU layers before the output, dropout after each; without any, dropout stands before
    the output. `pretrained` is false, true (timm's weights, in the hub's cache or downloaded into it) or the
    path of a state_dict in timm's naming (`.safetensors`, or saved by torch); with weights, images are
    standardized by timm's mean and std, otherwise by the pool's moments. `freeze` leaves all before the
    hidden layers as it starts. `image_size` in pixels, null for the size the model was made for; images are
    resized to it bilinearly, whatever interpolation timm would take, and one gray channel is repeated.

    Source: with vit_small_patch16_224 and hidden [50] as S1 (DGAL), table 1 and appendix A, which names
    neither patch size, nor weights, nor activation.
    """

    name: str
    hidden: list[Annotated[int, Ge(1)]]
    dropout: Annotated[float, Ge(0), Lt(1)]
    pretrained: bool | str
    freeze: bool
    image_size: Annotated[int, Ge(1)] | None

    def __post_init__(self) -> None:
        """Refuses a model that timm does not have, before any work starts.

        Raises:
            ValueError: no such model, or no weights of it where `pretrained` asks for them.
            FileNotFoundError: `pretrained` names a file that does not exist.
        """
        made_for = _configuration(self.name)
        if self.pretrained is True and not (made_for.hf_hub_id or made_for.url):
            raise ValueError(
                f"model.pretrained=true needs weights and timm has none of {self.name}; "
                "choose another model.name, or give model.pretrained=<file> or false"
            )
        require_file(self.pretrained, "timm")

    @property
    def has_dropout(self) -> bool:
        """Whether dropout is above 0."""
        return self.dropout > 0

    def build(self, shape: tuple[int, ...], moments: Moments, classes: int) -> Network:
        """A fresh network for gray or RGB images.

        Raises:
            ValueError: the items are no such images, the weights file does not fit, or the model cannot take
                images of this size.
            FileNotFoundError: the weights are neither there nor to be downloaded.
        """
        made_for = _configuration(self.name)
        features = self._with_weights(made_for)
        features.reset_classifier(0)
        size = made_for.input_size[1:] if self.image_size is None else (self.image_size, self.image_size)
        if made_for.fixed_input_size and size != made_for.input_size[1:]:
            self._resize(features, size)
        if self.pretrained:
            moments = Moments(np.array(made_for.mean, np.float32), np.array(made_for.std, np.float32))
        adapt = Adapt(shape, moments, (made_for.input_size[0], *size))
        width = features.head_hidden_size
        head = nn.Linear([width, *self.hidden][-1], classes)
        return joined(adapt, features, ending(width, self.hidden, self.dropout), head, freeze=self.freeze)

    def _with_weights(self, made_for: "PretrainedCfg") -> Any:
        """The whole model, its classifier included."""
        import timm

        model = timm.create_model(self.name)
        if not self.pretrained:
            return model
        path = Path(self.pretrained).expanduser() if isinstance(self.pretrained, str) else _found(made_for)
        state = _with_own_classifier(read_state(path), model.state_dict(), made_for)
        own, remedy = model.state_dict(), f"give the state_dict of timm's {self.name}"
        wrong = misfits(state, own)
        if any(state[name].shape != own[name].shape for name in state.keys() & own.keys()):
            # timm would stretch some of them to fit
            raise ValueError(f"{refusal(path, self.name, wrong)}; {remedy}")
        try:
            # by this way timm also renames what older files call otherwise
            return timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
        except (RuntimeError, KeyError, AttributeError, ValueError) as error:
            wrong = wrong or [str(error).splitlines()[0]]
            raise ValueError(f"{refusal(path, self.name, wrong)}; {remedy}") from error

    def _resize(self, features: Any, size: tuple[int, int]) -> None:
        """Fits position embeddings to another image size.

        Raises:
            ValueError: the model has but one size, or this one is no multiple of its patches.
        """
        reason = "it is made for one size alone"
        if hasattr(features, "set_input_size"):
            try:
                features.set_input_size(img_size=size)
                return
            except AssertionError as error:
                reason = str(error)
        raise ValueError(
            f"model.image_size: {self.name} cannot take images of {size[0]} pixels ({reason}); "
            "set model.image_size=null"
        )


def _configuration(name: str) -> "PretrainedCfg":
    """What timm knows of the model's input and weights.

    Raises:
        ValueError: timm has no model, or no weights, of this name.
    """
    import timm

    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise ValueError(f"model.name is no model of timm {timm.__version__}, got {name}; {_similar(plain)}")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        known = f"{plain} has {', '.join(tags)}" if tags else f"{plain} has none"
        raise ValueError(f"model.name names weights that timm does not know, got {name}; {known}")
    found = timm.get_pretrained_cfg(name)
    if found is None:
        raise ValueError(f"model.name needs a model whose input timm describes, got {name}; choose another")
    return found


def _similar(name: str) -> str:
    import timm

    if near := difflib.get_close_matches(name, timm.list_models(), SIMILAR, 0.6):
        return f"did you mean {' or '.join(near)}?"
    return "timm.list_models() lists them, e.g. vit_small_patch16_224"


def _with_own_classifier(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], made_for: "PretrainedCfg"
) -> dict[str, Tensor]:
    """The file's entries, but the fresh model's where it classifies: a file need not hold that end."""
    ends = (made_for.classifier,) if isinstance(made_for.classifier, str) else made_for.classifier or ()
    begins = tuple(f"{end}." for end in ends)
    kept = {name: value for name, value in state.items() if not name.startswith(begins)}
    return kept | {name: value for name, value in own.items() if name.startswith(begins)}


def _found(made_for: "PretrainedCfg") -> Path:
    """The weights timm names: in the cache of the Hugging Face hub or of torch, or downloaded into it.

    Raises:
        FileNotFoundError: they are in no cache and cannot be downloaded.
    """
    if not made_for.hf_hub_id:
        return fetched(str(made_for.url))
    from huggingface_hub import try_to_load_from_cache

    repository, _, tag = made_for.hf_hub_id.partition("@")
    revision = tag or None
    names = (made_for.hf_hub_filename,) if made_for.hf_hub_filename else HUB_FILES
    for name in names:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    try:
        return Path(_downloaded(repository, names, revision))
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        address = f"{HUB}/{repository}/resolve/{revision or 'main'}/{names[0]}"
        raise FileNotFoundError(
            f"model.pretrained=true needs {names[0]} of {repository} and it could not be downloaded "
            f"({reason}); fetch {address} and give model.pretrained=<file>"
        ) from error


def _downloaded(repository: str, names: tuple[str, ...], revision: str | None) -> str:
    """The first of these files that the repository has; the last one's error if it has none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    for name in names[:-1]:
        try:
            return hf_hub_download(repository, name, revision=revision)
        except RemoteEntryNotFoundError:
            continue
    return hf_hub_download(repository, names[-1], revision=revision)
