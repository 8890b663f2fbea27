from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from alrun.coverage import k_center as module
from alrun.coverage.distances import folded, squared_distances
from alrun.coverage.k_center import k_center


def cloud(kind, seed=0, n=300):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(n, 7))
    centers = 100 * rng.normal(size=(10, 40))
    points = {
        "plain": normal,
        "wide": rng.normal(size=(n, 100)),
        "one feature": rng.integers(0, 40, (n, 1)),
        "integers": rng.integers(0, 4, (n, 3)),
        "corners": rng.integers(0, 2, (n, 33)),
        "equidistant": np.eye(n),
        "a line": np.outer(rng.normal(size=n), rng.normal(size=20)),
        "duplicates": normal[rng.integers(n // 4, size=n)],
        "a crowd": np.vstack([np.ones((n // 2, 7)), normal[: n - n // 2]]),
        "constant": np.full((n, 3), 0.7),
        "signs of zero": np.where(rng.random((n, 2)) < 0.5, 0.0, -0.0),
        "tight clusters": centers[rng.integers(10, size=n)] + 0.01 * rng.normal(size=(n, 40)),
        "outliers": np.vstack([[[1e8] * 7], [[-1e12] * 7], normal[2:]]),
        "far from the origin": normal + 1e5,
        "tiny": normal * 1e-30,
        "denormal": rng.integers(-9, 9, (n, 2)) * 1e-45,
        "huge": normal * 1e37,
    }[kind]
    return points.astype(np.float32)


KINDS = [
    "plain",
    "wide",
    "one feature",
    "integers",
    "corners",
    "equidistant",
    "a line",
    "duplicates",
    "a crowd",
]
KINDS += ["constant", "signs of zero", "tight clusters", "outliers", "far from the origin"]
KINDS += ["tiny", "denormal", "huge"]


def split(points, labeled, seed=0):
    """Random labeled rows, and all others."""
    rows = np.random.default_rng([seed, labeled]).permutation(len(points))
    return np.sort(rows[:labeled]), np.sort(rows[labeled:])


def plainly(monkeypatch, *given):
    with monkeypatch.context() as patch:
        patch.setattr(module, "COMPILED", False)
        return k_center(*given)


def by_definition(points, centers, candidates, size):
    """Farthest-first traversal on exact integers."""
    points = [[int(x) for x in point] for point in points]
    gap = {
        row: min(
            sum((x - y) ** 2 for x, y in zip(points[row], points[center], strict=True)) for center in centers
        )
        for row in candidates.tolist()
    }
    picks, gaps = [], []
    for _ in range(size):
        best = min(gap, key=lambda row: (-gap[row], row))
        picks.append(best)
        gaps.append(gap.pop(best))
        for row in gap:
            gap[row] = min(
                gap[row], sum((x - y) ** 2 for x, y in zip(points[row], points[best], strict=True))
            )
    return picks, np.sqrt(gaps)


@pytest.mark.parametrize("labeled", [0, 1, 20, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_pruning_changes_no_bit(kind, labeled, monkeypatch):
    for seed in range(3):
        points = cloud(kind, seed)
        given = points, *split(points, labeled, seed), 60
        rows, distances = k_center(*given)
        plain_rows, plain_distances = plainly(monkeypatch, *given)
        assert rows.tolist() == plain_rows.tolist()
        assert distances.tobytes() == plain_distances.tobytes()


def test_pruning_changes_no_bit_on_many_small_clouds(monkeypatch):
    rng = np.random.default_rng(5)
    for seed in range(300):
        n, d = rng.integers(2, 40), rng.integers(1, 20)
        points = (rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
        if seed % 2:
            points = np.round(points)
        given = points, *split(points, rng.integers(0, n), seed), int(rng.integers(1, n + 1))
        (rows, distances), (plain, gaps) = k_center(*given), plainly(monkeypatch, *given)
        assert rows.tolist() == plain.tolist()
        assert distances.tobytes() == gaps.tobytes()


@pytest.mark.parametrize("kind", ["one feature", "integers", "corners", "equidistant", "signs of zero"])
def test_choices_are_the_farthest_rows_with_ties_to_the_smaller_one(kind):
    points = cloud(kind, n=60)
    for labeled in (1, 7):
        centers, candidates = split(points, labeled)
        rows, distances = k_center(points, centers, candidates, 30)
        best, gaps = by_definition(points, centers, candidates, 30)
        assert rows.tolist() == best
        np.testing.assert_array_equal(distances, gaps)


def test_a_grid_is_covered_from_its_corners():
    grid = np.array([[x, y] for x in range(5) for y in range(5)], np.float32)
    rows, distances = k_center(grid, np.array([12]), np.delete(np.arange(25), 12), 8)
    assert rows.tolist() == [0, 4, 20, 24, 2, 10, 14, 22]
    np.testing.assert_array_equal(distances, np.sqrt([8, 8, 8, 8, 4, 4, 4, 4]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_is_chosen_twice_and_distances_never_grow(kind):
    points = cloud(kind, n=100)
    for labeled in (0, 30):
        centers, candidates = split(points, labeled)
        rows, distances = k_center(points, centers, candidates, len(candidates))
        assert np.sort(rows).tolist() == candidates.tolist()
        assert (np.diff(distances[1:]) <= 0).all()


@pytest.mark.parametrize("kind", ["plain", "wide", "tight clusters"])
def test_distances_are_those_to_the_nearest_center_when_chosen(kind):
    points = cloud(kind)
    centers, candidates = split(points, 5)
    rows, distances = k_center(points, centers, candidates, 40)
    for step, row in enumerate(rows):
        before = np.concatenate([centers, rows[:step]])
        exact = cdist(points[[row]].astype(float), points[before].astype(float)).min()
        assert distances[step] == pytest.approx(exact, rel=1e-12)


def test_without_a_center_the_first_is_closest_to_the_candidates_mean_at_distance_inf():
    points = np.array([[0], [9], [4], [6], [100], [1]], np.float32)
    rows, distances = k_center(points, np.empty(0, np.int64), np.array([0, 1, 2, 3, 5]), 2)
    assert rows.tolist() == [2, 1]
    assert distances.tolist() == [np.inf, 5.0]


def test_the_radius_is_at_most_twice_the_smallest_possible():
    for seed in range(20):
        points = np.random.default_rng(seed).normal(size=(9, 2)).astype(np.float32)
        gaps = cdist(points.astype(float), points.astype(float))
        rows, _ = k_center(points, np.empty(0, np.int64), np.arange(9), 3)
        best = min(gaps[list(chosen)].min(axis=0).max() for chosen in combinations(range(9), 3))
        assert gaps[rows].min(axis=0).max() <= 2 * best + 1e-12


@pytest.mark.parametrize("scale", [2.0**-60, 0.25, 2.0**60])
def test_scaling_by_a_power_of_two_scales_the_distances(scale):
    points = cloud("plain")
    given = *split(points, 10), 50
    rows, distances = k_center(points, *given)
    scaled, scaled_distances = k_center(points * np.float32(scale), *given)
    assert rows.tolist() == scaled.tolist()
    np.testing.assert_array_equal(scaled_distances, distances * scale)


def test_turned_integers_give_the_same_choices():
    points = cloud("integers")
    given = *split(points, 10), 50
    turned = points[:, [2, 0, 1]] * np.float32([1, -1, -1]) + np.float32([1000, -7, 0])
    assert k_center(points, *given)[0].tolist() == k_center(turned, *given)[0].tolist()


def test_the_order_of_candidates_and_centers_changes_nothing():
    points = cloud("duplicates")
    centers, candidates = split(points, 20)
    mixed = np.random.default_rng(1).permutation
    rows, distances = k_center(points, centers, candidates, 50)
    others, gaps = k_center(points, mixed(centers), mixed(candidates), 50)
    assert rows.tolist() == others.tolist()
    np.testing.assert_array_equal(distances, gaps)


def test_the_size_of_blocks_changes_nothing(monkeypatch):
    points = cloud("plain")
    given = points, *split(points, 50), 50
    whole = k_center(*given)[0]
    monkeypatch.setattr(module, "BLOCK_BYTES", 30_000)
    assert whole.tolist() == k_center(*given)[0].tolist()


def test_more_than_all_gives_all_and_none_gives_none():
    points = cloud("plain", n=20)
    centers, candidates = split(points, 5)
    assert np.sort(k_center(points, centers, candidates, 99)[0]).tolist() == candidates.tolist()
    for rows in (candidates, candidates[:0]):
        picks, distances = k_center(points, centers, rows, 0)
        assert (picks.size, distances.size, picks.dtype, distances.dtype) == (0, 0, np.int64, np.float64)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_names_the_first_bad_row(wrong):
    points = cloud("plain")
    points[[17, 40], 2] = wrong
    with pytest.raises(ValueError, match=r"features must be finite, got NaN or inf in row 17"):
        k_center(points, *split(points, 10), 5)


def test_features_are_left_as_they_were_and_may_lie_in_any_order():
    points = cloud("plain")
    given, before = (*split(points, 10), 50), points.copy()
    rows, _ = k_center(points, *given)
    assert (points == before).all()
    for same in (np.asfortranarray(points), np.repeat(points, 2, axis=1)[:, ::2]):
        assert k_center(same, *given)[0].tolist() == rows.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_sketches_bound_distances_from_below(kind):
    points = cloud(kind, n=60)
    rows = np.arange(60)
    space = module._sketched(points, rows, points.mean(axis=0, dtype=np.float64))
    exact = cdist(points.astype(np.float64), points.astype(np.float64), "sqeuclidean") * (1 + 1e-13)
    for one in rows:
        mine, extra = space.sketches[one], space.slacks[one]
        bounds = [module._apart(space.sketches, space.slacks, space.scale, row, mine, extra) for row in rows]
        assert (np.array(bounds) <= exact[one]).all()
    if kind in ("a line", "one feature", "integers"):  # all that there is lies along the axes
        assert np.mean(np.array(bounds) >= 0.999 * exact[-1]) > 0.9


def test_sums_are_folded_in_the_middle():
    assert folded(np.array([[1, 2.0**-53, 0, 2.0**-53], [1, 2, 3, 4]])).tolist() == [1 + 2.0**-52, 10]
    assert folded(np.array([[1, 2, 4.0, 8, 16]])).tolist() == [31]
    points = cloud("wide")
    exact = cdist(points.astype(float), points[:1].astype(float), "sqeuclidean")[:, 0]
    np.testing.assert_allclose(squared_distances(points, np.arange(300), points[0]), exact, rtol=1e-14)
