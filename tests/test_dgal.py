"""DGAL: label diffusion on a graph made once leaves some rows, a second criterion picks among them."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import CPU, ROOT, Situation, part, settings, strategy
from test_batch_query import slowly
from test_diffusion import Case

from alrun.clock import Clock
from alrun.features.simple import Pixels
from alrun.graph import batch_query as query_module
from alrun.graph import diffusion as diffusion_module
from alrun.graph.batch_query import Query, batch_query
from alrun.graph.batch_query import Situation as At
from alrun.graph.diffusion import clamp_values
from alrun.graph.kernels import affinity, components, similarity
from alrun.graph.knn import Knn
from alrun.graph.uncertainty import min_abs
from alrun.pool import Seeds
from alrun.rounds import Lifetime, Round, Work
from alrun.strategies import diffusion as strategy_module

NAMES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("dgal*.yaml"))
STEPS = 3


class Rounds:
    """Rounds on fixed points, one lifetime, and labels that depend on the row alone."""

    def __init__(self, points: np.ndarray, classes: int = 3, k: int = 5, model: bool = True) -> None:
        self.at = Situation(points, {}, classes)
        self.pool, self.k, self.model = self.at.pool, k, model
        self.truth = np.random.default_rng(9).integers(0, classes, len(points))
        self.life = self.fresh_life()

    def fresh_life(self) -> Lifetime:
        seeds = Seeds(*(None for _ in Seeds.__dataclass_fields__))
        knn = Knn(self.k, "sqeuclidean", "none", "auto", 0.99)
        return Lifetime(lambda *names: seeds.stream(0, *names), Pixels(), knn, CPU)

    def round(self, size: int, life: Lifetime | None = None) -> Round:
        life = life or self.life
        number, work = len(life.purchases), Work(Clock(CPU), lambda rows: self.truth[rows], size)
        model = self.at.model if self.model else None
        rng = life.stream("select", number, "test")
        return Round(number, self.pool, self.pool.unlabeled, model, rng, life, work)

    def buy(self, rows: np.ndarray) -> None:
        self.pool = self.pool.reveal(rows, self.truth[rows])
        self.life.purchases.append(rows)


def blobs(n=240, clusters=8, repeats=1):
    """Clusters so far apart that the graph falls in as many parts; rows may come several times."""
    rng = np.random.default_rng(4)
    centers = 30 * rng.normal(size=(clusters, 3))
    points = centers[rng.integers(clusters, size=n // repeats)] + rng.normal(size=(n // repeats, 3))
    return np.repeat(points, repeats, axis=0).astype(np.float32)


def one_shot(*words):
    return strategy("diffusion_one_shot", f"steps={STEPS}", "influence=row", *words)


def from_scratch(who, current, size):
    """The batch by labels diffused in full from those bought so far."""
    pool, graph = current.pool, current.graph
    shares = who.uncertainty in ("confidence", "margin", "entropy")
    start = np.full((len(pool), pool.classes), 1 / pool.classes if shares else 0.0, np.float32)
    hot = np.eye(pool.classes)[pool.labels[pool.labeled]]
    start[pool.labeled] = hot if shares else 2 * hot - 1
    weights = affinity(graph)
    drawn = who.influence == "drawn"
    ranks = current.rng.random(len(pool)) if drawn else None
    query = Query(STEPS, who.mini_batch or size, who.shrink_below, "row" if drawn else who.influence, False)
    at = At(weights, start, pool.labels >= 0, current.candidates)

    def clamp(rows, values):
        likely = np.eye(pool.classes)[current.probabilities(rows).argmax(axis=1)]
        return likely if shares else 2 * likely - 1

    found = batch_query(at, size, query, who._score, clamp, ranks)
    facts = (found.unreached, found.steps, components(weights), found.by_influence, found.hub_free)
    return found.rows, found.scores, facts


def facts_of(batch):
    names = ("unreached", "steps", "components", "by_influence", "hub_free")
    return tuple(batch.notes[name] for name in names)


SCRATCH = [
    *((path, repeats, ()) for path in ("usual", "followed", "in full", "ordered") for repeats in (1, 3)),
    *(("usual", 3, (f"uncertainty={name}",)) for name in ("norm", "confidence", "entropy")),
    ("followed", 1, ("mini_batch=2", "shrink_below=0.5")),
    ("usual", 1, ("influence=drawn",)),
]


@pytest.mark.parametrize(("path", "repeats", "words"), SCRATCH)
def test_labels_kept_across_rounds_are_those_diffused_from_the_start(path, repeats, words, monkeypatch):
    if path in ("followed", "in full"):
        for name in ("EDGES_SHARE", "ROWS_SHARE"):
            monkeypatch.setattr(diffusion_module, name, 2.0 if path == "followed" else -1.0)
    if path == "ordered":
        monkeypatch.setattr(diffusion_module, "CACHED_BYTES", 0)
    who, run = one_shot(*words), Rounds(blobs(repeats=repeats))
    run.buy(np.array([3, 50]))
    explored = []
    for number in range(12):
        current = run.round(5)
        batch, (rows, scores, facts) = who.select(current, 5), from_scratch(who, run.round(5), 5)
        assert batch.rows.tolist() == rows.tolist()
        assert (batch.scores == scores).all()
        assert facts_of(batch) == facts
        explored.append(facts[3] > 0)
        # Not the batch itself, so that labels come near and far.
        run.buy(np.random.default_rng(number).choice(current.candidates, 14, replace=False))
    assert any(explored)
    assert not all(explored)


def test_kept_labels_are_not_changed_by_mini_batches_or_narrowed_candidates():
    run = Rounds(blobs())
    run.buy(np.arange(0, 240, 10))
    few, whole, by_two = run.pool.unlabeled[5:60], one_shot(), one_shot("mini_batch=2")
    first = whole.select(run.round(9), 9)
    narrowed = whole.select(run.round(9).narrow(few), 9)
    assert np.isin(narrowed.rows, few).all()
    assert narrowed.rows.tolist() == from_scratch(whole, run.round(9).narrow(few), 9)[0].tolist()
    assert by_two.select(run.round(9), 9).rows.tolist() == from_scratch(by_two, run.round(9), 9)[0].tolist()
    assert whole.select(run.round(9), 9).rows.tolist() == first.rows.tolist()


@pytest.mark.parametrize("words", [("init=soft",), ("init=soft_after_first", "mini_batch=3", "clamp=chi")])
def test_soft_starts_on_a_fixed_graph_are_those_on_the_same_graph_made_anew(words):
    who, run = one_shot(*words), Rounds(blobs())
    for rows in (np.arange(0, 240, 20), np.array([4, 9])):
        run.buy(rows)
    current = run.round(7)
    anew = replace(run.round(7), life=run.fresh_life())
    anew.life.featurizer, features = None, current.features
    anew.work.made["graph"] = Knn(run.k, "sqeuclidean", "none", "auto", 0.99).build(features)
    batch, other = who.select(current, 7), who.select(anew, 7)
    assert batch.rows.tolist() == other.rows.tolist()
    assert (batch.scores == other.scores).all()
    assert batch.notes == other.notes


def test_a_run_that_is_continued_picks_the_same():
    who, run = one_shot(), Rounds(blobs())
    batches = [np.array([3, 50])]
    run.buy(batches[0])
    for _ in range(8):
        batches.append(who.select(run.round(4), 4).rows)
        life = run.fresh_life()
        life.purchases = list(run.life.purchases)
        assert who.select(run.round(4, life), 4).rows.tolist() == batches[-1].tolist()
        run.buy(batches[-1])


def test_an_empty_first_purchase_leaves_everything_to_influence():
    who, run = one_shot(), Rounds(blobs(), model=False)
    run.buy(np.empty(0, np.int64))
    batch = who.select(run.round(6), 6)
    weights = affinity(run.round(6).graph).sum(axis=1).round(12)
    assert batch.rows.tolist() == np.argsort(-weights, kind="stable")[:6].tolist()
    assert batch.notes["by_influence"] == 6


def test_drawn_unreached_rows_are_each_as_likely_and_change_from_round_to_round():
    who, run = one_shot("influence=drawn"), Rounds(blobs())
    run.buy(np.array([3, 50]))
    dark = who.select(run.round(5), 5).notes["unreached"]
    counts = np.zeros(240)
    for seed in range(400):
        current = replace(run.round(5), rng=np.random.default_rng(seed))
        counts[who.select(current, 5).rows] += 1
    assert (counts > 0).sum() == dark
    # 400 x 5 draws over so many rows: binomial, six standard deviations
    mean = 2000 / dark
    assert np.abs(counts[counts > 0] - mean).max() < 6 * np.sqrt(mean)


def test_what_depends_on_the_graph_alone_is_made_once_and_timed_apart(monkeypatch):
    made = []
    for module in (strategy_module, query_module):
        for name in ("affinity", "components", "transition", "hub_free"):
            if hasattr(module, name):
                original = getattr(module, name)
                monkeypatch.setattr(
                    module, name, lambda *given, n=name, f=original: made.append(n) or f(*given)
                )
    who, run = one_shot(), Rounds(blobs())
    for row in (3, 70, 140):
        run.buy(np.array([row]))
        current = run.round(4)
        who.select(current, 4)
    assert sorted(made) == ["affinity", "components", "hub_free", "transition"]
    assert run.life.clock.seconds["diffusion"] > 0
    assert "diffusion" not in current.work.clock.seconds


def test_a_purchase_is_clamped_once(monkeypatch):
    clamped = []
    original = diffusion_module.Diffusion.clamp

    def clamp(self, rows, values):
        clamped.append(rows.tolist())
        original(self, rows, values)

    monkeypatch.setattr(diffusion_module.Diffusion, "clamp", clamp)
    who, run = strategy("dgal", f"first.steps={STEPS}", "first_size=20"), Rounds(blobs())
    for rows in ([3, 50], [7], [9, 100]):
        run.buy(np.array(rows))
        who.select(run.round(4), 4)
    assert clamped == [[3, 50], [7], [9, 100]]


@pytest.mark.parametrize("uncertainty", ["confidence", "margin", "entropy"])
def test_kept_shares_are_the_absorbed_mass_and_an_even_part_of_the_rest(uncertainty):
    run, who = Rounds(blobs(), classes=4), one_shot(f"uncertainty={uncertainty}")
    for rows in ([3, 50], [7, 9, 100], [30]):
        run.buy(np.array(rows))
        who.select(run.round(2), 2)
    (state, done) = next(iter(run.life.kept.values()))
    case = Case.__new__(Case)
    case.walk = query_module.transition(affinity(run.round(2).graph))
    case.n, case.classes, case.labels = len(run.pool), 4, np.maximum(run.pool.labels, 0)
    case.labeled = run.pool.labels >= 0
    p = case.absorbed(STEPS)
    a = p.sum(axis=1, keepdims=True)
    assert done == 3
    assert 0 < (a > 0).sum() < 240
    np.testing.assert_allclose(state.state.values(STEPS), p + (1 - a) / 4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_with_all_rows_left_it_is_the_second_criterion_alone(name, situation):
    at = situation(fixed=True)
    both = strategy(name, f"first_size={len(at.pool.unlabeled)}")
    rows = both.select(at.round(both, 7), 7)
    alone = both.second.select(at.round(both.second, 7), 7)
    assert rows.rows.tolist() == alone.rows.tolist()
    assert (rows.scores == alone.scores).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_network_sees_what_the_first_stage_left_and_at_most_the_labeled_rows(name, situation):
    at, who = situation(fixed=True), strategy(name, "first_size=20")
    current = at.round(who, 5)
    batch = who.select(current, 5)
    labeled = len(at.pool.labeled) if {"dgal_coreset", "dgal_diffusion"} & {name} else 0
    assert current.work.predicted == 20 + labeled
    assert batch.notes["candidates"] == 20
    left = who.first.select(at.round(who.first, 5).stage("first", "diffusion"), 20).rows
    assert np.isin(batch.rows, left).all()


def test_more_unreached_rows_than_are_left_are_chosen_by_influence():
    who, run = strategy("dgal", f"first.steps={STEPS}", "first_size=20"), Rounds(blobs())
    run.buy(np.array([3]))
    batch = who.select(run.round(5), 5)
    assert batch.notes["first_unreached"] > 20
    assert batch.notes["first_by_influence"] == 20


def test_diffusion_as_second_stage_is_the_algorithm_on_the_embeddings_of_these_rows_alone():
    who = strategy("dgal_diffusion", f"first.steps={STEPS}", "first_size=40", "second.own_graph.k=4")
    run = Rounds(blobs())
    run.buy(np.array([3, 50, 7, 100, 9]))
    batch = who.select(run.round(6), 6)
    left = who.first.select(run.round(6).stage("first", "diffusion"), 40).rows
    rows = np.union1d(run.pool.labeled, left)
    case = Case.__new__(Case)
    case.n, case.classes = len(rows), 3
    likely = run.at.model.predict(rows).argmax(axis=1)
    graph = Knn(4, "sqeuclidean", "none", "auto", 0.99).build(run.at.model.embed(rows))
    labels = run.pool.labels[rows]
    start = np.zeros((case.n, 3))
    start[labels >= 0] = clamp_values(labels[labels >= 0], 3)
    at = At(affinity(graph), start, labels >= 0, np.flatnonzero(labels < 0))
    steps = int(np.ceil(np.log(case.n) / np.log(4)))
    picks, scores, (unreached, *_) = slowly(
        case, at, 6, Query(steps, 1, None, "row", False), min_abs, lambda q, _: clamp_values(likely[q], 3)
    )
    assert batch.rows.tolist() == rows[picks].tolist()
    np.testing.assert_allclose(batch.scores, scores, atol=1e-6)
    assert (batch.notes["unreached"], batch.notes["steps"]) == (unreached, steps)


def test_a_graph_of_its_own_is_timed_as_graph_and_holds_no_more_neighbors_than_rows(situation):
    who, at = strategy("dgal_diffusion", "first_size=3", "second.own_graph.k=500"), situation(fixed=True)
    current = at.round(who, 2)
    batch = who.select(current, 2)
    assert current.work.clock.seconds["graph"] > 0
    assert batch.notes["own_graph_recall"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_it_brings_a_latent_space_and_twenty_neighbors_unless_told_otherwise(name):
    found = settings(f"strategy={name}")
    assert found["featurizer"]["_target_"].endswith("Vae")
    assert found["graph"]["k"] == 20
    first = found["strategy"]["first"]
    assert (first["init"], first["mini_batch"], first["shrink_below"]) == ("zero", None, None)
    told = settings(f"strategy={name}", "graph.k=7", "featurizer=pca", "strategy.first_size=30")
    assert (told["graph"]["k"], told["featurizer"]["components"], told["strategy"]["first_size"]) == (
        7,
        50,
        30,
    )


def test_a_preset_s_soft_start_is_no_part_of_it():
    first = settings("+experiment=s0_svhn", "strategy=dgal")["strategy"]["first"]
    assert (first["init"], first["clamp"], first["shrink_below"]) == ("zero", "model", None)


def test_the_random_version_needs_no_features():
    found = settings("strategy=random_margin")
    assert not found["featurizer"]
    assert not found["graph"]
    assert part("strategy", "strategy=random_margin").needs == {"probabilities"}


@pytest.mark.parametrize("symmetrize", ["none", "max", "mean"])
def test_weights_are_taken_from_a_graph_again_and_again(symmetrize):
    graph = Knn(5, "cosine", symmetrize, "auto", 0.99).build(blobs())
    before = graph.neighbors.copy()
    first, again = affinity(graph), affinity(graph)
    assert (first.data == again.data).all()
    assert (first.indices == again.indices).all()
    similarity(graph, 3.0)
    assert (graph.neighbors == before).all()
