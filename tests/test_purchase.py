"""What a round may buy: candidates, rows that it adds, and lines of them that are one annotation."""

import numpy as np
import pytest
from conftest import Situation, strategy

from alrun.rounds import Batch, Round, checked


class Brightness:
    """Says class 1 of items that begin with a number above a half."""

    def __init__(self) -> None:
        self.asked = []

    def label(self, items):
        self.asked.append(("label", len(items)))
        return (items.reshape(len(items), -1)[:, 0] > 0.5).astype(np.int64)

    def divide(self, items):
        self.asked.append(("divide", len(items)))
        return np.arange(len(items)) // (len(items) // 2)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.fixture
def current(situation) -> Round:
    """A round of three annotations over 60 points, in which somebody labels what is added."""
    who = strategy("random")
    found = situation().round(who, 3)
    found.work.purchase.annotator = Brightness()
    return found


def items(*first: float) -> np.ndarray:
    return np.array([[number, 0.0] for number in first], np.float32)


def batch(*numbers: int) -> Batch:
    return Batch(rows(*numbers), np.zeros(len(numbers)))


def test_added_items_are_new_rows_behind_the_pool_and_leave_it_as_it_is(current):
    assert current.add(items(0.9)).tolist() == [60]
    assert current.add(items(0.1, 0.8)).tolist() == [61, 62]
    assert len(current.pool) == 60
    assert current.work.purchase.pool.real == 60
    np.testing.assert_array_equal(current.work.purchase.items, items(0.9, 0.1, 0.8))
    assert not np.isin(rows(60, 61, 62), current.candidates).any()
    assert checked(batch(62, 60, 61), current, 3, "any").rows.tolist() == [62, 60, 61]
    assert current.work.purchase.settled(rows(62, 60, 61)).tolist() == [1, 1, 0]


def test_a_second_round_s_rows_stand_behind_those_of_the_first(current, situation):
    current.add(items(0.9, 0.1))
    grown = current.work.purchase.pool.reveal(rows(60, 61), rows(1, 0))
    later = situation().round(strategy("random"), 3)
    later.work.purchase.annotator = Brightness()
    later = Round(2, grown, grown.unlabeled, None, later.rng, later.life, later.work)
    assert later.add(items(0.7)).tolist() == [62]
    np.testing.assert_array_equal(later.work.purchase.items, items(0.7))


def test_rows_of_the_pool_and_added_ones_may_be_bought_together(current):
    added, own = current.add(items(0.9)), current.candidates[:2]
    labels = current.ask(np.concatenate([own, added]))
    assert labels.tolist() == [0, 0, 1]
    assert current.work.purchase.settled(np.concatenate([added, own])).tolist() == [1, 0, 0]
    assert current.work.purchase.annotator.asked == [("label", 1)]


def test_a_line_is_one_annotation_and_labels_all_its_rows(current):
    lines = [current.add(items(*np.linspace(0, 1, 4))) for _ in range(2)]
    for line in lines:
        assert current.ask_line(line).tolist() == [0, 0, 1, 1]
    own = int(current.candidates[0])
    found = checked(batch(*lines[0], own, *lines[1]), current, 3, "any")
    assert current.work.purchase.annotations(found.rows).tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    with pytest.raises(ValueError, match="3 distinct rows, got 8 of 8, 2 annotations"):
        checked(batch(*lines[0], *lines[1]), current, 3, "any")
    with pytest.raises(ValueError, match="left some out"):
        checked(batch(*lines[0], own, *lines[1][:-1]), current, 3, "any")
    assert [kind for kind, _ in current.work.purchase.annotator.asked] == ["divide", "divide"]


def test_no_more_annotations_are_sold_than_the_round_buys(current):
    for _ in range(3):
        current.ask_line(current.add(items(0, 1)))
    with pytest.raises(ValueError, match="buys 3 labels and ask wanted 4"):
        current.ask_line(current.add(items(0, 1)))
    with pytest.raises(ValueError, match="buys 3 labels and ask wanted 4"):
        current.ask(current.candidates[:1])


def test_lines_are_of_new_rows_asked_once(current):
    added = current.add(items(0.1, 0.9, 0.2))
    current.ask(added[2:])
    for wrong in (rows(*added), added[:1], rows(added[0], added[0]), current.candidates[:2]):
        with pytest.raises(ValueError, match="ask_line takes"):
            current.ask_line(wrong)
    current.ask_line(added[:2])
    with pytest.raises(ValueError, match="not asked before"):
        current.ask(added[:1])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (batch(60, 61), "added 3 rows and left some out"),
        (batch(60, 61, 62, 63), "got row 63"),
        (batch(60, 61, 62, 62), "must return 3 distinct rows, got 3 of 4"),
        (batch(60, 61, 62, 1), "must return 3 distinct rows, got 4 of 4"),
    ],
)
def test_a_batch_has_all_added_rows_and_nothing_beyond_its_size(current, returned, message):
    current.add(items(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=message):
        checked(returned, current, 3, "any")


def test_rows_are_not_added_where_nobody_labels_them(situation):
    current = situation().round(strategy("random"), 3)
    with pytest.raises(ValueError, match="choose oracle=reference"):
        current.add(items(0.5))


def test_stages_refuse_strategies_that_make_their_own_rows():
    for stages in (("gaal", "random"), ("random", "gaal")):
        first, second = map(strategy, stages)
        with pytest.raises(ValueError, match="makes its own"):
            type(strategy("two_stage"))(first, second, 10)


def test_other_strategies_never_see_synthetic_rows_among_their_candidates():
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    at = Situation(points, {0: 0, 1: 1, 2: 2})
    at.pool = at.pool.add(points[:3] + 1).reveal(rows(20, 21, 22), rows(0, 1, 2))
    at.model = at.model.on(at.pool.inputs)
    for name in ("random", "margin", "badge", "coreset", "kmedoids", "typiclust", "neighbors", "propagation"):
        who = strategy(name)
        current = at.round(who, 17)
        assert sorted(checked(who.select(current, 17), current, 17, name).rows) == list(range(3, 20))
