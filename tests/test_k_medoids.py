from dataclasses import fields
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from alrun.compiled import threads
from alrun.coverage import assignment
from alrun.coverage import k_medoids as module
from alrun.coverage.assignment import Assignment, Space, changes_plainly
from alrun.coverage.k_medoids import k_medoids

NONE = np.empty(0, np.int64)


def medoids(points, size, *, fixed=(), candidates=None, metric="euclidean", seed=0, sample=None, sweeps=100):
    fixed = np.array(fixed, np.int64)
    rest = np.setdiff1d(np.arange(len(points)), fixed) if candidates is None else np.array(candidates)
    rng = np.random.default_rng(seed)
    return k_medoids(points, fixed, rest, size, metric=metric, rng=rng, sample=sample, sweeps=sweeps)


def gaps(points, metric="euclidean"):
    """All distances by definition; zero rows are orthogonal to all but zero rows."""
    wide = points.astype(float)
    if metric == "euclidean":
        return cdist(wide, wide)
    zero = ~wide.any(axis=1)
    wide[zero] = 1
    return np.where(zero[:, None] | zero, (zero[:, None] ^ zero).astype(float), cdist(wide, wide, "cosine"))


def objective(distances, rows):
    return distances[:, list(rows)].min(axis=1).mean()


def crowd(kind, n=120, seed=0):
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(n, 6))
    outlier = plain.copy()
    outlier[n // 2] = 1e8
    zeros = plain.copy()
    zeros[::7] = 0
    points = {
        "plain": plain,
        "one feature": rng.normal(size=(n, 1)),
        "integers": rng.integers(0, 3, (n, 3)),
        "duplicates": plain[rng.integers(8, size=n)],
        "constant": np.full((n, 3), 0.7),
        "zero rows": zeros,
        "an outlier": outlier,
        "far from the origin": plain + 1e4,
        "tight clusters": 100 * plain[rng.integers(5, size=n)] + 1e-3 * plain,
        "tiny": plain * 1e-24,
        "huge": plain * 1e14,
    }[kind]
    return points.astype(np.float32)


KINDS = ["plain", "one feature", "integers", "duplicates", "constant", "zero rows", "an outlier"]
KINDS += ["far from the origin", "tight clusters", "tiny", "huge"]
METRICS = ["euclidean", "cosine"]
CASES = [(kind, metric) for kind in KINDS for metric in METRICS]


@pytest.fixture(params=["compiled", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(assignment, "COMPILED", False)


@pytest.mark.usefixtures("way")
def test_two_groups_on_a_line_are_known_by_their_middles():
    found = medoids(np.array([[0], [1], [2], [10], [11], [13]], np.float32), 2)
    assert found.rows.tolist() == [1, 4]
    assert found.objective == pytest.approx(5 / 6, rel=1e-12)
    # Without the row at 1 its group is served from 11: 11 + 10 + 9 instead of 2; without 11, 9 + 10 + 12.
    np.testing.assert_allclose(found.losses, [28 / 6, 28 / 6], rtol=1e-12)
    assert found.converged
    assert found.tried == 6


@pytest.mark.parametrize("metric", METRICS)
def test_the_objective_is_near_the_best_of_all_choices(metric):
    ratios = np.empty((20, 5))
    for instance in range(20):
        rng = np.random.default_rng(instance)
        points = rng.normal(size=(int(rng.integers(8, 13)), 3)).astype(np.float32)
        size, fixed = int(rng.integers(1, 5)), list(range(instance % 3))
        distances = gaps(points, metric)
        free = range(len(fixed), len(points))
        best = min(objective(distances, [*fixed, *rows]) for rows in combinations(free, size))
        for seed in range(5):
            found = medoids(points, size, fixed=fixed, metric=metric, seed=seed)
            ratios[instance, seed] = found.objective / best
    assert ratios.min() > 1 - 1e-6
    assert ratios.mean() < 1.015
    assert ratios.min(axis=1).max() < 1.05
    assert ratios.max() < 1.2


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_objective_and_losses_are_those_of_the_definition(kind, metric):
    points, fixed = crowd(kind), [3, 50]
    found = medoids(points, 7, fixed=fixed, metric=metric)
    distances = gaps(points, metric)
    chosen = [*fixed, *found.rows]
    least = 1e-11 if metric == "cosine" else 0  # unit rows are rounded to float32
    whole = objective(distances, chosen)
    np.testing.assert_allclose(found.objective, whole, rtol=1e-6, atol=least)
    without = [objective(distances, [row for row in chosen if row != out]) for out in found.rows]
    np.testing.assert_allclose(found.losses, np.array(without) - whole, rtol=1e-6, atol=1e-6 * whole + least)
    order = np.lexsort((found.rows, -found.losses))
    assert (order == np.arange(7)).all()


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_the_objective_falls_with_each_swap_until_no_single_swap_lowers_it(kind, metric):
    points, fixed = crowd(kind, n=60, seed=1), [0, 9]
    found = medoids(points, 5, fixed=fixed, metric=metric)
    assert (np.diff(found.history) < 0).all()
    assert (found.history[-1], found.swaps) == (found.objective, len(found.history) - 1)
    assert found.converged
    distances = gaps(points, metric)
    for out in found.rows:
        rest = [*fixed, *(row for row in found.rows if row != out)]
        swapped = np.minimum(distances, distances[:, rest].min(axis=1, keepdims=True)).mean(axis=0)
        assert swapped.min() >= found.objective * (1 - 1e-6) - 1e-7 * (metric == "cosine")


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_compiled_and_plain_ways_give_the_same_bits(kind, metric, monkeypatch):
    points, ways = crowd(kind), []
    for compiled in (assignment.COMPILED, False):
        monkeypatch.setattr(assignment, "COMPILED", compiled)
        ways.append(
            [
                medoids(points, size, fixed=fixed, metric=metric, seed=seed)
                for seed, (size, fixed) in enumerate([(6, []), (6, [1, 70]), (1, []), (15, [2]), (110, [])])
            ]
        )
    for ours, plain in zip(*ways, strict=True):
        assert_equal(ours, plain)


def assert_equal(one, other):
    for each in fields(one):
        np.testing.assert_array_equal(getattr(one, each.name), getattr(other, each.name))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["plain", "integers", "tight clusters"])
def test_threads_and_blocks_change_nothing(kind, metric, monkeypatch):
    points, before = crowd(kind, n=200), torch.get_num_threads()
    whole = medoids(points, 12, fixed=[5], metric=metric)
    monkeypatch.setattr(assignment, "HANDFUL", 0)
    try:
        for count, size in ((1, 9000), (2, 9000), (3, 2**22)):
            torch.set_num_threads(count)
            monkeypatch.setattr(assignment, "BLOCK_BYTES", size)
            monkeypatch.setattr(module, "BLOCK_BYTES", size)
            assert_equal(medoids(points, 12, fixed=[5], metric=metric), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_distances_from_below_are_below_and_near(kind, metric):
    points = crowd(kind, n=90)
    space, rows = Space.of(points, metric), np.arange(90)
    exact = np.array([space.distances(row, rows) for row in range(90)])
    assert (np.diag(exact) == 0).all()
    assert (exact == exact.T).all()
    assert (exact < space.ceiling).all() or kind == "constant"
    below = space.below(rows).astype(float)
    squares = exact if metric == "cosine" else exact**2
    assert (below <= squares).all()
    sizes = (space.lifted[:, :-2].astype(float) ** 2).sum(axis=1)
    assert (squares - below <= 1e-5 * (sizes[:, None] + sizes) + 3e-30).all()


@pytest.mark.parametrize("width", [1, 3, 64, 512])
def test_wide_rows_are_not_above_their_distances_either(width):
    rng = np.random.default_rng(width)
    points = np.abs(rng.normal(size=(200, width))).astype(np.float32)
    points[100:] = points[:100] * (1 + 1e-4 * rng.normal(size=(100, 1)))
    space, rows = Space.of(points.astype(np.float32), "euclidean"), np.arange(200)
    exact = np.array([space.distances(row, rows) for row in range(200)])
    assert (space.below(rows) <= exact**2).all()
    np.testing.assert_allclose(exact, cdist(points.astype(float), points.astype(float)), atol=1e-12)


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_changes_are_not_above_those_of_the_best_swaps(kind, metric):
    points = crowd(kind, n=50)
    space, rows = Space.of(points, metric), np.arange(50)
    reserve = space.distances(7, rows)
    with threads() as share:
        found = Assignment(space, np.array([3, 20, 31]), reserve, share)
        changes = found.changes(space.below(rows))
        plain = np.empty(50)
        state = (space.cuts(found.gaps[:, 1]), found.near, found.gaps, found.losses, metric == "euclidean")
        changes_plainly(space.below(rows), state, plain)
    exact = np.array([space.distances(row, rows) for row in range(50)])
    total = exact[[3, 20, 31, 7]].min(axis=0).sum()
    trials = [
        [exact[[*rest, 7, row]].min(axis=0).sum() for row in rows] for rest in ([20, 31], [3, 31], [3, 20])
    ]
    best = np.min(trials, axis=0) - total
    assert (changes <= best).all()
    assert (plain - changes <= 1e-9 * exact.sum() + 1e-30).all()
    if kind in ("plain", "zero rows", "integers", "huge"):
        np.testing.assert_allclose(changes, best, atol=1e-3 * total)


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_swaps_leave_the_assignment_as_it_would_be_made_anew(kind, metric):
    points = crowd(kind)
    space, rng = Space.of(points, metric), np.random.default_rng(0)
    reserve = space.distances(0, np.arange(len(points)))
    with threads() as share:
        found = Assignment(space, np.array([5, 17, 60, 61]), reserve, share)
        for candidate in rng.permutation(len(points)):
            if candidate in found.chosen or not found.swap(
                int(candidate), space.below(np.array([candidate]))[0]
            ):
                continue
            anew = Assignment(space, found.chosen.copy(), reserve, share)
            assert (anew.gaps == found.gaps).all()
            assert anew.total == found.total
            untied = anew.gaps[:, 0] < anew.gaps[:, 1]
            assert (anew.near[untied, 0] == found.near[untied, 0]).all()
            np.testing.assert_allclose(anew.losses.sum(), found.losses.sum(), rtol=1e-9)


def test_fixed_medoids_stay_and_are_never_chosen():
    points = np.vstack([np.zeros((30, 2)), np.full((30, 2), 5), np.full((5, 2), 9)]).astype(np.float32)
    points += np.random.default_rng(0).normal(size=points.shape).astype(np.float32) / 10
    found = medoids(points, 1, fixed=[0, 1])
    # The first group has its medoids; the larger of the others needs one.
    assert 30 <= found.rows[0] < 60
    assert medoids(points, 63, fixed=[0, 1]).rows.tolist() != list(range(2, 65))
    assert set(medoids(points, 63, fixed=[0, 1]).rows) == set(range(2, 65))


def test_only_candidates_are_chosen():
    points, candidates = crowd("plain"), np.arange(40, 60)[::-1].copy()
    for fixed in ([], [3]):
        found = medoids(points, 5, fixed=fixed, candidates=candidates)
        assert set(found.rows) <= set(candidates)
        assert len(set(found.rows)) == 5
        assert found.tried == 20
        assert_equal(found, medoids(points, 5, fixed=fixed, candidates=np.sort(candidates)))


def test_a_fixed_medoid_named_twice_counts_once():
    points = crowd("plain")
    assert_equal(medoids(points, 4, fixed=[3, 3, 8]), medoids(points, 4, fixed=[3, 8]))


def test_more_medoids_than_distinct_points_are_distinct_rows():
    found = medoids(crowd("duplicates"), 20)
    assert found.objective == 0
    assert len(set(found.rows)) == 20
    assert (found.converged, found.losses[8:].sum()) == (True, 0)


def test_constant_points_cost_nothing():
    found = medoids(crowd("constant"), 3)
    assert (found.objective, found.swaps, len(set(found.rows))) == (0, 0, 3)


@pytest.mark.usefixtures("way")
def test_no_medoid_is_a_choice_too():
    points = crowd("plain")
    assert medoids(points, 0).objective == np.inf
    found = medoids(points, 0, fixed=[2, 7])
    assert found.objective == pytest.approx(objective(gaps(points), [2, 7]), rel=1e-9)
    assert (len(found.rows), len(found.losses), found.converged) == (0, 0, True)
    assert medoids(points, 0, candidates=NONE).objective == np.inf


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_medoid_is_the_row_nearest_to_all(kind, metric):
    points = crowd(kind, n=40)
    found = medoids(points, 1, metric=metric)
    means = gaps(points, metric).mean(axis=0)
    assert found.objective == pytest.approx(means.min(), rel=1e-6, abs=1e-7 if metric == "cosine" else 0)
    assert found.losses.tolist() == [np.inf]


def test_all_candidates_can_be_chosen():
    points = crowd("plain", n=30)
    found = medoids(points, 30)
    assert (found.objective, sorted(found.rows)) == (0, list(range(30)))
    some = medoids(points, 4, candidates=[5, 9, 2, 22])
    assert sorted(some.rows) == [2, 5, 9, 22]
    assert some.objective == pytest.approx(objective(gaps(points), [2, 5, 9, 22]), rel=1e-9)


@pytest.mark.parametrize("fixed", [[], [0]])
def test_one_candidate_is_chosen(fixed):
    points = crowd("plain", n=30)
    found = medoids(points, 1, fixed=fixed, candidates=[12])
    assert found.rows.tolist() == [12]
    assert (found.converged, found.swaps) == (True, 0)


def test_a_single_point_is_its_own_medoid():
    found = medoids(np.ones((1, 2), np.float32), 1)
    assert (found.rows.tolist(), found.objective) == ([0], 0)


def test_permuted_rows_give_an_equally_good_result():
    points, order = crowd("plain", n=300), np.random.default_rng(5).permutation(300)
    plain = np.mean([medoids(points, 8, seed=seed).objective for seed in range(5)])
    moved = np.mean([medoids(points[order], 8, seed=seed).objective for seed in range(5)])
    assert moved == pytest.approx(plain, rel=0.005)


def test_the_seed_alone_decides_and_nothing_else_is_touched():
    points = crowd("plain", n=300)
    before, state = points.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert_equal(medoids(points, 9, seed=3), medoids(points, 9, seed=3))
    assert any((medoids(points, 9, seed=seed).rows != medoids(points, 9).rows).any() for seed in range(1, 9))
    assert (points == before).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_a_sample_of_candidates_is_recorded_and_respected():
    points = crowd("plain", n=500)
    whole, some = medoids(points, 10), medoids(points, 10, sample=100)
    assert (whole.tried, some.tried) == (500, 100)
    assert whole.objective <= some.objective < 1.15 * whole.objective
    assert some.converged
    assert medoids(points, 10, sample=10_000).tried == 500


def test_one_sweep_compares_each_candidate_once_and_is_nearly_enough():
    points = crowd("plain", n=500)
    short, whole = medoids(points, 10, sweeps=1), medoids(points, 10)
    assert (short.sweeps, short.converged) == (1, False)
    assert whole.sweeps > 1
    assert whole.objective <= short.objective < 1.02 * whole.objective


def test_cosine_does_not_see_the_length_of_rows():
    points = crowd("plain")
    lengths = (2.0 ** np.random.default_rng(0).integers(-30, 20, (120, 1))).astype(np.float32)
    assert_equal(medoids(points, 6, metric="cosine"), medoids(points * lengths, 6, metric="cosine"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e16])
def test_a_feature_that_is_no_usable_number_names_the_first_bad_row(wrong):
    points = crowd("plain")
    points[[17, 40], 2] = wrong
    with pytest.raises(ValueError, match="row 17 holds"):
        medoids(points, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 121}, "size must be in 0..120, the number of candidates, got 121"),
        ({"size": -1}, "size must be in 0..120"),
        ({"candidates": [4, 9, 4]}, "got row 4 twice"),
        ({"candidates": [4, 9], "fixed": [9]}, "got row 9 twice"),
        ({"candidates": [4, 120]}, "rows in 0..119, got 120"),
        ({"candidates": [4], "fixed": [-1]}, "rows in 0..119, got -1"),
        ({"sweeps": 0}, "at least 1, got 0"),
        ({"sample": 0}, "at least 1, got 0"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        medoids(crowd("plain"), **({"size": 1} | options))


def test_the_objective_is_no_worse_than_that_of_the_kmedoids_package():
    peer = pytest.importorskip("kmedoids")
    ours, theirs = [], []
    for seed in range(6):
        points = crowd("plain", n=300, seed=seed)
        distances = gaps(points)
        found = medoids(points, 12, seed=seed)
        ours.append(found.objective)
        theirs.append(peer.fasterpam(distances, 12, random_state=seed, n_cpu=1).loss / 300)
        again = peer.fasterpam(distances, found.rows.astype(np.uint64), n_cpu=1)
        # What is no longer improved here is no longer improved there.
        assert again.n_swap == 0
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


def test_when_time_is_up_the_swaps_so_far_are_kept():
    points, said = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32), iter([True] * 5)
    options = {"metric": "euclidean", "sample": None, "sweeps": 9}

    def cut(in_time):
        rng = np.random.default_rng(0)
        return k_medoids(points, NONE, np.arange(200), 6, rng=rng, in_time=in_time, **options)

    begun, some, whole = cut(lambda: False), cut(lambda: next(said, False)), cut(lambda: True)
    assert (begun.swaps, begun.converged, whole.converged) == (0, False, True)
    assert begun.objective > some.objective > whole.objective
    assert len(set(some.rows.tolist())) == 6
