"""How long a step takes, from a few that are tried."""

import pytest

from alrun.training.trial import seconds_a_step


@pytest.mark.parametrize(
    ("clock", "expected", "tried"),
    [
        ([0.0, 2.0, 10.0, 13.0], 0.5, [1, 1, 3]),
        ([0.0, 2.0, 10.0, 11.0], 0.0, [1, 1, 3]),
        ([0.0, 9.0, 10.0, 24.0], 5.0, [1, 1, 2]),
    ],
)
def test_a_step_costs_what_further_steps_add_after_a_first_try_and_slow_ones_are_tried_less(
    clock, expected, tried, monkeypatch
):
    times, steps = iter(clock), []
    monkeypatch.setattr("alrun.training.trial.time.perf_counter", lambda: next(times))
    assert seconds_a_step(steps.append) == expected
    assert steps == tried
