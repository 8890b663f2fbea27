"""A classifier that has seen every label of a data set: trained once, kept, and shared by runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alrun.cache import Making
from alrun.data.data import array_digest
from alrun.files import atomic
from alrun.lifetime import Lifetime
from alrun.models.encoded import FrozenHead
from alrun.models.network import Architecture
from alrun.pool import Pool
from alrun.shelf import identity
from alrun.training.model import Model
from alrun.training.progress import Sight
from alrun.training.trainer import Trainer

FILE = "reference.pt"


def reference(model: Architecture | FrozenHead, trainer: Trainer, whole: Pool, life: Lifetime) -> Model:
    """The model on all labels of the data set's pool `whole`, read from the shelf or trained.

    No strategy sees it. Chance is of the branch `artifacts`, so that runs share it.
    """
    on_encoder = isinstance(model, FrozenHead)
    architecture = model.on(life.encoder(whole)) if on_encoder else model
    chance = f"{int(life.stream('artifacts', 'reference').integers(2**63)):x}"
    key = {
        **{"model": identity(model), "trainer": identity(trainer), "chance": chance},
        **{"pool": life.shelf.fingerprint, "labels": array_digest(whole.labels)},
        **({"features": life.once.get("features_digest")} if on_encoder else {}),
        "device": life.device.type,
    }

    def make(making: Making) -> None:
        """Trains it, and leaves weights and facts in the folder."""
        fitted = trainer.fit(
            architecture,
            whole,
            chance=lambda *names: life.stream("artifacts", "reference", *names),
            start=None,
            progress=_Shown(making),
        )
        weights = {name: value.detach().cpu() for name, value in fitted.weights.items()}
        with atomic(making.folder / FILE) as part:
            torch.save({"weights": weights, "facts": dict(fitted.facts)}, part)

    def load(folder: Path) -> Model:
        """The model of that folder."""
        saved = torch.load(folder / FILE, map_location="cpu", weights_only=True)
        return trainer.restored(architecture, whole, saved["weights"], saved["facts"])

    return life.shelf.cache.kept("reference", key, make, load, life.shelf.watch).value


@dataclass(frozen=True)
class _Shown:
    """The progress of a fit that is the making of an artifact."""

    making: Making

    def epoch(self, done: int, total: int) -> None:
        self.making.epoch(done, total)

    def watch(self, sight: Sight) -> None:
        del sight

    def keep(self, epoch: int, make: Callable[[], dict[str, Any]]) -> None:
        self.making.keep(epoch, make)

    def load(self) -> dict[str, Any] | None:
        return self.making.load()
