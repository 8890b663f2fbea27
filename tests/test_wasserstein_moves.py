"""What makes selections better: rounding, balanced Lloyd, swaps, and a sample to begin with."""

from dataclasses import replace

import numpy as np
import pytest
from every_selection import TO_THE_END, distances, pool, price, rules, searched, task_of

from alrun.wasserstein import coarse, descent, refinement
from alrun.wasserstein.ascent import Ascent, proof
from alrun.wasserstein.coarse import guess, sampled
from alrun.wasserstein.descent import choice, improved, rounded, settled
from alrun.wasserstein.over import Over
from alrun.wasserstein.search import Limits


def mute(*_):
    """Neither watch nor keep."""


def clusters(seed, n=60, count=4):
    rng = np.random.default_rng(seed)
    centers = 6 * rng.normal(size=(count, 2))
    return (centers[np.arange(n) % count] + rng.normal(size=(n, 2))).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fixed", [(), (4, 50)])
def test_moves_keep_fixed_rows_and_candidates_and_never_cost_more(seed, fixed):
    rng = np.random.default_rng(seed)
    points = np.round(clusters(seed), seed % 2)  # with duplicates in every second pool
    candidates = np.setdiff1d(np.arange(0, 60, 2), fixed)
    task = task_of(points, "euclidean", 6, fixed, candidates)
    begun = choice(task, np.concatenate([task.fixed, rng.permutation(candidates)[: task.free]]))
    kept = []
    calm = settled(task, begun, 3, mute, lambda found: None)
    better = improved(task, calm, rng.permutation(np.tile(candidates, 2)), mute, kept.append)
    for found in (calm, better, *kept):
        assert found.rows[: len(fixed)].tolist() == list(fixed)
        assert len(set(found.rows.tolist())) == 6
        assert np.isin(found.rows[len(fixed) :], candidates).all()
        assert found.cost == pytest.approx(price(distances(points, "euclidean"), found.rows))
    costs = [found.cost for found in (begun, calm, *kept)]
    assert costs == sorted(costs, reverse=True)
    assert better.cost == costs[-1] < begun.cost


def test_a_candidate_named_twice_is_chosen_once():
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    task = task_of(np.concatenate([ring, [[0, 0]]]), "euclidean", 4)  # twice the center would cost less
    found = improved(task, choice(task, np.arange(4)), np.array([40, 40, 40]), mute, mute)
    assert sorted(found.rows) == [0, 2, 3, 40]


def test_a_swap_is_not_judged_by_columns_without_rows_of_their_own(monkeypatch):
    monkeypatch.setattr(descent, "LEAST_AROUND", 3)
    monkeypatch.setattr(descent, "LOCAL_SIZE", 0)
    task = task_of(np.arange(19, dtype=np.float32)[:, None], "euclidean", 15)
    begun = choice(task, np.arange(15))
    begun.__dict__["cells"] = np.zeros(19, np.int64)
    assert improved(task, begun, np.array([16, 17]), mute, mute).rows.tolist() == list(range(15))


def test_swaps_made_one_by_one_before_the_time_is_up_are_kept(monkeypatch):
    task, kept = task_of(clusters(3), "euclidean", 6), []
    begun = choice(task, np.arange(6))
    better = choice(task, np.array([0, 1, 2, 3, 4, 30]))
    worse = replace(begun, plan=replace(begun.plan, value=2 * begun.cost))
    assert better.cost < begun.cost
    outcomes = iter([worse, better, Over()])  # both together, the first alone, the second alone

    def judged(*_):
        if isinstance(found := next(outcomes), Over):
            raise found
        return found

    monkeypatch.setattr(descent, "swapped", judged)
    with pytest.raises(Over):
        descent._made(task, begun, [(2.0, 5, 30), (1.0, 4, 31)], mute, kept.append)
    assert kept == [better]


def test_lloyd_moves_each_column_to_the_medoid_of_its_cell():
    points = np.array([0, 1, 2, 10, 11, 12], np.float32)[:, None]
    task = task_of(points, "euclidean", 2)
    assert sorted(settled(task, choice(task, np.array([0, 5])), 3, mute, lambda found: None).rows) == [1, 4]
    pinned = task_of(points, "euclidean", 2, (0,))
    assert settled(pinned, choice(pinned, np.array([0, 5])), 3, mute, lambda found: None).rows.tolist() == [
        0,
        4,
    ]


def test_each_row_is_in_the_cell_of_the_column_that_takes_most_of_it():
    task = task_of(pool(0, n=25, width=2), "euclidean", 4)
    found = choice(task, np.array([3, 8, 13, 24]))
    shares = np.zeros((25, 4))
    shares[found.plan.rows, found.plan.columns] = found.plan.units
    assert found.cells.tolist() == shares.argmax(axis=1).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_rounding_gives_distinct_candidates_after_the_fixed_rows(seed):
    rng, fixed = np.random.default_rng(seed), ((), (7, 30))[seed % 2]
    candidates = np.setdiff1d(np.arange(2, 40), fixed)
    task = task_of(pool(seed, n=40), "euclidean", 8, fixed, candidates)
    for support in (3, 9, 40):  # fewer than are to be chosen, about as many, many
        chances = np.zeros(40)
        chances[rng.choice(40, support, replace=False)] = rng.random(support)
        chances[list(fixed)] = 1.0
        rows = rounded(task, chances)
        assert rows[: len(fixed)].tolist() == list(fixed)
        assert len(set(rows.tolist())) == len(rows) == 8
        assert np.isin(rows[len(fixed) :], candidates).all()
        likely = np.intersect1d(np.flatnonzero(chances), candidates)
        assert np.isin(rows, likely).sum() == min(len(likely), task.free)


