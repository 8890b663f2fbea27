from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import part, settings, unlabeled
from torch import nn

from alrun.assembly import assemble
from alrun.data.bundled import Digits
from alrun.forecast import Forecast, forecast, spoken
from alrun.models.encoded import Encoder, FrozenHead
from alrun.models.network import Adapt, Network
from alrun.pool import Inputs, Pool, stream
from alrun.training.model import Model


def digits() -> Pool:
    return unlabeled(Digits(None, None, False).load(Path(), stream(0, "split")).inputs, classes=10)


def ahead(sizes, *words, featurizer=None) -> Forecast:
    experiment = assemble(settings("tracker=none", *words))
    return forecast(experiment.trainer, experiment.model, featurizer, digits(), sizes, 397)


@dataclass(frozen=True)
class Slow:
    """Trainer, network's family and featurizer of a world in which only trials take time: made-up seconds."""

    epochs: int = 1
    batch_size: int = 50
    each: float = 0.0
    start: float = 0.0
    frozen: float = 0.0
    answer: float = 0.0
    augments: bool = False
    heads = frozenset()
    depends_on_model = False
    has_dropout = False
    now: list[float] = field(default_factory=lambda: [0.0])
    trials: list[int] = field(default_factory=list)
    passed: list[Inputs] = field(default_factory=list)

    def build(self, shape, moments, classes):
        first = nn.Linear(64, 64) if self.frozen else nn.Identity()
        return Network(Adapt(shape, moments, (64,)), first, nn.Identity(), nn.Linear(64, classes))

    def fit(self, architecture, pool, **_):
        self._pass(len(pool), self.start + self.each * len(pool))
        if self.augments:
            self.now[0] += self.frozen * len(pool)
        else:
            self.freeze(pool.inputs, len(pool))
        network = self.build(pool.inputs.shape, pool.inputs.moments, pool.classes)
        return Answering(network, pool.inputs, {}, slow=self)

    def restored(self, *_):
        raise NotImplementedError

    def make(self, pool, embed, rng, making):
        self._pass(len(pool), self.start + self.each * len(pool))
        return np.zeros((len(pool), 1), np.float32)

    def encoder(self, folder, inputs):
        return Encoder(Adapt(inputs.shape, inputs.moments, (64,)), nn.Identity(), width=64, widest=64)

    def freeze(self, inputs: Inputs, rows: int) -> None:
        """What frozen layers cost, once for these inputs."""
        if not any(each is inputs for each in self.passed):
            self.now[0] += self.frozen * rows
            self.passed.append(inputs)

    def _pass(self, rows: int, seconds: float) -> None:
        self.trials.append(rows)
        self.now[0] += seconds


@dataclass(frozen=True, eq=False)
class Answering(Model):
    slow: Slow = field(default_factory=Slow)

    def predict(self, rows):
        self.slow.freeze(self.inputs, len(self.inputs))
        self.slow.now[0] += self.slow.answer * len(rows)
        return np.zeros((len(rows), 10), np.float32)


@pytest.fixture
def told(monkeypatch):
    """The forecast of a slow trainer, or a slow featurizer, by its own clock."""

    def told(slow, sizes=(), test_items=0, featurizer=False, model=None):
        monkeypatch.setattr("alrun.forecast.time", SimpleNamespace(perf_counter=lambda: slow.now[0]))
        return forecast(slow, model or slow, slow if featurizer else None, digits(), list(sizes), test_items)

    return told


def test_seconds_grow_with_epochs_labels_and_test_items(told):
    slow = Slow(epochs=30, each=0.001, answer=0.002)
    assert told(slow, [100, 150], 397) == pytest.approx((0, 0.001 * 250 * 30, 0.002 * 397 * 2, 0))
    assert slow.trials == [8, 8, 100, 100]


def test_frozen_layers_are_passed_once_by_the_whole_pool(told):
    slow = Slow(epochs=30, each=0.001, frozen=0.02)
    assert told(slow, [100]).training == pytest.approx(0.001 * 100 * 30 + 0.02 * 1400)


@pytest.mark.parametrize("augments", [False, True])
def test_frozen_layers_see_the_test_set_once_and_what_stands_on_them_in_each_round(told, augments):
    slow = Slow(epochs=30, each=0.001, frozen=0.02, answer=0.002, augments=augments)
    assert told(slow, [100, 150], 397).evaluation == pytest.approx(0.02 * 397 + 0.002 * 397 * 2)


def test_a_head_on_an_encoder_finds_the_pool_encoded(told):
    slow = Slow(epochs=30, each=0.001, frozen=0.02)
    ahead = told(slow, [100], featurizer=True, model=FrozenHead(4, True, 0.0))
    assert ahead.training == pytest.approx(0.001 * 100 * 30)


@pytest.mark.parametrize(
    ("slow", "rows"),
    [(Slow(each=0.1), 30), (Slow(each=0.001, frozen=0.099), 30), (Slow(each=2.0), 8), (Slow(start=0.1), 100)],
)
def test_a_slow_network_is_tried_on_no_more_than_seconds_allow(told, slow, rows):
    told(slow, [100])
    assert slow.trials == [8, 8, rows, rows]


def test_making_features_is_forecast_from_what_grows_with_the_rows(told):
    slow = Slow(epochs=20, each=0.001, start=1.0)
    assert told(slow, featurizer=True).features == pytest.approx(0.001 * 1400 * 20)
    assert slow.trials == [16, 64, 256]


def test_a_slow_encoder_is_tried_on_no_more_than_seconds_allow(told):
    slow = Slow(epochs=20, each=0.04, start=1.0)
    assert told(slow, featurizer=True).features == pytest.approx(0.04 * 1400 * 20)
    assert slow.trials == [16, 64]
    slower = Slow(epochs=20, each=1.0)
    assert told(slower, featurizer=True).features == pytest.approx(1.0 * 1400 * 20)
    assert slower.trials == [16]


def test_nothing_ahead_takes_no_time():
    assert ahead([]) == Forecast(0.0, 0.0, 0.0)


def test_a_featurizer_without_training_counts_as_nothing():
    assert ahead([], featurizer=part("featurizer", "featurizer=pixels")).features == 0.0


def test_the_pools_labels_are_not_read_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ahead([20, 30])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.2, "3 s"), (119.0, "2 min"), (5400.0, "90 min"), (9000.0, "2 h"), (864000.0, "10 days")],
)
def test_seconds_are_said_as_a_person_says_them(seconds, words):
    assert spoken(seconds) == words


def test_parts_below_a_second_are_left_out():
    assert str(Forecast(0.2, 7200.0, 60.0)) == "up to 2 h (training 2 h, evaluation 60 s)"


def test_what_is_fitted_beside_the_network_counts():
    few, many = (ahead([20], "strategy=vaal", f"trainer.adversary.steps={steps}") for steps in (1, 10_000))
    assert many.training > 100 * few.training
