"""A generator's training: what it leaves, continues, refuses and says of itself."""

import csv
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, unlabeled
from generators import gan, squares, untrained

from alrun.cache import scratch
from alrun.generative.fitting import Passes
from alrun.generative.gan import Gan
from alrun.generative.generator import Generator
from alrun.generative.variety import variety
from alrun.lifetime import Lifetime
from alrun.pool import Inputs, stream
from alrun.shelf import NO_SHELF

FILES = {"generator.pt", "losses.csv", "losses.png", "samples.png", "stages.png", "diversity.png"}


def made(folder: Path, settings: Gan, items: np.ndarray) -> Generator:
    inputs = Inputs(items)
    settings.make(inputs, np.random.default_rng(0), scratch(folder))
    return settings.load(folder, inputs)


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp", "wgan_ct", "res_wgan_gp", "res_wgan_ct"])
def test_every_kind_leaves_its_networks_losses_and_pictures(kind, tmp_path):
    generator = made(tmp_path / "a", gan(kind, iterations=3), squares())
    assert {file.name for file in (tmp_path / "a").iterdir()} - {"state.pt"} == FILES
    images = generator.images(generator.draw(5, np.random.default_rng(0)))
    assert images.shape == (5, 8, 8)
    assert 0 <= images.min().item() <= images.max().item() <= 1
    (line,) = lines(tmp_path / "a")
    penalized = {"penalty"} if "wgan" in kind else set()
    consistent = {"consistency"} if "ct" in kind else set()
    losses = {"gap", "generator"} | penalized | consistent
    assert set(line) == {"iteration", "seconds", "rate", "spread", "nearness", "reach"} | losses
    assert float(line["iteration"]) == 3


@pytest.mark.parametrize(
    "items", [squares(), squares() / np.float32(255), np.repeat(squares()[:, None], 3, 1)]
)
def test_unit_images_mean_the_same_to_the_critic_as_stored_ones(items):
    inputs = Inputs(items)
    generator = untrained(inputs)
    stored = inputs.take(np.arange(6))
    pixels = stored.float() / 255 if stored.dtype == torch.uint8 else stored
    torch.testing.assert_close(generator.critic(stored), generator.critic(pixels))
    drawn = generator.images(generator.draw(4, np.random.default_rng(0)))
    assert drawn.shape == (4, *inputs.shape)
    assert generator.critic(drawn).shape == (4, generator.critic.width)


@pytest.mark.parametrize(("channels", "darkest"), [((), 0.0), ((3,), -1.0)])
def test_the_critic_is_shown_the_pool_s_images_on_the_generator_s_scale(channels, darkest):
    black, white = np.zeros((*channels, 8, 8), np.uint8), np.full((*channels, 8, 8), 255, np.uint8)
    generator = untrained(Inputs(np.stack([black, white])))
    seen = generator.critic.adapt(torch.from_numpy(np.stack([black, white])))
    assert generator.darkest == darkest
    assert (seen[0] == darkest).all()
    assert (seen[1] == 1).all()
    unit = generator.images(generator.draw(3, np.random.default_rng(0)))
    torch.testing.assert_close(
        generator.critic.adapt(unit),
        generator.network(generator.draw(3, np.random.default_rng(0))),
        rtol=1e-4,
        atol=1e-5,
    )


def test_images_follow_their_latents_and_weights_take_no_gradients():
    generator = untrained(Inputs(squares()))
    z = generator.draw(2, np.random.default_rng(0)).requires_grad_()
    generator.images(z)[0].sum().backward()
    assert z.grad is not None
    assert float(z.grad[0].abs().max()) > 0
    assert float(z.grad[1].abs().max()) == 0
    assert not any(each.requires_grad for each in generator.network.parameters())
    torch.testing.assert_close(generator.images(z)[:1], generator.images(z[:1]))


