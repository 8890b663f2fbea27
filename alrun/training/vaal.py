"""Supervised training, and beside it an adversary that tells labeled items from unlabeled ones."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from alrun.models.network import Architecture
from alrun.pool import NOT_BOUGHT, Inputs, Pool
from alrun.training.adversary import Adversary
from alrun.training.model import Model, restored
from alrun.training.progress import Phase, Progress, Silent
from alrun.training.supervised import Supervised
from alrun.training.trainer import Chance
from alrun.training.trial import seconds_a_step

HEAD = "discriminator"


@dataclass(frozen=True)
class Vaal(Supervised):
    """The network of `Supervised`, bit for bit, with the head `discriminator`.

    In VAAL the task network shares neither weights nor gradients nor losses with VAE and discriminator; their
    steps merely alternate. So they are fitted one after the other: first the network, by the settings of
    `Supervised`, then the adversary from fresh weights, drawn from streams of its own.

    Source: Sinha et al. 2019; S1 appendix A (GANVAE). Departs: the network's recipe and length are its own,
    where sinhasam/vaal takes one step of it for each step of the adversary.
    """

    adversary: Adversary
    heads = frozenset({HEAD})

    def fit(
        self,
        architecture: Architecture,
        pool: Pool,
        *,
        chance: Chance,
        start: Model | None,
        progress: Progress,
    ) -> Model:
        """The network of the bought labels, and the head fitted to what is bought and what is not.

        Raises:
            ValueError: as `Supervised`, or an adversary's loss that is not finite.
        """
        saved = progress.load() or {}
        if "network" in saved:
            task = restored(architecture, pool, **saved["network"])
        else:
            ahead = self.adversary.plan(pool).epochs
            phase = Phase(progress, "fit", saved.get("fit"), before=0, after=ahead, beside={})
            task = super().fit(architecture, pool, chance=chance, start=start, progress=phase)
        done = {"network": {"weights": task.network.state_dict(), "facts": dict(task.facts)}}
        before = int(task.facts["train_epochs"])
        phase = Phase(progress, "adversary", saved.get("adversary"), before=before, after=0, beside=done)
        head, facts = self.adversary.fit(
            pool, mixed_precision=self.mixed_precision, chance=chance, progress=phase
        )
        return replace(task, facts={**task.facts, **facts}, heads=nn.ModuleDict({HEAD: head}))

    def seconds_beside(self, architecture: Architecture, pool: Pool, chance: Chance) -> float:
        """Seconds that fitting the head to this pool takes, from a few trial steps."""
        del architecture
        some = _one_label(Inputs(pool.inputs.array[: 2 * self.adversary.batch_size], pool.inputs.device))

        def fit(steps: int) -> None:
            short = replace(self.adversary, steps=steps)
            short.fit(some, mixed_precision=self.mixed_precision, chance=chance, progress=Silent())

        return seconds_a_step(fit) * self.adversary.plan(_one_label(pool.inputs)).steps

    def restored(
        self, architecture: Architecture, pool: Pool, weights: Mapping[str, Any], facts: Mapping[str, float]
    ) -> Model:
        """The model that these weights, a fit's, belong to."""
        heads = nn.ModuleDict({HEAD: self.adversary.blank(pool.inputs)})
        return restored(architecture, pool, weights, facts, heads)


def _one_label(inputs: Inputs) -> Pool:
    """These inputs with one label, which is made up."""
    labels = np.full(len(inputs), NOT_BOUGHT, np.int64)
    labels[0] = 0
    return Pool(inputs, labels, 2)
