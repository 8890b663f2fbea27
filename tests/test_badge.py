import numpy as np
import pytest
from conftest import Situation, strategy

from alrun.coverage.gradients import gradient_sampling
from alrun.coverage.k_center import k_center


def test_badge_draws_from_the_models_gradients_in_one_pass(situation):
    who, at = strategy("badge"), situation()
    current = at.round(who, 10)
    batch = who.select(current, 10)
    rows = at.pool.unlabeled
    assert current.work.predicted == len(rows)
    again = at.round(who, 10)
    embeddings = again.embeddings(rows)
    picks, squared = gradient_sampling(again.probabilities(rows), embeddings, 10, again.rng)
    assert batch.rows.tolist() == rows[picks].tolist()
    assert batch.scores.tolist() == squared.tolist()
    assert batch.scores[0] == np.inf


def test_badge_embeds_only_the_candidates(situation):
    who, at = strategy("badge"), situation()
    few = at.pool.unlabeled[10:30]
    current = at.round(who, 5).narrow(few)
    who.select(current, 5)
    assert current.work.predicted == 20
    assert np.flatnonzero(current.work.known["embeddings"]).tolist() == few.tolist()


@pytest.mark.parametrize("size", [1, 7, 54])
def test_coreset_chooses_alike_over_all_embeddings_and_over_penultimate_features(size, situation):
    batches = []
    for space in ("features", "embeddings"):
        who, at = strategy("coreset", f"space={space}"), situation()
        batches.append(who.select(at.round(who, size), size))
    assert batches[0].rows.tolist() == batches[1].rows.tolist()
    assert batches[0].scores.tolist() == batches[1].scores.tolist()


def test_coreset_embeds_candidates_and_labeled_rows_alone(situation):
    who, at = strategy("coreset", "space=embeddings"), situation(fixed=True)
    few = at.pool.unlabeled[5:25]
    current = at.round(who, 6).narrow(few)
    batch = who.select(current, 6)
    assert current.work.predicted == 20 + len(at.pool.labeled)
    assert current.life.once == {}
    embedded = at.model.embed(np.arange(60))
    rows, distances = k_center(embedded, at.pool.labeled, few, 6)
    assert batch.rows.tolist() == rows.tolist()
    np.testing.assert_allclose(batch.scores, distances, rtol=1e-5)


def test_coreset_as_a_second_stage_sees_the_network_not_the_features():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 2)).astype(np.float32)
    points[:, 1] *= 1e4  # the features' way, which the network standardizes away
    at = Situation(points, {0: 0, 1: 1}, fixed=True)
    rows = []
    for space in ("features", "embeddings"):
        who = strategy("coreset", f"space={space}")
        rows.append(who.select(at.round(who, 8), 8).rows.tolist())
    assert rows[0] != rows[1]


def test_coreset_needs_what_it_compares():
    assert strategy("coreset").needs == {"features"}
    assert strategy("coreset", "space=embeddings").needs == {"embeddings"}