def test_draws_are_normal_and_follow_their_generator():
    generator = untrained(Inputs(squares()))
    one, same, other = (generator.draw(400, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.mean().item() == pytest.approx(0, abs=0.02)
    assert one.std().item() == pytest.approx(1, abs=0.02)


def test_what_is_read_back_draws_the_same_images(tmp_path):
    settings = gan("dcgan", iterations=4)
    items = np.repeat(squares()[:, None], 3, 1)
    first, again = made(tmp_path / "a", settings, items), settings.load(tmp_path / "a", Inputs(items))
    z = first.draw(6, np.random.default_rng(0))
    assert torch.equal(first.images(z), again.images(z))
    other = made(tmp_path / "b", settings, items)
    assert torch.equal(first.images(z), other.images(z))


def test_training_makes_a_generator_that_draws_like_the_pool(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = gan("dcgan", width=8, iterations=120, batch_size=32, generator_batch=32, learning_rate=4e-3)
    generator = made(tmp_path / "a", settings, squares(120))
    found = lines(tmp_path / "a")
    assert float(found[-1]["nearness"]) < 0.9 * float(found[0]["nearness"])
    drawn = generator.images(generator.draw(60, np.random.default_rng(1)))
    real = torch.from_numpy(squares(120)).float() / 255
    assert float((drawn.mean(0) - real.mean(0)).abs().mean()) < 0.15
    assert "generator: spread" in caplog.text


def test_a_collapsed_generator_is_noticed(tmp_path, caplog):
    made(tmp_path / "a", gan("dcgan", iterations=1, learning_rate=1e-9), squares(120, side=12))
    assert "the generator collapsed or learned little" in caplog.text
    assert "raise generator.iterations" in caplog.text


def test_variety_tells_the_same_from_the_collapsed():
    chance = torch.Generator().manual_seed(0)
    real, others, alike = (torch.rand(60, 1, 5, 5, generator=chance) for _ in range(3))
    same = variety(alike, real, others).numbers
    assert same["spread"] == pytest.approx(1, abs=0.05)
    assert same["nearness"] == pytest.approx(1, abs=0.05)
    assert same["reach"] == pytest.approx(1, abs=0.25)
    one = variety(real[:1].expand(60, 1, 5, 5), real, others)
    assert one.numbers["spread"] == 0
    assert one.reached == 1 / 60
    two = variety(torch.cat([real[:1], real[1:2]]).repeat(30, 1, 1, 1), real, others)
    assert two.reached <= 2 / 60
    distances = torch.cdist(real.flatten(1), others.flatten(1)).min(1).values.numpy()
    np.testing.assert_allclose(two.real_nearest, distances, rtol=1e-5)


def test_each_pass_through_the_pool_shows_every_row_once():
    whole = Passes(3, 7).rows(0, 30)
    assert sorted(whole[:7]) == sorted(whole[7:14]) == list(range(7))
    assert whole[:7].tolist() != whole[7:14].tolist()
    parts = Passes(3, 7)
    np.testing.assert_array_equal(np.concatenate([parts.rows(0, 11), parts.rows(11, 30)]), whole)
    np.testing.assert_array_equal(Passes(3, 7).rows(11, 30), whole[11:])


def test_the_rate_falls_to_nothing_where_it_is_told_to(tmp_path):
    made(tmp_path / "a", gan(iterations=40, critic_steps=1, falls=True, learning_rate=1e-4), squares())
    assert [float(line["rate"]) for line in lines(tmp_path / "a")] == pytest.approx([1e-4, 1e-4 / 2])


def test_a_pool_of_a_few_images_is_enough(tmp_path):
    generator = made(tmp_path / "a", gan(), squares(2))
    assert generator.images(generator.draw(1, np.random.default_rng(0))).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (squares().astype(np.float32), "pixels in \\[0, 1\\], got numbers from 0 to 230; store uint8"),
        (squares().reshape(-1, 64), "generators draw images"),
    ],
)
def test_items_that_are_no_unit_images_are_refused(items, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        made(tmp_path / "a", gan(), items)


def test_a_training_that_diverges_says_so(tmp_path):
    with pytest.raises(
        ValueError, match="must stay finite, got .* after iteration .* lower generator.learning"
    ):
        made(tmp_path / "a", gan("dcgan", iterations=20, learning_rate=1e30), squares())


def test_a_generator_is_kept_by_content_and_made_once(cache, monkeypatch):
    pool = unlabeled(squares())

    def life(settings: Gan, fingerprint: str = "pool") -> Lifetime:
        shelf = replace(NO_SHELF, cache=cache, fingerprint=fingerprint)
        return Lifetime(lambda *names: stream(0, *names), None, None, CPU, shelf, settings)

    first = life(gan())
    generator = first.generator(pool)
    assert len(first.once["generator_digest"]) == 64
    other = life(gan(iterations=1))
    assert list(other.plan(pool, frozenset({"generator"}))) == ["generator: to be made"]
    assert other.generator_ahead(pool) > 0
    monkeypatch.setattr(Gan, "make", lambda *given: 1 / 0)
    again = life(gan())
    z = generator.draw(3, np.random.default_rng(0))
    assert torch.equal(again.generator(pool).images(z), generator.images(z))
    assert again.once["generator_digest"] == first.once["generator_digest"]
    assert again.clock.seconds["generator"] > 0
    assert again.generator_ahead(pool) == 0
    for stranger in (other, life(gan(), "another pool"), life(gan("dcgan"))):
        with pytest.raises(ZeroDivisionError):
            stranger.generator(pool)


def test_without_a_generator_a_lifetime_says_what_to_choose():
    with pytest.raises(ValueError, match="needs a generator and got none; choose e.g. generator=wgan_gp"):
        Lifetime(lambda *names: stream(0, *names), None, None, CPU).generator(unlabeled(squares()))
