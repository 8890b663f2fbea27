import tracemalloc

import numpy as np
import pytest
import torch
from conftest import Situation, strategy
from crowds import crowd, gaps

from alrun.coverage import assignment
from alrun.coverage import ball_cover as module
from alrun.coverage.assignment import Space
from alrun.coverage.ball_cover import Balls, ball_cover, pure_radius, stranger_distances
from alrun.coverage.clusters import k_means
from alrun.coverage.k_center import k_center

KINDS = ["plain", "wide", "integers", "duplicates", "constant", "an outlier", "far from the origin"]
KINDS += ["tight clusters", "tiny", "huge"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def radii(points):
    """Radii among the distances, where many pairs lie on or next to the boundary, and beyond them all."""
    some = np.quantile(gaps(points), [0.01, 0.1, 0.5, 0.9])
    return [0.0, *some.tolist(), 2 * float(gaps(points).max()), 1e30]


def plainly(monkeypatch, work):
    with monkeypatch.context() as patch:
        patch.setattr(module, "COMPILED", False)
        patch.setattr(assignment, "COMPILED", False)
        return work()


def by_definition(inside, covered, candidates, size):
    """The greedy cover, each gain counted anew; the smaller row wins ties."""
    covered, rest, picks, gained = covered.copy(), sorted(candidates.tolist()), [], []
    while len(picks) < size and rest:
        gain, best = max((int((inside[row] & ~covered).sum()), -row) for row in rest)
        if gain == 0:
            break
        picks.append(-best)
        gained.append(gain)
        rest.remove(-best)
        covered |= inside[-best]
    return picks, gained, covered


@each_kind
def test_tallies_are_those_of_exact_distances(kind, monkeypatch):
    points = crowd(kind)
    exact = Space.of(points, "euclidean")
    rows = np.random.default_rng(1).choice(120, 40, replace=False)
    table = np.stack([exact.distances(row, np.arange(120)) for row in range(120)])
    for radius in radii(points):
        balls = Balls.of(points, radius)
        assert balls.tally(rows).tolist() == (table[rows] <= radius).sum(axis=0).tolist()
        plain = plainly(monkeypatch, lambda balls=balls: balls.tally(rows))
        assert plain.tolist() == balls.tally(rows).tolist()


def test_a_row_at_exactly_the_radius_is_in_the_ball():
    points = np.array([[0, 0], [3, 4], [3, 5]], np.float32)
    assert Balls.of(points, 5.0).tally(np.array([0])).tolist() == [1, 1, 0]
    assert Balls.of(points, np.nextafter(5.0, 0)).tally(np.array([0])).tolist() == [1, 0, 0]


@each_kind
def test_each_choice_has_the_largest_gain_and_ties_fall_to_the_smaller_row(kind):
    points, rng = crowd(kind), np.random.default_rng(2)
    for radius in radii(points)[:-1]:
        balls = Balls.of(points, radius)
        exact = np.stack([balls.space.distances(row, np.arange(120)) for row in range(120)])
        inside, labeled = exact <= radius, rng.choice(120, 4, replace=False)
        candidates = np.setdiff1d(rng.permutation(120)[:90], labeled)
        cover = balls.covering(balls.nothing_covered(), labeled)
        rows, gained, after = ball_cover(balls, cover, rng.permutation(candidates), 30)
        picks, gains, covered = by_definition(inside, inside[labeled].any(axis=0), candidates, 30)
        assert (rows.tolist(), gained.tolist()) == (picks, gains)
        assert after.covered.tolist() == covered.tolist()


def test_gains_stay_exact_whether_subtracted_or_counted_anew():
    points = crowd("plain")
    for radius in radii(points):
        balls = Balls.of(points, radius)
        cover, exact = balls.nothing_covered(), gaps(points) <= radius
        for row in np.random.default_rng(0).permutation(120)[:12]:
            before, cover = cover, balls.covering(cover, np.array([row]))
            assert (cover.covered >= before.covered).all()
            assert cover.gains.tolist() == (exact & ~cover.covered).sum(axis=1).tolist()


def test_covering_row_by_row_and_all_at_once_is_the_same():
    balls = Balls.of(crowd("plain"), 1.5)
    one = balls.nothing_covered()
    for row in (3, 77, 20):
        one = balls.covering(one, np.array([row]))
    both = balls.covering(balls.nothing_covered(), np.array([3, 77, 20]))
    assert one.covered.tolist() == both.covered.tolist()
    assert one.gains.tolist() == both.gains.tolist()


def test_it_stops_where_all_that_can_be_covered_is():
    balls = Balls.of(crowd("tight clusters"), 1.0)
    rows, gained, after = ball_cover(balls, balls.nothing_covered(), np.arange(120), 120)
    assert len(rows) == 5
    assert gained.sum() == 120
    assert after.covered.all()
    none, _, same = ball_cover(balls, after, np.arange(120), 5)
    assert len(none) == 0
    assert same is after


def test_blocks_and_threads_change_nothing(monkeypatch):
    points, rows = crowd("plain", n=500), np.arange(500)
    groups = rows % 3
    tallies, distances = [], []
    for block, threads in ((2**26, 1), (2**26, 3), (2**13, 2)):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(threads)
            with monkeypatch.context() as patch:
                patch.setattr(module, "BLOCK_BYTES", block)
                tallies.append(Balls.of(points, 1.5).tally(rows).tolist())
                distances.append(stranger_distances(Space.of(points, "euclidean"), groups).tobytes())
        finally:
            torch.set_num_threads(before)
    assert tallies[0] == tallies[1] == tallies[2]
    assert distances[0] == distances[1] == distances[2]


def test_memory_does_not_grow_with_the_number_of_pairs():
    points = np.random.default_rng(0).normal(size=(12_000, 4)).astype(np.float32)
    Balls.of(points[:100], 1.0).nothing_covered()
    tracemalloc.start()
    balls = Balls.of(points, 1.0)
    ball_cover(balls, balls.nothing_covered(), np.arange(12_000), 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 2**20 < 12_000**2 * 4


@each_kind
def test_stranger_distances_are_the_nearest_of_another_group(kind, monkeypatch):
    points, groups = crowd(kind), np.random.default_rng(3).integers(0, 4, 120)
    space = Space.of(points, "euclidean")
    exact = np.stack([space.distances(row, np.arange(120)) for row in range(120)])
    expected = np.where(groups != groups[:, None], exact, np.inf).min(axis=1)
    assert stranger_distances(space, groups).tolist() == expected.tolist()
    assert plainly(monkeypatch, lambda: stranger_distances(space, groups)).tolist() == expected.tolist()


@pytest.mark.parametrize("purity", [0.01, 0.5, 0.55, 0.95, 1.0])
def test_the_pure_radius_is_the_largest_that_is_pure_enough(purity):
    points, groups = crowd("plain", n=100), np.random.default_rng(0).integers(0, 3, 100)
    exact = np.stack([Space.of(points, "euclidean").distances(row, np.arange(100)) for row in range(100)])

    def share(radius):
        return 1 - ((exact <= radius) & (groups != groups[:, None])).any(axis=1).mean()

    radius = pure_radius(points, groups, purity)
    assert share(radius) >= purity - 1e-12
    assert share(np.nextafter(radius, np.inf)) < purity
    assert share(1e-6) == 1


def test_without_strangers_the_pure_ball_holds_everything():
    points = crowd("plain")
    radius = pure_radius(points, np.zeros(120, np.int64), 0.95)
    assert Balls.of(points, radius).tally(np.arange(120)).tolist() == [120] * 120


def test_bad_radii_and_features_are_refused():
    points = crowd("plain")
    for radius in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="radius of balls must be at least 0"):
            Balls.of(points, radius)
    points[7, 2] = np.nan
    for work in (lambda: Balls.of(points, 1.0), lambda: pure_radius(points, np.arange(120), 0.9)):
        with pytest.raises(ValueError, match="row 7 holds nan"):
            work()


def chosen(who, at, size, **options):
    current = at.round(who, size, **options)
    current.life.purchases.append(at.pool.labeled)
    return current, who.select(current, size)


def test_fixed_features_and_those_of_the_round_are_covered_alike():
    points = crowd("plain", n=80)
    for words in (["delta=1.2"], ["purity=0.8"], ["delta=0.7", "unit=true"]):
        who = strategy("probcover", *words)
        at = Situation(points, {3: 0, 40: 1, 41: 2}, fixed=True)
        current, batch = chosen(who, at, 12)
        balls, nothing = who._start(current, current.life.stream("select", "once", *current.life.kept))
        expected = ball_cover(balls, balls.covering(nothing, at.pool.labeled), current.candidates, 12)
        assert batch.rows[: len(expected[0])].tolist() == expected[0].tolist()
        assert batch.scores[: len(expected[0])].tolist() == expected[1].tolist()
        assert batch.notes["covered"] == expected[2].covered.mean()


def test_later_rounds_go_on_from_what_is_kept():
    points, who = crowd("plain", n=80), strategy("probcover", "delta=1.0")
    at = Situation(points, {3: 0, 40: 1}, fixed=True)
    current, first = chosen(who, at, 5)
    current.life.purchases.append(first.rows)
    pool = at.pool.reveal(first.rows, np.zeros(5, np.int64))
    narrowed = current.narrow(pool.unlabeled)
    second = who.select(narrowed, 5)
    labeled = dict.fromkeys([3, 40, *first.rows.tolist()], 0)
    _, anew = chosen(who, Situation(points, labeled, fixed=True), 5)
    assert second.rows.tolist() == anew.rows.tolist()
    assert second.scores.tolist() == anew.scores.tolist()


def test_what_balls_leave_is_chosen_by_k_center():
    points, who = crowd("tight clusters", n=60), strategy("probcover", "delta=1.0")
    at = Situation(points, {}, fixed=True)
    _, batch = chosen(who, at, 10, cold=True)
    assert batch.notes["farthest"] == 5
    assert batch.notes["covered"] == 1
    assert batch.scores.tolist()[6:] == [0] * 4
    rest = np.setdiff1d(np.arange(60), batch.rows[:5])
    assert batch.rows[5:].tolist() == k_center(points, np.sort(batch.rows[:5]), rest, 5)[0].tolist()


def test_the_radius_is_found_without_a_label_and_once_in_a_run():
    points, who = crowd("plain", n=80), strategy("probcover")
    at = Situation(points, {}, fixed=True)
    current, batch = chosen(who, at, 5, cold=True)
    (name,) = (each for each in current.life.clock.seconds if each.startswith("probcover"))
    groups = k_means(points, 3, current.life.stream("select", "once", name))
    assert batch.notes["delta"] == pure_radius(points, groups, 0.95)
    made = current.life.once[name]
    who.select(current, 5)
    assert current.life.once[name] is made


@pytest.mark.parametrize(("words", "times"), [((), 2), (("delta=1.0",), 1)])
def test_the_work_on_many_rows_is_said_once_before_it_begins(words, times, monkeypatch, caplog):
    monkeypatch.setattr("alrun.strategies.probcover.MANY", 79)
    points, who = crowd("plain", n=80), strategy("probcover", *words)
    current, _ = chosen(who, Situation(points, {}, fixed=True), 5, cold=True)
    who.select(current, 5)
    (line,) = caplog.messages
    assert f"all 80 rows with each other before it chooses, {times * 80**2 * points.shape[1]:.2g} " in line
    assert ("strategy.delta" in line) == (times == 2)
    monkeypatch.setattr("alrun.strategies.probcover.MANY", 80)
    chosen(who, Situation(points, {}, fixed=True), 5, cold=True)
    assert len(caplog.messages) == 1
