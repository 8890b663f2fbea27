"""ASAL: the pool rows most like the images that the model is unsure of."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from conftest import CPU, Situation, part, strategy, unlabeled
from generators import squares, untrained
from matplotlib.figure import Figure

from alrun.features.discriminator import Discriminator
from alrun.features.simple import Pca, Penultimate, Pixels
from alrun.features.unit_images import features_of, takes_images
from alrun.generative.matches import SHOWN, Pairs, draw_pairs
from alrun.lifetime import Lifetime
from alrun.models.mlp import Mlp
from alrun.pool import stream
from alrun.retrieval import projection
from alrun.training.model import Model
from alrun.training.seeding import seeded

QUICK = "steps=5"


@pytest.fixture
def crowd():
    """60 points of the unit cube of twelve dimensions, six of them labeled."""

    def make(**options) -> Situation:
        points = np.random.default_rng(0).random((60, 12), np.float32)
        return Situation(
            points, {row: row % options.get("classes", 3) for row in range(0, 60, 10)}, **options
        )

    return make


def places(points: np.ndarray, dims: int) -> np.ndarray:
    """The points' map to their leading principal components, by their singular vectors."""
    return np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:dims].T


def greedy(points: np.ndarray, queries: np.ndarray, free: np.ndarray) -> list[int]:
    """For each query in order the nearest free row that none before it took."""
    left, taken = set(free.tolist()), []
    for query in queries:
        taken.append(min(left, key=lambda row: (((points[row] - query) ** 2).sum(), row)))
        left.remove(taken[-1])
    return taken


@pytest.mark.parametrize("fixed", [True, False], ids=["pixels", "penultimate"])
def test_matches_are_those_of_the_greedy_loop_over_principal_components(crowd, fixed):
    at = crowd(fixed=fixed)
    who = strategy("asal", QUICK, "dims=3")
    current = at.round(who, 20)
    batch = who.select(current, 20)
    images = current.work.arrays["asal"]["images"]
    features = at.inputs.array if fixed else at.model.embed(np.arange(60))
    drawn = images if fixed else at.model.on(type(at.inputs)(images)).embed(np.arange(20))
    axes = places(features.astype(np.float64), 3)
    points, queries = features @ axes, drawn @ axes
    assert batch.rows.tolist() == greedy(points, queries, at.pool.unlabeled)
    np.testing.assert_allclose(batch.scores, np.linalg.norm(points[batch.rows] - queries, axis=1), rtol=1e-4)
    assert current.work.arrays["asal"]["rows"].tolist() == batch.rows.tolist()


def test_of_pixels_no_matrix_is_kept_and_the_choice_is_that_with_one(crowd):
    who, at = strategy("asal", QUICK, "dims=3"), crowd(fixed=True)
    current = at.round(who, 8)
    batch = who.select(current, 8)
    assert isinstance(current.life.featurizer, Pixels)
    assert "features" not in current.life.once
    assert ("features" in who.needs, "features" in strategy("asal", "dims=null").needs) == (False, True)
    other = at.round(who, 8)
    assert other.features.shape == (60, 12)
    again = who.select(other, 8)
    np.testing.assert_array_equal(batch.rows, again.rows)
    np.testing.assert_array_equal(batch.scores, again.scores)


