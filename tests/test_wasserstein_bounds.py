"""Lower bounds on what selections cost: floors of distances, values of columns, proofs, cuts, fixing."""

from dataclasses import replace

import numpy as np
import pytest
from every_selection import HAIR, Priced, distances, pool, task_of

from alrun.compiled import threads
from alrun.wasserstein import ascent, cuts, ground, lift
from alrun.wasserstein.ascent import Ascent, proof
from alrun.wasserstein.descent import choice
from alrun.wasserstein.ground import Ground
from alrun.wasserstein.lift import lifted
from alrun.wasserstein.master import openness
from alrun.wasserstein.over import Over


@pytest.fixture
def _large(monkeypatch):
    """Small pools are treated as large ones: by float32 products."""
    monkeypatch.setattr(ground, "EXACT_ROWS", 0)


def crowd(kind):
    rng = np.random.default_rng(7)
    points = rng.normal(size=(130, 12)).astype(np.float32)
    sizes = {"huge": 1e14, "tiny": 1e-30, "moderate": 1.0, "duplicates": 1.0, "far from zero": 1.0}
    points *= np.float32(sizes[kind])
    if kind == "duplicates":
        points[60:] = points[:70]
    if kind == "far from zero":
        points += np.float32(1e4)
    return points


KINDS = ("huge", "tiny", "moderate", "duplicates", "far from zero")


def mean_of_cheapest(costs, share):
    """By a whole sort."""
    ordered, whole = np.sort(costs), int(share)
    rest = (share - whole) * ordered[whole] if whole < len(ordered) else 0.0
    return (ordered[:whole].sum() + rest) / share


def mute(*_):
    """No watch."""


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_floors_are_close_below_the_distances(kind, metric, monkeypatch):
    points = crowd(kind)
    made = Ground.of(points, metric)
    columns, some = np.arange(0, 130, 3), np.arange(5, 90, 2)
    floor, exact = made.floor(columns), made.columns(columns).T
    assert floor.dtype == np.float32
    assert (floor <= exact).all()
    sizes = np.square((made.points - made.points.mean(axis=0)).astype(float)).sum(axis=1).max()
    lower, true = (
        np.square(gaps.astype(float)) if metric == "euclidean" else 2 * gaps for gaps in (floor, exact)
    )
    assert (lower >= true - 1e-5 * sizes).all()
    np.testing.assert_allclose(made.floor(columns, some), floor[:, some], rtol=1e-3, atol=1e-3 * exact.max())
    assert (made.floor(columns, some) <= exact[:, some]).all()
    monkeypatch.setattr(ground, "COMPILED", False)
    plain = made.floor(columns)
    assert (plain <= exact).all()
    np.testing.assert_allclose(plain, floor, atol=1e-5 * exact.max())


def test_small_pools_have_the_distances_themselves():
    made = Ground.of(pool(0, n=50, width=4), "cosine")
    columns = np.array([3, 7, 49])
    np.testing.assert_array_equal(made.floor(columns), made.columns(columns).T)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e16])
def test_features_that_are_no_usable_numbers_name_the_row(wrong):
    points = pool(0)
    points[4, 1] = wrong
    with pytest.raises(ValueError, match="row 4"):
        Ground.of(points, "euclidean")


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("size", [1, 2, 7, 100, 130])
@pytest.mark.parametrize("compiled", [True, False])
def test_values_of_columns_are_close_below_those_of_a_sort(size, compiled, monkeypatch):
    monkeypatch.setattr(lift, "COMPILED", lift.COMPILED and compiled)
    points, rng = crowd("moderate"), np.random.default_rng(size)
    made, columns = Ground.of(points, "euclidean"), np.arange(0, 130, 4)
    exact = made.columns(columns)
    for prices in (np.zeros(130), rng.normal(size=130), exact.min(axis=1), 1e3 + rng.normal(size=130)):
        true = np.array([mean_of_cheapest(column - prices, 130 / size) for column in exact.T])
        values, largest = lifted(made, prices, size, columns)
        assert (values <= true + 1e-12 * np.abs(true)).all()
        np.testing.assert_allclose(values, true, atol=1e-5 * (exact.max() + np.abs(prices).max()))
        again, _ = lifted(made, prices, size, columns, starts=largest)
        np.testing.assert_allclose(again, values, atol=1e-6 * (exact.max() + np.abs(prices).max()))
        far, _ = lifted(made, prices, size, columns, starts=largest + rng.normal(size=len(columns)) * 10)
        np.testing.assert_allclose(far, values, atol=1e-6 * (exact.max() + np.abs(prices).max()))
        enough = float(np.median(true))
        rough, _ = lifted(made, prices, size, columns, starts=largest - 3, enough=enough)
        assert (rough <= true + 1e-12 * np.abs(true)).all()
        assert (rough[true < enough] >= values[true < enough] - 1e-3).all()
        assert (rough[true > enough + 1e-3] > enough - 1e-3).all()


