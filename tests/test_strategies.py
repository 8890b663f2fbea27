"""The contract: what every strategy keeps, old or new, found by looking into conf/strategy."""

from functools import partial

import numpy as np
import pytest
from conftest import MAKERS, ROOT, Situation, strategy

from alrun.purchase import SYNTHETIC
from alrun.rounds import checked, name_of
from alrun.strategies.two_classes import TWO_CLASSES

EVERY = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))
# They choose no rows but make new ones, and have a contract of their own: test_makers.
NAMES = [name for name in EVERY if name not in MAKERS]
VARIANTS = [
    ("diffusion", "mini_batch=null"),
    ("diffusion", "mini_batch=3", "clamp=oracle", "shrink_below=0.5"),
    ("diffusion", "mini_batch=2", "clamp=chi", "influence=col"),
    ("diffusion", "mini_batch=2", "influence=drawn"),
    ("diffusion", "mini_batch=2", "clamp=soft", "init=soft"),
    ("diffusion", "mini_batch=2", "init=soft_after_first", "uncertainty=norm", "norm_p=inf"),
    ("diffusion", "mini_batch=2", "uncertainty=confidence"),
    ("diffusion", "mini_batch=2", "uncertainty=margin", "clamp=soft"),
    ("diffusion", "mini_batch=2", "uncertainty=entropy", "init=soft"),
    ("two_stage", "first_size=20"),
    ("dgal", "first_size=20"),
    ("dgal_diffusion", "first_size=20", "second.own_graph.k=3", "second.mini_batch=2"),
    ("seals", "first.k=2"),
    ("kmedoids", "metric=cosine", "sample=30", "sweeps=1"),
    ("asal", "dims=null", "neighbors=3"),
    ("wasserstein_eoc_p", "metric=cosine", "parts=2"),
]
FEW = {
    **dict.fromkeys(("bald", "dropout_confidence", "dropout_entropy"), ("passes=5",)),
    **{name: ("iterations=1",) for name in NAMES if name.startswith("wasserstein")},
    "asal": ("steps=5",),
    "asal_neighbors": ("first.steps=5",),
    "asal_generate": ("first.steps=5", "first.images=2"),
}
ALL = [(name,) for name in NAMES] + VARIANTS
each_strategy = pytest.mark.parametrize("words", ALL, ids=" ".join)


def made(words):
    return strategy(words[0], *words[1:], *FEW.get(words[0], ()))


def classes_for(who) -> int:
    return 2 if TWO_CLASSES in who.needs else 3


@pytest.fixture
def situation(situation, request):
    """Of three classes, of two for a strategy that knows no more."""
    words = getattr(request.node, "callspec", None) and request.node.callspec.params.get("words")
    return partial(situation, classes=classes_for(made(words))) if words else situation


def chosen(who, current, size):
    return checked(who.select(current, size), current, size, name_of(who))


@pytest.mark.parametrize("name", EVERY)
def test_who_makes_rows_says_so(name):
    assert (SYNTHETIC in strategy(name).needs) == (name in MAKERS)


@each_strategy
def test_it_returns_exactly_the_size_in_distinct_candidates(words, situation):
    who, at = made(words), situation()
    for size in (1, 7, len(at.pool.unlabeled)):
        batch = chosen(who, at.round(who, size), size)
        assert np.isin(batch.rows, at.pool.unlabeled).all()
        assert len(np.unique(batch.rows)) == size


@each_strategy
def test_the_same_seed_gives_the_same_rows(words, situation):
    who = made(words)
    first, second = (chosen(who, situation().round(who, 9), 9) for _ in range(2))
    assert first.rows.tolist() == second.rows.tolist()
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize("name", ["random", "dropout_entropy"])
def test_another_seed_gives_other_rows_where_chance_decides(name, situation):
    who = made((name,))
    batches = [chosen(who, situation().round(who, 9, seed=seed), 9).rows.tolist() for seed in range(5)]
    assert len({tuple(rows) for rows in batches}) > 1


@each_strategy
def test_it_leaves_inputs_and_pool_as_they_were(words, situation):
    who, at = made(words), situation()
    points, labels = at.inputs.array.copy(), at.pool.labels.copy()
    weights = {name: value.clone() for name, value in at.model.network.state_dict().items()}
    chosen(who, at.round(who, 5), 5)
    np.testing.assert_array_equal(at.inputs.array, points)
    np.testing.assert_array_equal(at.pool.labels, labels)
    for name, value in at.model.network.state_dict().items():
        assert (value == weights[name]).all()


@each_strategy
def test_a_permuted_pool_gives_the_permuted_choice_where_nothing_is_drawn(words, situation):
    who, at = made(words), situation()
    current = at.round(who, 6)
    streams = [(current.rng, current.rng.bit_generator.state)]
    original = current.life.stream

    def stream(*names):
        rng = original(*names)
        streams.append((rng, rng.bit_generator.state))
        return rng

    current.life.stream = stream  # a stage draws from a stream of its own
    batch = chosen(who, current, 6)
    rows = batch.rows
    if any(rng.bit_generator.state != before for rng, before in streams):
        pytest.skip("draws")
    if not batch.notes.get("proven", True):
        pytest.skip("searches on from where a solver happens to end")
    order = np.random.default_rng(1).permutation(60)
    labeled = {int(np.flatnonzero(order == row)[0]): int(at.pool.labels[row]) for row in at.pool.labeled}
    moved = Situation(at.inputs.array[order], labeled, classes_for(who))
    again = chosen(who, moved.round(who, 6), 6)
    if words == ("propagation",):  # rows that no label has reached tie, and the last places are among them
        clear = batch.scores > batch.scores[-1]
        np.testing.assert_allclose(again.scores, batch.scores, atol=2e-6)
        assert set(order[again.rows[clear]].tolist()) == set(rows[clear].tolist())
    else:
        assert order[again.rows].tolist() == rows.tolist()


