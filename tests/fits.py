"""What tests of trainers share: small pools and networks, and fits that are broken off."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from alrun.models.mlp import Mlp, connected
from alrun.models.network import Adapt, Network
from alrun.pool import Inputs, Pool, stream
from alrun.training.model import Model
from alrun.training.progress import Silent
from alrun.training.supervised import Supervised

YAML = Path(__file__).parent.parent / "conf" / "trainer" / "supervised.yaml"
CPU = torch.device("cpu")
PLAIN = Mlp([12, 6], False, 0.0)
NORMED = Mlp([12, 6], True, 0.0)
DROPPED = Mlp([12, 6], False, 0.5)


def trainer(**changes) -> Supervised:
    settings = OmegaConf.load(YAML)
    return instantiate(OmegaConf.merge(settings, {"epochs": 4, "batch_size": 8, **changes}), _convert_="all")


def chance(branch: str, *names: str | int) -> np.random.Generator:
    return stream(0, branch, *names)


def pool(n: int = 40, bought: int = 30, classes: int = 3, width: int = 5) -> Pool:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, classes, n)
    points = (rng.normal(size=(n, width)) + 2.0 * truth[:, None] * (np.arange(width) % 2)).astype(np.float32)
    labels = np.where(np.arange(n) < bought, truth, -1).astype(np.int64)
    return Pool(Inputs(points), labels, classes)


def images(n: int = 24, shape: tuple[int, ...] = (3, 8, 8)) -> Pool:
    rng = np.random.default_rng(2)
    return Pool(Inputs(rng.integers(0, 256, (n, *shape), dtype=np.uint8)), rng.integers(0, 3, n), 3)


def fitted(data: Pool, architecture=PLAIN, *, previous=None, progress=None, draw=chance, **changes) -> Model:
    settings = trainer(**changes)
    progress = progress or Silent()
    return settings.fit(architecture, data, chance=draw, start=previous, progress=progress)


def fitted_by(who, data: Pool, architecture: Any = PLAIN, progress=None, start=None) -> Model:
    return who.fit(architecture, data, chance=chance, start=start, progress=progress or Silent())


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Broken:
    """Keeps the state after `stop` epochs as a file would, and breaks the fit off there."""

    def __init__(self, stop: int) -> None:
        self.stop, self.file = stop, io.BytesIO()

    def epoch(self, done: int, total: int) -> None:
        pass

    def watch(self, sight) -> None:
        pass

    def keep(self, epoch: int, make) -> None:
        if epoch == self.stop:
            torch.save(make(), self.file)
            raise KeyboardInterrupt

    def load(self) -> dict | None:
        if not self.file.getbuffer().nbytes:
            return None
        self.file.seek(0)
        return torch.load(self.file, weights_only=True)


class Frozen:
    """Six frozen features and a small trainable end, with the passes through the frozen part counted."""

    has_dropout = False

    def __init__(self) -> None:
        self.seen = 0

    def build(self, shape, moments, classes) -> Network:
        frozen = nn.Linear(math.prod(shape), 6)
        frozen.register_forward_hook(self._count)
        nn.init.eye_(frozen.weight)
        body = connected(6, [4], batch_norm=True, dropout=0.0)
        return Network(Adapt(shape, moments, (math.prod(shape),)), frozen, body, nn.Linear(4, classes))

    def _count(self, module, inputs, output) -> None:
        self.seen += len(output)