@pytest.mark.usefixtures("_large")
def test_values_at_prices_of_zero_end_where_all_rows_are_equal_or_one_column_takes_all():
    for points, size in ((np.ones((60, 3), np.float32), 4), (crowd("moderate"), 1), (crowd("tiny"), 3)):
        made = Ground.of(points, "euclidean")
        values, _ = lifted(made, np.zeros(len(points)), size, np.arange(len(points)))
        exact = made.columns(np.arange(len(points)))
        true = [mean_of_cheapest(column, len(points) / size) for column in exact.T]
        np.testing.assert_allclose(values, true, atol=max(1e-5 * exact.max(), 1e-15))


def test_values_of_a_sample_are_those_of_its_rows():
    made, rows = Ground.of(pool(0, n=60), "euclidean"), np.arange(0, 60, 2)
    prices, columns = np.random.default_rng(0).random(60), np.array([1, 8])
    values, _ = lifted(made, prices, 5, columns, rows=rows)
    exact = made.between(rows, columns)
    true = [mean_of_cheapest(column - prices[rows], 6) for column in exact.T]
    np.testing.assert_allclose(values, true)


@pytest.mark.parametrize("exact_rows", [0, 2048])
@pytest.mark.parametrize("fixed", [(), (3,)])
def test_a_proof_is_below_every_selection_whatever_the_prices(exact_rows, fixed, monkeypatch):
    monkeypatch.setattr(ground, "EXACT_ROWS", exact_rows)
    points, rng = pool(1), np.random.default_rng(0)
    task = task_of(points, "euclidean", 3, fixed)
    priced = Priced.of(distances(points, "euclidean"), 3, fixed)
    duals = choice(task, priced.sets[0]).plan.row_duals
    for prices in (np.zeros(12), duals, rng.normal(size=12), 5 * rng.random(12)):
        found = proof(task, prices)
        assert found.bound <= priced.least + HAIR
        assert priced.excess(cuts.proven(task, found)) <= HAIR
        near = np.union1d(task.fixed, rng.permutation(12)[:8])
        some = proof(task, prices, found, near)
        assert found.bound - 1e-5 <= some.bound <= priced.least + HAIR


@pytest.mark.parametrize("held_bytes", [0, 2**29])
@pytest.mark.parametrize("fixed", [(), (3, 20)])
def test_an_ascent_raises_a_proof_that_its_values_add_up_to(held_bytes, fixed, monkeypatch):
    monkeypatch.setattr(ascent, "HELD_BYTES", held_bytes)
    points = pool(2, n=40, width=3)
    task = task_of(points, "euclidean", 5, fixed)
    hat = choice(task, np.concatenate([task.fixed, task.candidates[: task.free]]))
    climbing = Ascent(task, proof(task, hat.plan.row_duals))
    bounds = [climbing.proof.bound]
    for _ in range(5):
        climbing.climb(0.9 * hat.cost, 40, mute)
        found = climbing.proof
        bounds.append(found.bound)
        cheapest = task.cheapest(found.values)
        assert found.bound == pytest.approx(found.prices.mean() + found.values[cheapest].sum() / 5)
        again, _ = lifted(task.ground, found.prices, 5, np.arange(40))
        np.testing.assert_allclose(found.values, again)
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0] + 0.05 * hat.cost
    assert bounds[-1] <= hat.cost


