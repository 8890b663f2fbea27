"""Rows and their two nearest medoids: distances from below, changes, swaps."""

import numpy as np
import pytest
from crowds import CASES, crowd
from scipy.spatial.distance import cdist

from alrun.compiled import threads
from alrun.coverage.assignment import Assignment, Space, changes_plainly


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
