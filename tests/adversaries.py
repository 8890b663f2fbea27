"""What tests of trainers with an adversary (VAAL, WAAL) share."""

from typing import Any

import numpy as np
import torch
from test_run import Unwatched
from test_training import PLAIN, chance
from torch import nn

from alrun.pool import Inputs, Pool
from alrun.training.model import Model
from alrun.training.progress import Silent


def fitted(who, data: Pool, architecture: Any = PLAIN, progress=None) -> Model:
    return who.fit(architecture, data, chance=chance, start=None, progress=progress or Silent())


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def clusters(n: int = 200) -> Pool:
    """Two clusters, of which the first alone has labels."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 4)).astype(np.float32) + np.where(np.arange(n) % 2, 6, -6)[:, None]
    labels = np.where((np.arange(n) % 2 == 0) & (np.arange(n) < n // 2), np.arange(n) // 2 % 2, -1)
    return Pool(Inputs(points.astype(np.float32)), labels, 2)


class Stops(Unwatched):
    """A screen that breaks the run off when a round is whole."""

    def round(self, record):
        if record["round"] == 1:
            raise KeyboardInterrupt