def test_rounding_a_selection_gives_the_selection_back():
    task = task_of(pool(1, n=40), "euclidean", 5)
    chances = np.zeros(40)
    chances[[2, 9, 11, 30, 39]] = 1.0
    assert sorted(rounded(task, chances)) == [2, 9, 11, 30, 39]


def test_rounding_takes_one_column_for_a_cluster_whose_chances_add_up_to_one():
    points = np.array([0, 0.1, 0.2, 10, 10.1, 10.2], np.float32)[:, None]
    chances = np.array([0.3, 0.4, 0.3, 0.3, 0.31, 0.39])
    assert sorted(rounded(task_of(points, "euclidean", 2), chances)) == [1, 5]


@pytest.mark.parametrize("fixed", [(), (5, 90)])
def test_a_large_pool_begins_at_what_a_sample_of_it_says(fixed, monkeypatch):
    for module in (coarse, refinement):
        monkeypatch.setattr(module, "SAMPLE", 50)
    monkeypatch.setattr(refinement, "TRIES", 10)
    monkeypatch.setattr(coarse, "SWAPS", 5)
    task = task_of(clusters(3, n=101), "euclidean", 6, fixed)
    seen = []
    monkeypatch.setattr(refinement, "guess", lambda *those: seen.append(guess(*those)) or seen[-1])
    found = searched(task, rules(), Limits(None, 2, 0.0))
    monkeypatch.setattr(refinement, "SAMPLE", 100)
    whole = searched(task, rules(), Limits(None, 2, 0.0))
    (((first, chances)),) = seen
    assert first.bound == -np.inf
    assert chances.sum() == pytest.approx(6)
    assert proof(task, first.prices).bound > 0.8 * proof(task, whole.choice.plan.row_duals).bound
    assert found.bound is not None
    assert whole.bound is not None
    assert 0.9 * whole.bound < found.bound <= min(found.choice.cost, whole.choice.cost)
    assert found.choice.cost <= 1.1 * whole.choice.cost
    assert found.choice.rows[: len(fixed)].tolist() == list(fixed)


def test_a_sample_holds_the_fixed_rows_and_stands_for_the_whole_pool():
    candidates = np.setdiff1d(np.arange(10, 100), [20, 80])
    task = task_of(pool(0, n=120), "cosine", 6, (20, 80), candidates)
    part, rows = sampled(task, 60, np.random.default_rng(0))
    assert rows[part.fixed].tolist() == [20, 80]
    assert (len(rows), part.free) == (62, 4)
    assert rows[part.candidates].tolist() == np.intersect1d(rows, candidates).tolist()
    assert 7 < np.setdiff1d(rows, task.columns).size < 23  # 30 of 118 rows are no columns
    np.testing.assert_array_equal(part.ground.points, task.ground.points[rows])


def test_a_sample_has_candidates_to_choose_from_however_few_the_pool_has():
    task = task_of(pool(0, n=400), "euclidean", 6, (20, 80), np.arange(100, 120))
    part, rows = sampled(task, 30, np.random.default_rng(0))
    assert len(part.candidates) == 8
    assert 32 < len(rows) <= 40
    scarce = task_of(pool(0, n=400), "euclidean", 5, (), np.arange(100, 107))
    part, rows = sampled(scarce, 30, np.random.default_rng(0))
    assert rows[part.candidates].tolist() == list(range(100, 107))


@pytest.mark.parametrize("error", [Over, KeyboardInterrupt])
def test_a_sample_cut_short_still_gives_its_best_selection(error, monkeypatch):
    for module in (coarse, refinement):
        monkeypatch.setattr(module, "SAMPLE", 50)

    def ended(*_):
        raise error

    monkeypatch.setattr(coarse, "improved", ended)
    task = task_of(clusters(3, n=101), "euclidean", 6)
    found = searched(task, rules(), Limits(1e6, None, 0.0))
    assert found.stopped == ("seconds" if error is Over else "interrupt")
    assert [record["phase"] for record in found.records] == ["start", "end"]
    assert found.choice.cost < 0.95 * found.records[0]["objective"]
    assert found.searched


def test_a_round_whose_steps_were_cut_short_still_looks_for_selections_and_is_the_last(monkeypatch):
    def ended(*_):
        raise Over

    monkeypatch.setattr(Ascent, "climb", ended)
    tried = []
    monkeypatch.setattr(refinement, "improved", lambda *those: tried.append(those))
    found = searched(task_of(clusters(3), "euclidean", 6), rules(), Limits(1e6, 5, 0.0))
    assert (found.stopped, len(tried)) == ("seconds", 1)
    assert [record["phase"] for record in found.records] == ["start", "end"]


def test_a_batch_larger_than_the_sample_is_sampled_from_more(monkeypatch):
    for module in (coarse, refinement):
        monkeypatch.setattr(module, "SAMPLE", 10)
    monkeypatch.setattr(coarse, "SWAPS", 5)
    monkeypatch.setattr(refinement, "TRIES", 5)
    found = searched(task_of(pool(0, n=90), "euclidean", 30), rules(), Limits(None, 1, 0.0))
    assert len(set(found.choice.rows.tolist())) == 30


def test_without_the_lagrangian_bound_swaps_alone_find_the_optimum_of_clusters():
    points = clusters(5, n=21, count=3)
    by = rules(root=False)
    alone = searched(task_of(points, "euclidean", 3), by, Limits(None, 1, 0.0))
    proven = searched(task_of(points, "euclidean", 3), rules(), TO_THE_END)
    assert alone.choice.cost == pytest.approx(proven.choice.cost)
    assert alone.bound is None or alone.bound <= proven.choice.cost + 1e-9
