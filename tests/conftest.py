"""Parts made from the project's own settings, and small rounds to try strategies in."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch: test workers share the machine, and idle OpenMP threads that spin would take it from them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from nursery import Nursery
from omegaconf import DictConfig, OmegaConf

from alrun.cache import Cache, scratch
from alrun.clock import Clock
from alrun.coverage import assignment
from alrun.features.simple import Penultimate, Pixels
from alrun.generative.generator import Generator
from alrun.graph.knn import Knn
from alrun.models.coder import Coding, scale_of
from alrun.models.critic import Critic
from alrun.models.discriminator import Discriminator, Familiarity
from alrun.models.encoded import Encoder
from alrun.models.loss_predictor import LossPredictor
from alrun.models.mlp import Mlp
from alrun.models.network import Adapt
from alrun.models.vae import VaeNetwork
from alrun.pool import Inputs, Pool, Seeds
from alrun.rounds import Lifetime, Round, Work, name_of
from alrun.training.model import Model
from alrun.training.seeding import seeded

ROOT = Path(__file__).parent.parent
MAKERS = ("adba", "gaal")  # strategies whose rows are images of their own
CPU = torch.device("cpu")


def composed(*overrides: str) -> DictConfig:
    """Composed settings, without Hydra's own."""
    GlobalHydra.instance().clear()
    with initialize_config_module("alrun.conf", version_base="1.3"):
        return compose("config", list(overrides))


def settings(*overrides: str) -> dict:
    """Composed and resolved settings, without Hydra's own."""
    return OmegaConf.to_container(composed(*overrides), resolve=True)


def part(group: str, *overrides: str):
    """One instantiated part of the composed settings."""
    return instantiate(settings(*overrides)[group], _convert_="all")


def strategy(name: str, *overrides: str):
    """A strategy as its YAML makes it; overrides are relative to it."""
    return part("strategy", f"strategy={name}", *(f"strategy.{each}" for each in overrides))


def unlabeled(points: np.ndarray, classes: int = 2) -> Pool:
    """These items before any purchase."""
    return Pool(Inputs(points), np.full(len(points), -1, np.int64), classes)


def planar(inputs: Inputs) -> Generator:
    """Draws points of the unit square, or of the cube that such items fill; it has learned nothing."""
    width = math.prod(inputs.shape)
    with seeded(np.random.default_rng(0), CPU):
        layers = torch.nn.Linear(3, width), torch.nn.Sigmoid(), torch.nn.Unflatten(1, (width, 1, 1))
        network = torch.nn.Sequential(*layers)
    critic = Encoder(
        Adapt(inputs.shape, Inputs(np.nan_to_num(inputs.array)).moments, (width,)),
        torch.nn.Identity(),
        width=width,
        widest=width,
    )
    return Generator(3, inputs.shape, critic, network.eval().requires_grad_(False), 0.0, CPU)


class Situation:
    """A pool of random points with some labels, a small network, and rounds on top."""

    def __init__(
        self, points: np.ndarray, labeled: dict[int, int], classes: int = 3, fixed: bool = False
    ) -> None:
        self.inputs = Inputs(points)
        labels = np.full(len(points), -1, np.int64)
        for row, label in labeled.items():
            labels[row] = label
        self.pool = Pool(self.inputs, labels, classes)
        self.fixed, self.asked = fixed, []
        with seeded(np.random.default_rng(0), CPU):
            clean = Inputs(np.nan_to_num(points))
            network = Mlp([8], False, 0.5).build(clean.shape, clean.moments, classes)
            torch.nn.init.normal_(network.head.weight)
            vae = VaeNetwork(Coding(2, "mlp", 2), clean.shape, scale_of(clean))
            discriminator, critic = Familiarity(vae, Discriminator(2, [8])), Critic(8, [4], 0.5)
            heads = torch.nn.ModuleDict({"discriminator": discriminator, "critic": critic})
            heads["learning_loss"] = LossPredictor([8], 4)
        self.model = Model(network, self.inputs, {}, heads)

    def round(
        self, who, size: int, *, seed: int = 0, truth: np.ndarray | None = None, cold: bool = False
    ) -> Round:
        """A round for this strategy; `truth` answers what it asks for."""
        seeds = Seeds(None, None, None, None, None, None, None)
        truth = np.zeros(len(self.pool), np.int64) if truth is None else truth

        def stream(*names):
            return seeds.stream(seed, *names)

        def answer(rows):
            self.asked.extend(rows.tolist())
            return truth[rows]

        life = Lifetime(
            stream,
            Pixels() if self.fixed else Penultimate(),
            Knn(5, "cosine" if "graph.cosine" in who.needs else "sqeuclidean", "none", "auto", 0.99),
            CPU,
        )
        if "generator" in who.needs:
            life.once["generator"] = planar(self.inputs)
        work = Work(Clock(CPU), answer, size)
        rng = stream("select", 1, name_of(who))
        return Round(1, self.pool, self.pool.unlabeled, None if cold else self.model, rng, life, work)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes are started that need not import everything anew."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(params=["compiled", "plain"])
def way(request, monkeypatch) -> None:
    """Assignments to medoids by compiled kernels, then by NumPy."""
    if request.param == "plain":
        monkeypatch.setattr(assignment, "COMPILED", False)


@pytest.fixture
def cache(tmp_path) -> Cache:
    """An empty one."""
    return Cache(str(tmp_path / "cache"))


@pytest.fixture
def make(tmp_path) -> Callable[..., np.ndarray]:
    """Features by a featurizer, made in a folder of its own."""
    count = iter(range(1000))

    def make(featurizer, points: np.ndarray, seed: int = 0, folder: Path | None = None) -> np.ndarray:
        making = scratch(folder or tmp_path / str(next(count)))
        return featurizer.make(unlabeled(points), lambda rows: 1 / 0, np.random.default_rng(seed), making)

    return make


@pytest.fixture
def situation() -> Callable[..., Situation]:
    """60 distinct points in the plane, six of them labeled."""

    def make(n: int = 60, seed: int = 0, **options) -> Situation:
        points = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
        labeled = {row: row % 3 % options.get("classes", 3) for row in range(0, n, max(1, n // 6))}
        return Situation(points, labeled, **options)

    return make
