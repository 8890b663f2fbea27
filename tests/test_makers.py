"""The contract of strategies that make the images they buy; and what each of them makes."""

import numpy as np
import pytest
import torch
from conftest import CPU, MAKERS, Situation, planar, strategy
from torch import nn

from alrun.models.encoded import Encoder, FrozenHead
from alrun.models.network import Adapt
from alrun.pool import Moments
from alrun.rounds import Round, checked, name_of
from alrun.strategies.adba import line, plane
from alrun.training.model import Model
from alrun.training.seeding import seeded

FEW = {"gaal": ("steps=5",), "adba": ()}
IMAGES = {"gaal": 1, "adba": 11}  # of an annotation
each_maker = pytest.mark.parametrize("name", MAKERS)


class Sides:
    """Divides lines in the middle and calls every image 1."""

    def label(self, items):
        return np.ones(len(items), np.int64)

    def divide(self, items):
        return (np.arange(len(items)) >= len(items) // 2).astype(np.int64)


def made(name: str, *overrides: str):
    return strategy(name, *FEW[name], *overrides)


def latent_model(at: Situation, hidden: int | None = None) -> Model:
    """Linear in latents of three numbers that an encoder makes of points of the plane."""
    with seeded(np.random.default_rng(1), CPU):
        none = Moments(np.zeros(2, np.float32), np.ones(2, np.float32))
        encoder = Encoder(Adapt((2,), none, (2,)), nn.Linear(2, 3), width=3, widest=3)
        network = FrozenHead(hidden, False, 0.0).on(encoder).build((2,), none, at.pool.classes)
    return Model(network.eval(), at.inputs, {})


def situated(name: str, classes: int = 2, n: int = 60) -> Situation:
    points = np.random.default_rng(0).random(size=(n, 2)).astype(np.float32)
    at = Situation(points, {row: row % classes for row in range(0, n, 10)}, classes)
    if name == "adba":
        at.model = latent_model(at)
    return at


def played(at: Situation, who, size: int, **options) -> Round:
    current = at.round(who, size, **options)
    current.work.purchase.annotator = Sides()
    return current


def chosen(who, current: Round, size: int):
    return checked(who.select(current, size), current, size, name_of(who))


@each_maker
def test_it_buys_exactly_the_size_in_new_rows(name):
    for size in (1, 4, 20):
        who, at = made(name), situated(name)
        current = played(at, who, size)
        batch = chosen(who, current, size)
        assert sorted(batch.rows) == list(range(60, 60 + size * IMAGES[name]))
        assert len(np.unique(current.work.purchase.annotations(batch.rows))) == size
        assert ((current.work.purchase.items >= 0) & (current.work.purchase.items <= 1)).all()
        assert len(current.work.purchase.settled(batch.rows)) == size * IMAGES[name]
        assert at.asked == []


@each_maker
def test_the_same_seed_makes_the_same_images_and_another_seed_others_where_chance_decides(name):
    who = made(name)
    rounds = [played(situated(name), who, 4, seed=seed) for seed in (0, 0, 1)]
    batches = [chosen(who, current, 4) for current in rounds]
    first, again, other = (current.work.purchase.items for current in rounds)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(batches[0].scores, batches[1].scores)
    assert (name == "gaal") == bool((first != other).any())


@each_maker
def test_it_leaves_pool_model_and_generator_as_they_were(name):
    who, at = made(name), situated(name)
    current = played(at, who, 4)
    networks = (at.model.network, current.generator.network)
    before = [each.clone() for network in networks for each in network.parameters()]
    points, labels = at.inputs.array.copy(), at.pool.labels.copy()
    chosen(who, current, 4)
    after = [each for network in networks for each in network.parameters()]
    assert all(torch.equal(*both) for both in zip(before, after, strict=True))
    assert all(each.grad is None for each in after)
    assert all(not network.training for network in networks)
    np.testing.assert_array_equal(at.inputs.array, points)
    np.testing.assert_array_equal(at.pool.labels, labels)
    assert len(at.pool) == 60


@each_maker
def test_without_a_model_or_somebody_who_labels_it_says_what_is_missing(name):
    who, at = made(name), situated(name)
    with pytest.raises(ValueError, match="no label was bought yet"):
        who.select(played(at, who, 2, cold=True), 2)
    with pytest.raises(ValueError, match="oracle=reference"):
        who.select(at.round(who, 2), 2)


def test_gaal_labels_what_the_search_found_and_the_search_lowers_the_distance():
    who, at = made("gaal", "score=min_distance", "learning_rate=0.1", "steps=100"), situated("gaal")
    current = played(at, who, 6)
    batch = chosen(who, current, 6)
    assert batch.notes["synthetic_after"] < 0.5 * batch.notes["synthetic_before"]
    model = at.model.on(current.work.purchase.pool.inputs)
    logits = model.logits(batch.rows)
    np.testing.assert_allclose(np.abs(logits[:, 1] - logits[:, 0]), batch.scores, atol=1e-5)
    assert [told["row"] for told in current.work.tables["gaal"]] == batch.rows.tolist()


def test_gaal_looks_at_no_row_of_the_pool():
    who = made("gaal")
    few, many = (played(situated("gaal", n=n), who, 3) for n in (60, 200))
    few.life.once["generator"] = many.life.once["generator"]
    many = Round(1, many.pool, many.candidates, few.model, many.rng, many.life, many.work)
    for current in (few, many):
        chosen(who, current, 3)
        assert current.work.predicted == 0
    np.testing.assert_array_equal(few.work.purchase.items, many.work.purchase.items)


def test_a_line_runs_along_the_normal_through_the_foot():
    rng = np.random.default_rng(0)
    z, normal = rng.normal(size=5), rng.normal(size=5)
    found = line(z, normal, 0.3, (11, 0.25, 100.0)).astype(np.float64)
    values = found @ normal + 0.3
    assert values[5] == pytest.approx(0, abs=1e-5)
    steps = np.diff(found, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.25, atol=1e-5)
    unit = normal / np.linalg.norm(normal)
    np.testing.assert_allclose(steps @ unit, 0.25, atol=1e-5)
    across = (found - z) - ((found - z) @ unit)[:, None] * unit
    np.testing.assert_allclose(across, 0, atol=1e-5)


def test_a_line_never_leaves_the_ball_and_keeps_its_number_of_images():
    rng = np.random.default_rng(1)
    for _ in range(200):
        z, normal, offset = rng.normal(size=4) * 3, rng.normal(size=4), rng.normal() * 5
        found = line(z, normal, offset, (11, 0.5, 2.0))
        assert found.shape == (11, 4)
        assert np.linalg.norm(found, axis=1).max() <= 2.0 + 1e-5
        values = found @ normal + offset
        if abs(offset) < 2.0 * np.linalg.norm(normal) - 1e-3:  # the plane cuts the ball
            assert values[0] < 1e-4
            assert values[-1] > -1e-4
        gaps = np.linalg.norm(np.diff(found, axis=0), axis=1)
        np.testing.assert_allclose(gaps, 0.4, atol=1e-5)  # eleven images across a ball of radius 2


def test_adba_s_lines_pass_through_the_candidates_nearest_to_the_boundary():
    who, at = made("adba"), situated("adba")
    current = played(at, who, 3)
    normal, offset = plane(current)
    latents = at.model.embed(current.candidates).astype(np.float64)
    logits = at.model.logits(current.candidates)
    distances = np.abs(latents @ normal + offset)
    np.testing.assert_allclose(distances, np.abs(logits[:, 1] - logits[:, 0]), atol=1e-5)
    nearest = current.candidates[np.argsort(distances, kind="stable")[:3]]
    batch = chosen(who, current, 3)
    assert [told["candidate"] for told in current.work.tables["adba"]] == nearest.tolist()
    np.testing.assert_allclose(batch.scores[::11], np.sort(distances)[:3], atol=1e-5)
    z = at.model.embed(nearest[:1])[0].astype(np.float64)
    drawn = planar(at.inputs).images(torch.from_numpy(line(z, normal, offset, (11, 0.25, 1e9))))
    np.testing.assert_allclose(current.work.purchase.items[:11], drawn.numpy(), atol=1e-5)
    assert (
        current.work.purchase.settled(batch.rows).tolist()
        == [0] * 5 + [1] * 6 + [0] * 5 + [1] * 6 + [0] * 5 + [1] * 6
    )


def test_a_candidate_gives_one_line_in_a_run_and_narrowing_is_respected():
    who, at = made("adba"), situated("adba")
    current = played(at, who, 3)
    chosen(who, current, 3)
    used = [told["candidate"] for told in current.work.tables["adba"]]
    later = played(at, who, 3)
    later.life.written = {"adba": current.work.tables["adba"]}
    chosen(who, later, 3)
    assert not set(used) & {told["candidate"] for told in later.work.tables["adba"]}
    narrow = played(at, who, 2)
    few = at.pool.unlabeled[3:6]
    who.select(narrow.narrow(few), 2)
    assert {told["candidate"] for told in narrow.work.tables["adba"]} <= set(few.tolist())
    with pytest.raises(ValueError, match="2 lines through as many candidates and 1 are left"):
        who.select(played(at, who, 2).narrow(few[:1]), 2)


def test_adba_refuses_what_is_not_linear_in_latents_or_has_more_classes():
    who, at = made("adba"), situated("adba")
    for model in (Situation(at.inputs.array, {0: 0, 1: 1}, 2).model, latent_model(at, hidden=3)):
        at.model = model
        with pytest.raises(ValueError, match="linear in the generator's latents"):
            who.select(played(at, who, 2), 2)
    three = situated("adba", classes=3)
    with pytest.raises(ValueError, match="two classes and the data have 3"):
        who.select(played(three, who, 2), 2)
    flat = situated("adba")
    nn.init.zeros_(flat.model.network.head.weight)
    with pytest.raises(ValueError, match="weights are alike"):
        who.select(played(flat, who, 2), 2)


def test_adba_refuses_candidates_that_are_no_numbers():
    who, at = made("adba"), situated("adba")
    at.inputs.array[5] = np.nan
    with pytest.raises(ValueError, match="NaN for row 5"):
        who.select(played(at, who, 2), 2)