@each_strategy
def test_it_keeps_to_narrowed_candidates(words, situation):
    who, at = made(words), situation()
    few = at.pool.unlabeled[3:20]
    batch = who.select(at.round(who, 8).narrow(few), 8)
    assert len(np.unique(batch.rows)) == 8
    assert np.isin(batch.rows, few).all()


@each_strategy
def test_hidden_labels_change_nothing_but_the_answers_it_bought(words, situation):
    who, at = made(words), situation()
    truth = np.random.default_rng(2).integers(0, classes_for(who), 60)
    rows = chosen(who, at.round(who, 8, truth=truth), 8).rows
    poisoned = (truth + 1) % classes_for(who)
    poisoned[at.asked] = truth[at.asked]
    again = chosen(who, situation().round(who, 8, truth=poisoned), 8).rows
    assert again.tolist() == rows.tolist()
    assert ("clamp=oracle" in words) == bool(at.asked)


@each_strategy
def test_it_survives_duplicates_constant_features_and_an_unseen_class(words):
    who = made(words)
    classes, twice = classes_for(who), np.repeat(np.random.default_rng(0).normal(size=(15, 2)), 2, 0)
    same = Situation(np.ones((30, 2), np.float32), {0: 0, 7: 1}, classes)
    pairs = Situation(twice.astype(np.float32), {0: classes - 1, 9: classes - 1}, classes)
    for at in (same, pairs):
        for size in (1, 6, 28):
            assert len(np.unique(chosen(who, at.round(who, size), size).rows)) == size


@each_strategy
def test_it_takes_the_last_candidate(words):
    who = made(words)
    points = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    classes = classes_for(who)
    at = Situation(points, {row: row % classes for row in range(8) if row != 5}, classes)
    assert chosen(who, at.round(who, 1), 1).rows.tolist() == [5]


@each_strategy
def test_features_that_are_no_numbers_are_a_clear_error(words):
    who = made(words)
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    points[4] = np.nan
    at = Situation(points, {0: 0, 1: 1}, classes_for(who))
    if words == ("random",):
        assert len(chosen(who, at.round(who, 5), 5).rows) == 5
    else:
        with pytest.raises(ValueError, match="(?i)nan"):
            chosen(who, at.round(who, 5), 5)


@pytest.mark.parametrize("name", ["random", "coreset", "kmedoids", "diffusion", "wasserstein"])
def test_from_fixed_features_it_chooses_before_the_first_label(name):
    who = made((name, "mini_batch=2") if name == "diffusion" else (name,))
    points = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    at = Situation(points, {}, fixed=True)
    batch = chosen(who, at.round(who, 10, cold=True), 10)
    assert len(np.unique(batch.rows)) == 10


def test_a_cold_diffusion_spreads_over_separate_clusters():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [50, 0], [0, 50], [50, 50]])
    points = np.concatenate([center + rng.normal(size=(12, 2)) for center in centers]).astype(np.float32)
    who = strategy("diffusion", "mini_batch=1")
    at = Situation(points, {}, fixed=True)
    rows = chosen(who, at.round(who, 4, cold=True), 4).rows
    assert sorted(rows // 12) == [0, 1, 2, 3]


def test_two_stage_with_all_rows_equals_its_second_stage(situation):
    for second in ("margin", "random", "coreset", "bald"):
        both = made(("two_stage",))
        alone = made((second,))
        both = type(both)(both.first, alone, len(situation().pool.unlabeled))
        rows = chosen(both, situation().round(both, 7), 7).rows
        assert rows.tolist() == chosen(alone, situation().round(alone, 7), 7).rows.tolist()


def test_two_stage_scores_only_what_the_first_stage_left(situation):
    who, at = made(("two_stage", "first_size=20")), situation(fixed=True)
    current = at.round(who, 5)
    batch = chosen(who, current, 5)
    assert current.work.predicted == 20
    assert batch.notes["candidates"] == 20


def test_random_meets_no_network(situation):
    who, at = made(("random",)), situation()
    current = at.round(who, 5)
    chosen(who, current, 5)
    assert current.work.predicted == 0
    assert current.work.made == {}


def test_least_confidence_margin_and_entropy_agree_on_two_classes(situation):
    at = situation()
    points = at.inputs.array
    batches = []
    for name in ("least_confidence", "margin", "entropy"):
        who = made((name,))
        two = Situation(points, {0: 0, 1: 1}, classes=2)
        batches.append(chosen(who, two.round(who, 10), 10).rows.tolist())
    assert batches[0] == batches[1] == batches[2]


def test_asking_beyond_the_batch_or_twice_is_refused(situation):
    who, at = made(("random",)), situation()
    current = at.round(who, 3)
    rows = at.pool.unlabeled
    current.ask(rows[:2])
    with pytest.raises(ValueError, match="not asked before"):
        current.ask(rows[:1])
    with pytest.raises(ValueError, match="buys 3 labels"):
        current.ask(rows[2:4])
    batch = who.select(current, 3)
    if not np.isin(rows[:2], batch.rows).all():
        with pytest.raises(ValueError, match="left some out"):
            checked(batch, current, 3, "random")
