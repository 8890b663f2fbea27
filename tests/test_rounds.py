from collections.abc import Callable

import numpy as np
import pytest
from conftest import CPU, strategy

from alrun.clock import Clock
from alrun.work import OpenTables


@pytest.fixture
def spend(monkeypatch) -> Callable[[float], None]:
    """Lets the seconds of the clock's own time go by."""
    now = [0.0]
    monkeypatch.setattr("alrun.clock.time.perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_nested_part_is_taken_out_of_the_part_around_it(spend):
    clock = Clock(CPU)
    with clock.part("select"):
        spend(2)
        with clock.part("predict"):
            spend(5)
        spend(3)
    assert (clock.seconds["select"], clock.seconds["predict"]) == (5, 5)


def test_probabilities_are_made_for_the_rows_asked_and_only_once(situation):
    at = situation()
    current = at.round(strategy("margin"), 5)
    first = current.probabilities(np.array([3, 8]))
    again = current.probabilities(np.array([8, 3, 8]))
    assert current.work.predicted == 2
    assert (again == first[[1, 0, 1]]).all()


def test_rows_that_were_embedded_meet_the_network_no_second_time(situation):
    current = situation().round(strategy("margin"), 5)
    current.embeddings(np.arange(60))
    shares = current.probabilities(np.arange(60))
    assert current.work.predicted == 60
    np.testing.assert_allclose(shares, current.model.predict(np.arange(60)), atol=1e-6)


def test_narrow_refuses_rows_that_are_no_candidates(situation):
    current = situation().round(strategy("random"), 5)
    with pytest.raises(ValueError, match="got row 0"):
        current.narrow(np.array([0, 1]))


def test_what_is_learned_once_is_made_once_from_its_own_stream_and_timed_apart(situation):
    current = situation().round(strategy("random"), 5)
    made = [current.once("index", lambda rng: rng.random()) for _ in range(2)]
    other = situation().round(strategy("margin"), 5).once("index", lambda rng: rng.random())
    assert made[0] == made[1] == other
    assert "index" in current.life.clock.seconds
    assert "index" not in current.work.clock.seconds


def test_a_kept_state_is_rebuilt_by_the_same_updates_in_the_same_order(situation):
    def played(stops: list[int]) -> list[str]:
        current = situation().round(strategy("random"), 5)
        batches = [np.array([7]), np.array([9, 2]), np.array([4])]
        state: list[str] = []
        for done in stops:
            current.life.purchases[:] = batches[:done]
            state = current.kept("path", list, lambda old, rows: [*old, str(rows.tolist())])
        return state

    assert played([1, 2, 3]) == played([3]) == played([2, 2, 3]) == ["[7]", "[9, 2]", "[4]"]


def test_bringing_out_a_line_is_not_charged_to_the_choice(situation, spend, tmp_path, monkeypatch):
    current = situation().round(strategy("random"), 5)
    current.work.opened = OpenTables(tmp_path, tmp_path, {})
    monkeypatch.setattr(OpenTables, "add", lambda *_: spend(7))
    with current.work.clock.part("select"):
        spend(2)
        current.write("gaps", {"gap": 0.5})
        spend(1)
    assert (current.work.clock.seconds["select"], current.work.clock.seconds["watch"]) == (3, 7)


def test_without_a_run_folder_lines_and_pictures_wait_for_who_asks(situation):
    current = situation().round(strategy("random"), 5)
    current.write("gaps", {"gap": 0.5})
    current.figure("bounds", lambda figure: None)
    assert current.work.tables == {"gaps": [{"round": 1, "gap": 0.5}]}
    assert list(current.work.figures) == ["bounds-round001"]


def test_a_continued_run_pays_for_the_newest_purchase_only(situation, spend):
    current = situation().round(strategy("random"), 5)
    current.life.purchases[:] = [np.array([row]) for row in range(6)]

    def slow(state, rows):
        spend(1)
        return state

    with current.work.clock.part("select"):
        current.kept("path", list, slow)
    assert (current.work.clock.seconds["once"], current.work.clock.seconds["select"]) == (5, 1)
