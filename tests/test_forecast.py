from pathlib import Path

import pytest
from conftest import part, settings

from alrun.assembly import assemble
from alrun.data.bundled import Digits
from alrun.forecast import Forecast, forecast, spoken
from alrun.pool import Inputs, stream


def digits() -> Inputs:
    return Inputs(Digits(None, None, False).load(Path(), stream(0, "split")).inputs)


def ahead(sizes, *words, featurizer=None) -> Forecast:
    experiment = assemble(settings("tracker=none", *words))
    return forecast(experiment.trainer, experiment.model, featurizer, digits(), 10, sizes, 397)


def test_twice_the_epochs_or_labels_take_about_twice_as_long():
    # a fit's fixed costs are part of the probe, and the machine is shared: only the order is held
    assert ahead([100], "trainer.epochs=1000").training == pytest.approx(
        10 * ahead([100], "trainer.epochs=100").training, rel=0.9
    )
    assert ahead([100] * 50).evaluation > 5 * ahead([100]).evaluation


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