def test_a_round_tells_what_it_searched_for_and_what_that_took(crowd):
    who, at = strategy("asal", "steps=30", "learning_rate=0.1"), crowd(fixed=True)
    current = at.round(who, 8)
    batch = who.select(current, 8)
    lines = current.work.tables["asal"]
    assert [line["image"] for line in lines] == list(range(8))
    assert [line["row"] for line in lines] == batch.rows.tolist()
    assert [line["distance"] for line in lines] == batch.scores.tolist()
    assert all(type(value) in (int, float) for line in lines for value in line.values())
    p = at.model.predict(batch.rows).astype(np.float64)
    np.testing.assert_allclose([line["matched"] for line in lines], -(p * np.log(p)).sum(1), rtol=1e-4)
    means = [np.mean([line[name] for line in lines]) for name in ("before", "after")]
    assert [batch.notes[f"synthetic_{name}"] for name in ("before", "after")] == pytest.approx(means)
    assert batch.notes["synthetic_before"] < batch.notes["synthetic_after"] <= log(3)
    assert batch.notes["match_recall"] == 1
    history = current.work.arrays["asal"]["history"]
    assert history[[0, -1]].tolist() == pytest.approx(means)
    assert len(history) == 31
    seconds = current.work.clock.seconds
    for note, of in (("search", "predict"), ("encode", "features"), ("match", "graph")):
        assert 0 < batch.notes[f"{note}_seconds"] == pytest.approx(seconds[of])
    assert current.work.predicted == 0


def test_the_space_of_fixed_features_is_made_once_and_that_of_the_model_s_anew(crowd, monkeypatch):
    made = []
    original = projection.Projection.of
    monkeypatch.setattr(
        projection.Projection, "of", lambda features, dims: made.append(dims) or original(features, dims)
    )
    for fixed, expected in ((True, 1), (False, 3)):
        who, at = strategy("asal", QUICK), crowd(fixed=fixed)
        first = at.round(who, 4)
        for number in range(3):
            work = type(first.work)(type(first.work.clock)(CPU), lambda rows: rows, 4)
            who.select(replace(first, number=number, work=work), 4)
        assert len(made) == expected
        assert ("asal_index_50" in first.life.clock.seconds) == fixed
        made.clear()


def test_one_neighbor_and_as_many_images_as_the_batch_are_plain_asal(crowd):
    plain = strategy("asal", QUICK)
    rows = plain.select(crowd().round(plain, 9), 9).rows
    for words in (("asal_neighbors", "first.neighbors=1"), ("asal_generate", "first.images=1")):
        both = strategy(words[0], f"first.{QUICK}", words[1])
        batch = both.select(crowd().round(both, 9), 9)
        assert set(batch.rows) == set(rows)
        assert batch.notes["candidates"] == 9
        assert batch.notes["first_synthetic"] == 9


def test_neighbors_are_all_that_are_nearest_to_an_image(crowd):
    plain, at = strategy("asal", QUICK, "dims=null"), crowd(fixed=True)
    alone = plain.select(at.round(plain, 7), 7)
    more = strategy("asal", QUICK, "dims=null", "neighbors=4")
    current = at.round(more, 7)
    left = more.restrict(current, 7)
    assert left.rows[:7].tolist() == alone.rows.tolist()
    gaps = np.linalg.norm(at.inputs.array[:, None] - current.work.arrays["asal"]["images"], axis=2)
    gaps[at.pool.labeled] = np.inf
    near = np.argsort(gaps, axis=0, kind="stable")[:4]
    assert set(left.rows) == {*near.ravel().tolist(), *alone.rows.tolist()}
    assert len(np.unique(left.rows)) == len(left.rows) > 7
    others = left.scores[7:]
    np.testing.assert_allclose(others, gaps[left.rows[7:]].min(axis=1), rtol=1e-5)
    assert (np.diff(others) >= 0).all()
    chosen = more.select(at.round(more, 7), 7)
    assert chosen.scores.tolist() == sorted(left.scores.tolist())[:7]


def test_more_images_begin_with_those_of_fewer(crowd):
    few, many = strategy("asal", QUICK), strategy("asal", QUICK, "images=3")
    rows = few.select(crowd().round(few, 9), 9).rows
    left = many.restrict(crowd().round(many, 9), 9)
    assert len(left.rows) == 27
    assert left.rows[:9].tolist() == rows.tolist()


def test_no_more_images_are_asked_for_than_can_be_matched(crowd):
    many, at = strategy("asal", QUICK, "images=500"), crowd()
    assert sorted(many.restrict(at.round(many, 9), 9).rows) == at.pool.unlabeled.tolist()