def test_steps_cut_short_are_proven_in_the_time_kept_for_it():
    task = task_of(pool(2, n=40, width=3), "euclidean", 5)
    hat = choice(task, np.arange(5))
    climbing, spares = Ascent(task, proof(task, hat.plan.row_duals)), []
    first, climbing.proving = climbing.proof, 7.0

    def watch(spare=0.0):
        spares.append(spare)
        if len(spares) == 25:
            raise Over

    with pytest.raises(Over):
        climbing.climb(0.9 * hat.cost, 10**6, watch)
    assert spares[:25] == [7.0] * 25
    assert not any(spares[25:])
    assert climbing.proof.bound > first.bound
    again, _ = lifted(task.ground, climbing.proof.prices, 5, np.arange(40))
    np.testing.assert_allclose(climbing.proof.values, again)


@pytest.mark.parametrize("plainly", [True, False])
def test_steps_lead_from_what_chosen_columns_leave_unfilled(plainly, monkeypatch):
    monkeypatch.setattr(ascent, "COMPILED", ascent.COMPILED and not plainly)
    rng = np.random.default_rng(0)
    tile, prices = rng.random((9, 70)).astype(np.float32), rng.random(70)
    thresholds, chosen = rng.random(9).astype(np.float32), np.array([0, 3, 8])
    with threads() as share:
        found = ascent._uncovered(tile, prices, thresholds, chosen, share)
    below = tile[chosen] - prices.astype(np.float32) < thresholds[chosen, None]
    assert found.tolist() == (1 - below.sum(axis=0)).tolist()


def test_only_candidates_and_fixed_rows_are_measured_as_columns(monkeypatch):
    task, asked = task_of(pool(3, n=60), "euclidean", 4, (7,), np.arange(20, 32)), []

    def noted(ground, prices, size, columns, **options):
        asked.extend(columns.tolist())
        return lifted(ground, prices, size, columns, **options)

    for module in (ascent, cuts):
        monkeypatch.setattr(module, "lifted", noted)
    hat = choice(task, np.array([7, 20, 21, 22]))
    climbing = Ascent(task, proof(task, hat.plan.row_duals))
    climbing.climb(hat.cost, 20, mute)
    made = [cuts.proven(task, climbing.proof), cuts.filling(task, mute), cuts.capacitated(task, hat, mute)]
    assert set(asked) == {7, *range(20, 32)}
    for cut in [*made, cuts.nearest(task, mute)]:
        assert np.isfinite(cut.coefficients).all()
        assert not cut.coefficients[40:].any()
        assert cut.at(hat.rows) <= hat.cost + HAIR


@pytest.mark.usefixtures("_large")
def test_bounds_of_compiled_and_plain_paths_agree(monkeypatch):
    task = task_of(crowd("moderate"), "euclidean", 6, (1, 2))
    hat = choice(task, np.concatenate([task.fixed, np.array([9, 30, 70, 100])]))
    found = []
    for compiled in (True, False):
        for module in (ground, lift, ascent):
            monkeypatch.setattr(module, "COMPILED", ascent.COMPILED and compiled)
        climbing = Ascent(task, proof(task, hat.plan.row_duals))
        first = climbing.proof.bound
        climbing.climb(hat.cost, 60, mute)
        found.append((first, climbing.proof.bound))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5 * hat.cost)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-2 * hat.cost)


@pytest.mark.parametrize("seed", range(6))
def test_columns_fixed_by_a_proof_leave_all_selections_that_are_cheaper(seed):
    points, fixed = pool(seed), ((), (3,))[seed % 2]
    task = task_of(points, "euclidean", 3, fixed)
    priced = Priced.of(distances(points, "euclidean"), 3, fixed)
    second = float(np.unique(priced.costs.round(9))[1])
    climbing = Ascent(task, proof(task, choice(task, priced.sets[0]).plan.row_duals))
    closed = 0
    for _ in range(3):
        climbing.climb(priced.least, 60, mute)
        for best in (second, priced.least + HAIR):
            allowed, forced = openness(task, climbing.proof.values, climbing.proof.bound, best)
            for rows in priced.sets[priced.costs < best - HAIR / 2]:
                free = np.setdiff1d(rows, fixed)
                assert allowed[free].all()
                assert np.isin(np.flatnonzero(forced), free).all()
            closed += int((~allowed).sum())
        assert not forced[list(fixed)].any()
    assert closed > 0


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_cuts_of_large_pools_hold_for_every_selection(metric):
    points = np.repeat(pool(4, n=6, width=3), 2, axis=0)
    points[::3] += np.float32(0.1)
    task = task_of(points, metric, 3)
    priced = Priced.of(distances(points, metric), 3)
    for rows in priced.sets[::20]:
        hat = choice(task, rows)
        made = [cuts.benders(task, hat, mute), cuts.capacitated(task, hat, mute)]
        assert all(cut.at(rows) >= hat.cost - HAIR for cut in made)
        made += [cuts.filling(task, mute), cuts.nearest(task, mute), *cuts.triangle(task, hat)]
        assert all(priced.excess(cut) <= HAIR for cut in made)


