"""Learning rates over epochs and steps, and when a fit ends."""

import copy
import math

import pytest
from fits import (
    equal,
    fitted,
    pool,
    trainer,
    weights,
)
from hydra.errors import InstantiationException

from alrun.training.fit import Fit
from alrun.training.progress import Silent


def test_schedules_give_the_stated_rates():
    fixed = {"learning_rate": 1.0, "decay": 0.5, "epochs": 4}
    step = trainer(schedule="step", step_epochs=2, **fixed)
    assert [step.rate(epoch) for epoch in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    stones = trainer(schedule="milestones", milestones=[1, 3], **fixed)
    assert [stones.rate(epoch) for epoch in range(5)] == [1, 0.5, 0.5, 0.25, 0.25]
    cosine = trainer(schedule="cosine", **fixed)
    wanted = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]
    assert [cosine.rate(epoch) for epoch in range(4)] == pytest.approx(wanted)
    assert {trainer(**fixed).rate(epoch) for epoch in range(9)} == {1.0}


def test_a_cosine_reaches_zero_at_its_horizon_not_before_the_fit_ends():
    fixed = {"learning_rate": 0.05, "schedule": "cosine", "epochs": 180}
    long = trainer(horizon=210, **fixed)
    assert [long.rate(epoch) for epoch in (0, 105, 140)] == pytest.approx([0.05, 0.025, 0.0125])
    assert long.rate(180) == pytest.approx(0.025 * (1 + math.cos(math.pi * 6 / 7)))
    assert long.rate(210) == pytest.approx(0, abs=1e-12)
    assert trainer(horizon=180, **fixed).rate(17) == trainer(**fixed).rate(17)
    with pytest.raises(InstantiationException, match=r"trainer\.horizon must be at least .* 179 and 180"):
        trainer(horizon=179, **fixed)


@pytest.mark.parametrize(("renewed", "passed"), [("epoch", [0, 0, 0, 0]), ("step", [0, 0.25, 0.5, 0.75])])
def test_the_rate_of_a_step_is_that_of_its_epoch_or_of_the_share_that_is_over(renewed, passed, monkeypatch):
    seen: list[float] = []
    step = Fit.descend

    def descend(fit, loss) -> None:
        seen.append(fit.optimizer.param_groups[0]["lr"])
        step(fit, loss)

    monkeypatch.setattr(Fit, "descend", descend)
    changes = {"schedule": "cosine", "horizon": 3, "epochs": 2, "learning_rate": 0.1, "renewed": renewed}
    fitted(pool(), **changes)  # 30 labels by 8: four steps
    wanted = [0.05 * (1 + math.cos(math.pi * (epoch + share) / 3)) for epoch in range(2) for share in passed]
    assert seen == pytest.approx(wanted)


def test_the_optimizer_steps_at_the_rate_of_the_epoch():
    class Watch(Silent):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def keep(self, epoch, make) -> None:
            self.rates.append(make()["optimizer"]["param_groups"][0]["lr"])

    watch = Watch()
    fitted(pool(), progress=watch, schedule="step", step_epochs=1, decay=0.5, learning_rate=0.08)
    assert watch.rates == [0.08, 0.04, 0.02, 0.01]


def test_early_stopping_ends_before_the_last_epoch_and_restores_the_best_weights():
    class Watch(Silent):
        def __init__(self) -> None:
            self.states: list[dict] = []

        def keep(self, epoch, make) -> None:
            self.states.append(copy.deepcopy(make()))

    watch = Watch()
    changes = {"patience": 3, "validation": 0.4, "learning_rate": 0.1, "epochs": 200}
    model = fitted(pool(), progress=watch, **changes)
    assert model.facts["train_epochs"] == len(watch.states) < 200
    assert [each["state"]["stale"] for each in watch.states[-3:]] == [1, 2, 3]
    assert equal(weights(model), watch.states[-4]["network"])
    assert all(each["state"]["best"] >= watch.states[-4]["state"]["best"] for each in watch.states)