def test_minimum_distance_searches_the_boundary_of_two_classes(crowd):
    who, at = strategy("asal", "score=min_distance", "steps=60", "learning_rate=0.1"), crowd(classes=2)
    assert "two_classes" in who.needs
    assert "two_classes" not in strategy("asal").needs
    assert "two_classes" in strategy("gaal", "score=min_distance").needs
    current = at.round(who, 6)
    notes = who.select(current, 6).notes
    assert notes["synthetic_after"] < 0.2 * notes["synthetic_before"]
    images = current.work.arrays["asal"]["images"]
    logits = at.model.on(type(at.inputs)(images)).logits(np.arange(6))
    found = [line["after"] for line in current.work.tables["asal"]]
    np.testing.assert_allclose(found, np.abs(logits[:, 1] - logits[:, 0]), atol=1e-5)


def test_it_waits_for_a_model(crowd):
    who = strategy("asal", QUICK)
    with pytest.raises(ValueError, match="no label was bought yet"):
        who.select(crowd(fixed=True).round(who, 5, cold=True), 5)


@pytest.mark.parametrize("word", ["pixels", "penultimate", "discriminator", "autoencoder", "s4_autoencoder"])
def test_a_real_image_as_a_unit_image_has_the_features_of_the_stored_one(word):
    images = squares(20)
    pool = unlabeled(images)
    featurizer = part(
        "featurizer",
        f"featurizer={word}",
        *(["featurizer.epochs=1"] if word.endswith("autoencoder") else []),
        *(["featurizer.width=4", "featurizer.latent=3"] if word == "autoencoder" else []),
    )
    life = Lifetime(lambda *names: stream(0, *map(str, names)), featurizer, None, CPU)
    life.once["generator"] = untrained(pool.inputs)
    with seeded(np.random.default_rng(0), CPU):
        network = Mlp([8], False, 0.5).build(pool.inputs.shape, pool.inputs.moments, 2)
    model = Model(network, pool.inputs, {})
    stored = model.embed(np.arange(20)) if featurizer.depends_on_model else life.features(pool)
    unit = torch.from_numpy(images).float() / 255
    found = features_of(unit, featurizer, lambda: life.encoder(pool), model)
    np.testing.assert_allclose(found, stored, rtol=1e-4, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_featurizers_that_know_the_pool_alone_are_refused():
    assert not takes_images(Pca(2))
    assert not takes_images(None)
    assert all(map(takes_images, (Pixels(), Penultimate(), Discriminator())))
    images = torch.rand(3, 4)
    with pytest.raises(ValueError, match="need featurizer=pixels, penultimate or one with an encoder"):
        features_of(images, Pca(2), lambda: 1 / 0, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need a model"):
        features_of(images, Penultimate(), lambda: 1 / 0, None)  # type: ignore[arg-type]


def test_pairs_are_drawn_one_above_the_other_with_what_they_score():
    count = 23
    images = torch.from_numpy(squares(count))
    rows, scores = np.arange(100, 100 + count), np.linspace(1, 0.1, count)
    pairs = Pairs(images.float() / 255, images, rows, scores, scores / 2)
    figure = Figure(layout="constrained")
    draw_pairs(figure, pairs, np.linspace(0, 1, 11), "entropy")
    sheet, curve = figure.axes
    shown = sheet.get_images()
    assert len(shown) == 2 * count <= 2 * SHOWN
    for above, below in zip(shown[:count], shown[count:], strict=True):
        np.testing.assert_allclose(np.asarray(above.get_array()), np.asarray(below.get_array()), atol=1e-6)
        assert above.get_extent()[:2] == below.get_extent()[:2]
        assert above.get_extent()[2] < below.get_extent()[2]
    words = [text.get_text() for text in sheet.texts]
    assert "1.00" in words
    assert "0.50\n#100" in words
    assert np.asarray(curve.lines[0].get_ydata()).tolist() == np.linspace(0, 1, 11).tolist()
    assert "0.550 of synthetic images, 0.275 of their matches" in words[0]