def test_six_points_on_a_line_prove_their_optimum_by_one_capacitated_cut():
    points = np.arange(6, dtype=np.float32)[:, None]
    task, priced = task_of(points, "euclidean", 2), Priced.of(distances(points, "euclidean"), 2)
    hat = choice(task, np.array([1, 4]))
    # The duals are free to differ between the two columns' rows: these are the symmetric ones.
    plan = replace(hat.plan, row_duals=np.array([1.0, 0, 1, 1, 0, 1]), column_duals=np.zeros(2))
    hat = replace(hat, plan=plan)
    least = [
        min(cut.at(rows) for rows in priced.sets)
        for cut in (cuts.benders(task, hat, mute), cuts.capacitated(task, hat, mute))
    ]
    assert least == pytest.approx([-1 / 3, 2 / 3])


def test_no_benders_cut_lifts_the_relaxed_master_above_zero():
    """Why bounds of (B) alone stay so low: its relaxation has value zero at the even share of all columns."""
    points = pool(5, n=30)
    task = task_of(points, "euclidean", 4)
    for seed in range(5):
        hat = choice(task, np.random.default_rng(seed).choice(30, 4, replace=False))
        plain, strong = cuts.benders(task, hat, mute), cuts.capacitated(task, hat, mute)
        assert plain.constant + plain.coefficients.sum() * 4 / 30 <= HAIR
        assert strong.constant + strong.coefficients.sum() * 4 / 30 > -0.5 * hat.cost


def test_the_lower_bound_as_quoted_fails_where_ours_is_exact():
    points = np.eye(8) / np.sqrt(2)  # all distances are 1
    task = task_of(points, "euclidean", 3)
    hat = choice(task, np.array([0, 1, 2]))
    assert hat.cost == pytest.approx(1 - 3 / 8)
    quoted = 3 * (1 / 3)  # (6) with the coefficient 1 / B, times a nearest distance of 1
    assert quoted > hat.cost
    assert cuts.nearest(task, mute).at(hat.rows) == pytest.approx(hat.cost)
    assert cuts.filling(task, mute).at(hat.rows) == pytest.approx(hat.cost)


def test_duplicates_weaken_the_nearest_cut_to_what_holds():
    points = np.array([[0], [0], [0], [2], [3]], np.float32)
    task = task_of(points, "euclidean", 2)
    cut = cuts.nearest(task, mute)
    np.testing.assert_allclose(cut.coefficients, [0, 0, 0, 0.3, 0.3])
    filling = cuts.filling(task, mute)
    assert (filling.coefficients >= cut.coefficients - HAIR).all()


def test_the_triangle_inequality_fails_for_cosines_and_its_squared_form_holds():
    angles = np.deg2rad([0.0, 60.0, 120.0])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    task, priced = task_of(points, "cosine", 1), Priced.of(distances(points, "cosine"), 1)
    hat = choice(task, np.array([0]))
    gaps = hat.costs.min(axis=1)
    quoted = cuts.Cut("quoted", -hat.cost, gaps)
    assert priced.excess(quoted) > 0.1
    assert all(priced.excess(cut) <= HAIR for cut in cuts.triangle(task, hat))


def test_the_dual_inequality_is_refused_for_cosines():
    task = task_of(pool(0), "cosine", 2)
    with pytest.raises(ValueError, match=r"metrics only, got strategy\.metric=cosine"):
        cuts.dual_inequality(task, choice(task, np.array([0, 1])))
