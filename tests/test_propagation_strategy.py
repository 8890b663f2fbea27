import numpy as np
import pytest
from conftest import Situation, settings, strategy
from pseudo import certainty_by_definition, spread_by_definition

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.features.simple import Penultimate, Pixels
from alrun.rounds import needs_model


def fan(n=80, labeled=6, seed=0):
    """Directions in a quarter of the plane, of which the largest component of each grows a class apart."""
    angles = np.sort(np.random.default_rng(seed).random(n)) * np.pi / 2
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows = np.linspace(2, n - 3, labeled).astype(int)
    return points, {int(row): int(angles[row] > np.pi / 4) for row in rows}


def made(points, labeled):
    return strategy("propagation"), Situation(points, labeled, classes=2, fixed=True)


def scores_by_hand(points, labeled, k=5):
    labels = np.full(len(points), -1)
    labels[list(labeled)] = list(labeled.values())
    return 1 - certainty_by_definition(spread_by_definition(points, labels, k))


def test_it_buys_where_the_propagated_labels_say_least():
    points, labeled = fan()
    at, who = Situation(points, labeled, classes=2, fixed=True), strategy("propagation", "iterations=500")
    batch = who.select(at.round(who, 8), 8)
    wanted = scores_by_hand(points, labeled)
    wanted[list(labeled)] = -1
    assert set(batch.rows.tolist()) == set(np.argsort(-wanted, kind="stable")[:8].tolist())
    np.testing.assert_allclose(batch.scores, wanted[batch.rows], atol=1e-4)
    assert (np.diff(batch.scores) <= 0).all()
    angles = np.arctan2(points[batch.rows, 1], points[batch.rows, 0])
    assert (np.abs(angles - np.pi / 4) < 0.4).all()  # where the classes meet
    assert batch.notes["unreached"] == 0
    assert batch.notes["unconverged"] == 0


def test_a_permuted_pool_gives_the_permuted_choice():
    points, labeled = fan()
    who, at = made(points, labeled)
    rows = who.select(at.round(who, 10), 10).rows
    order = np.random.default_rng(1).permutation(len(points))
    moved = {int(np.flatnonzero(order == row)[0]): label for row, label in labeled.items()}
    _, there = made(points[order], moved)
    assert order[who.select(there.round(who, 10), 10).rows].tolist() == rows.tolist()


def test_rows_no_label_reaches_come_first_and_ties_fall_to_the_smaller_row():
    far = np.repeat(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32), 10, axis=0)
    who, at = made(far, {0: 0, 5: 0})
    batch = who.select(at.round(who, 25), 25)
    assert batch.rows[:20].tolist() == list(range(10, 30))
    assert (batch.scores[:20] == 1).all()
    assert batch.rows[20:].tolist() == [1, 2, 3, 4, 6]
    assert batch.notes["unreached"] == 20


def test_rows_without_a_direction_are_unreached():
    points, labeled = fan()
    points[40:43] = 0
    labeled = {row: label for row, label in labeled.items() if not 40 <= row < 43}
    who, at = made(points, labeled)
    batch = who.select(at.round(who, 3), 3)
    assert batch.rows.tolist() == [40, 41, 42]
    assert batch.notes["isolated"] == 3


def test_candidates_left_out_still_carry_labels_on():
    points, labeled = fan()
    who, at = made(points, labeled)
    current = at.round(who, 5)
    every = dict(zip(*(part.tolist() for part in _all(who, at)), strict=True))
    batch = who.select(current.narrow(at.pool.unlabeled[::3]), 5)
    assert [every[row] for row in batch.rows.tolist()] == batch.scores.tolist()


def _all(who, at):
    size = len(at.pool.unlabeled)
    batch = who.select(at.round(who, size), size)
    return batch.rows, batch.scores


def test_before_the_first_label_another_strategy_chooses():
    who = strategy("propagation")
    assert needs_model(who, Pixels())
    assert needs_model(who, Penultimate())


def test_a_graph_of_another_metric_is_refused_before_and_in_the_round():
    with pytest.raises(ConfigError, match=r"graph.metric: propagation needs cosine, got sqeuclidean"):
        assemble(settings("strategy=propagation", "graph.metric=sqeuclidean"))
    assemble(settings("strategy=propagation"))
    assemble(settings("strategy=diffusion"))
    points, labeled = fan()
    who, at = made(points, labeled)
    with pytest.raises(ValueError, match="graph.metric=cosine, got sqeuclidean"):
        who.select(at.round(strategy("diffusion"), 3), 3)
