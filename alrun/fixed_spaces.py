"""Spaces of features that depend on no model, so that the purchases of many runs can be looked at in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from jaxtyping import Float32
from numpy import ndarray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alrun.assembly import assemble
from alrun.cache import Making
from alrun.config import closest, content_digest
from alrun.experiment import Experiment
from alrun.features.featurizer import Embed, Featurizer
from alrun.lifetime import identity, name_of
from alrun.pool import Pool
from alrun.report.reading import read_settings
from alrun.rounds import OF_FEATURES

CONF = Path(__file__).parent / "conf"
REMEDY = "choose one with --space"


@dataclass(frozen=True)
class InFile:
    """One vector a pool row from a `.npy` file."""

    file: Path
    depends_on_model = False
    cached = False

    @property
    def identity(self) -> dict[str, Any]:
        """The file's content."""
        return {"content": content_digest(self.file)}

    def make(
        self, pool: Pool, embed: Embed, rng: np.random.Generator, making: Making
    ) -> Float32[ndarray, "n d"]:
        """The vectors.

        Raises:
            ValueError: no such file, or one that does not fit the pool.
        """
        del embed, rng, making
        try:
            array = np.lib.format.open_memmap(self.file, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"--space: cannot read {self.file} ({error})") from None
        if array.ndim != 2 or len(array) != len(pool) or array.dtype.kind != "f":
            raise ValueError(
                f"--space: {self.file} must hold floating numbers, one vector for each of {len(pool)} "
                f"pool rows, got {array.dtype} of shape {array.shape}"
            )
        return np.ascontiguousarray(array, np.float32)


def word_of(featurizer: Featurizer) -> str:
    """The word for a space in titles and file names."""
    return featurizer.file.stem if isinstance(featurizer, InFile) else name_of(featurizer)


def chosen_space(word: str | None, folders: Sequence[Path]) -> Featurizer:
    """The space that a word means for the run in the first folder; without one, that which all runs share.

    Raises:
        ConfigError, ValueError, OSError: no such space, or none or several that runs select in.
    """
    settings = {folder: read_settings(folder / "settings.yaml") for folder in folders}
    if word is not None:
        return named_space(word, settings[folders[0]])
    return shared_space({folder: assemble(each) for folder, each in settings.items()})


def shared_space(experiments: Mapping[Path, Experiment]) -> Featurizer:
    """The fixed features in which those of these runs select that select in fixed features.

    Raises:
        ValueError: none of them does, or they do so in several spaces.
    """
    found: dict[str, tuple[Path, Featurizer]] = {}
    for folder, experiment in experiments.items():
        if (own := selects_in(experiment)) is not None:
            found.setdefault(repr(identity(own)), (folder, own))
    if not found:
        raise ValueError(f"none of these runs selects in features that depend on no model; {REMEDY}")
    if len(found) > 1:
        told = "; ".join(f"{name_of(own)} in {folder}" for folder, own in found.values())
        raise ValueError(f"runs must share their space, these select in several ({told}); {REMEDY}")
    ((_, own),) = found.values()
    return own


def selects_in(experiment: Experiment) -> Featurizer | None:
    """The fixed features that a run's strategy reads; None if it reads none, or those of a model."""
    own = experiment.featurizer
    reads = experiment.strategy.needs & OF_FEATURES
    return own if reads and own is not None and not own.depends_on_model else None


def named_space(word: str, settings: Mapping[str, Any], others: Sequence[str] = ()) -> Featurizer:
    """What a word means in place of the featurizer of a run with these settings.

    It is a choice of the group `featurizer` (with the preset of the run's data set), a run folder (whose
    featurizer is meant), or a `.npy` file of one vector a pool row. `others` are words known elsewhere.

    Raises:
        ConfigError, ValueError: no such space, or one that depends on a model.
    """
    if word.endswith(".npy"):
        if not (file := Path(word).expanduser()).is_file():
            raise ValueError(f"--space: cannot read {file} (no such file)")
        return InFile(file)
    if (Path(word) / "settings.yaml").is_file():
        featurizer = assemble(read_settings(Path(word) / "settings.yaml")).featurizer
    elif word in choices():
        featurizer = _composed(word, settings)
    else:
        hint = closest(word, sorted({*choices(), *others}))
        raise ValueError(f"--space: no space {word}; {hint}, or give a run folder or a .npy file")
    if featurizer is None or featurizer.depends_on_model:
        raise ValueError(f"--space: must be made without a model, {word} is not; use e.g. pca or pixels")
    return featurizer


def choices() -> list[str]:
    """The choices of the group `featurizer`."""
    return sorted(file.stem for file in (CONF / "featurizer").glob("*.yaml") if file.stem != "none")


def _composed(choice: str, settings: Mapping[str, Any]) -> Featurizer:
    """A choice of the group `featurizer` with the data set's preset."""
    GlobalHydra.instance().clear()
    words = [f"dataset={settings['choices']['dataset']}", f"featurizer={choice}"]
    try:
        with initialize_config_module("alrun.conf", version_base="1.3"):
            composed = compose("config", words)
        return instantiate(OmegaConf.to_container(composed.featurizer, resolve=True), _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(
            f"--space: {' '.join(words)} cannot be composed ({str(error).splitlines()[0]}); "
            "give a run folder or a .npy file"
        ) from None
