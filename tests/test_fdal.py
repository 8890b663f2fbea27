"""f-DAL: its discrepancies, the reversed gradient, and features that adapt."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import part, settings, unlabeled
from torch.nn import functional

from alrun.assembly import assemble
from alrun.cache import scratch
from alrun.config import ConfigError
from alrun.features.encoding import encoded
from alrun.features.fdal import Fdal
from alrun.forecast import forecast
from alrun.lifetime import NO_SHELF, Lifetime, identity
from alrun.models.fdal import discrepancy, reversed_gradient
from alrun.models.resnet import residual, widest
from alrun.models.view import View, _sides, middles, resized_parts
from alrun.pool import Inputs, Pool, Source, stream
from alrun.training.seeding import seeded

CPU = torch.device("cpu")


def refuse(rows: np.ndarray) -> np.ndarray:
    raise AssertionError("asked for embeddings")


def fdal(*words: str) -> Fdal:
    small = ("backbone.hidden=[]", "bottleneck=8", "epochs=2", "steps=5", "batch_size=16")
    return part("featurizer", "featurizer=fdal", *(f"featurizer.{word}" for word in (*small, *words)))


def turned(count: int = 60, seed: int = 0) -> tuple[Pool, np.ndarray]:
    """Three classes on a circle, which in the pool is turned by 34 degrees and shifted in two more numbers.

    Its true labels beside it.
    """
    rng = np.random.default_rng(seed)

    def items(labels: np.ndarray, turn: float, shift: float) -> np.ndarray:
        angle = labels * 2 * np.pi / 3 + turn
        circle = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.5 * rng.normal(size=(count, 2))
        return np.concatenate([circle, rng.normal(size=(count, 2)) + shift], 1).astype(np.float32)

    truth, known = rng.integers(0, 3, (2, count))
    pool = unlabeled(items(truth, 0.6, 1.5), 3)
    return Pool(pool.inputs, pool.labels, 3, Source(Inputs(items(known, 0.0, 0.0)), known)), truth


def made(featurizer: Fdal, pool: Pool, folder, seed: int = 0) -> np.ndarray:
    return featurizer.make(pool, refuse, np.random.default_rng(seed), scratch(folder))


@pytest.mark.parametrize("divergence", ["pearson", "jensen_shannon"])
def test_nothing_tells_domains_apart_where_all_is_zero(divergence):
    assert discrepancy(divergence, torch.zeros(4), torch.zeros(7)).item() == pytest.approx(0, abs=1e-7)


def test_discrepancies_reach_the_divergence_at_their_best_witness():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    # each value as often as it is likely: means over ten items are expectations
    pearson, jensen = 2 * (p / q - 1), np.log(p / q)
    mean = (p + q) / 2
    divergences = {
        "pearson": (((p - q) ** 2 / q).sum(), pearson),
        "jensen_shannon": ((p * np.log(p / mean)).sum() + (q * np.log(q / mean)).sum(), jensen),
    }
    for name, (divergence, best) in divergences.items():
        source, target = (torch.tensor(np.repeat(best, (10 * share).round().astype(int))) for share in (p, q))
        found = discrepancy(name, source, target).item()
        assert found == pytest.approx(divergence)
        for change in (0.1, -0.1):
            assert discrepancy(name, source + change, target + change).item() < found
            assert discrepancy(name, source * (1 + change), target * (1 + change)).item() < found


def test_the_reversal_keeps_numbers_and_turns_gradients():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def loss(x):
        return (x**3).sum()

    reversed_gradient(x, 0.3).pow(3).sum().backward()
    step, numeric = 1e-6, torch.zeros_like(x)
    for place in np.ndindex(4, 3):
        more = torch.zeros_like(x)
        more[place] = step
        with torch.no_grad():
            numeric[place] = (loss(x + more) - loss(x - more)) / (2 * step)
    assert torch.allclose(x.grad, -0.3 * numeric, atol=1e-6)


@pytest.mark.parametrize("head", ["plain", "spectral"])
def test_the_auxiliary_head_climbs_the_discrepancy_and_the_encoder_descends_it(head):
    pool, _ = turned()
    with seeded(stream(0, "weights"), CPU):
        network = fdal(f"head={head}", "dropout=0.0").network(pool.inputs, 3, filled=True)
    x = torch.cat([pool.source.inputs.take(np.arange(60)), pool.inputs.take(np.arange(60))])

    def told() -> torch.Tensor:
        _, entries = network(x, 1.0)
        return discrepancy("pearson", entries[:60], entries[60:])

    before = told()
    (-before).backward()
    for group, sign in ((network.auxiliary, 1), (network.bottleneck, -1)):
        kept = {name: weight.detach().clone() for name, weight in group.named_parameters()}
        with torch.no_grad():
            for weight in group.parameters():
                weight -= 1e-3 * weight.grad / max(float(weight.grad.norm()), 1e-9)
        assert sign * (told() - before) > 0
        with torch.no_grad():
            for name, weight in group.named_parameters():
                weight.copy_(kept[name])
    assert all(weight.grad is None for weight in network.head.parameters())


def test_the_heads_begin_apart_and_spectral_ones_have_norm_one():
    pool, _ = turned()
    with seeded(stream(0, "weights"), CPU):
        network = fdal("head=spectral").network(pool.inputs, 3, filled=True)
    for _ in range(30):
        network(pool.inputs.take(np.arange(60)), 0.0)
    for head in (network.head, network.auxiliary):
        for layer in (head[0], head[-1]):
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.05)
    assert not torch.allclose(network.head[0].weight, network.auxiliary[0].weight)


def test_rates_and_coefficients_follow_the_public_demo():
    featurizer = part("featurizer", "featurizer=fdal")
    assert [featurizer.rate(step) for step in (0, 5000)] == pytest.approx([0.004, 0.004 * 2**-0.75])
    assert featurizer.coefficient(0) == 0
    assert featurizer.coefficient(1000) == pytest.approx(0.1 * (2 / (1 + math.exp(-1)) - 1))
    assert featurizer.coefficient(10**6) == pytest.approx(0.1)


def test_adapted_features_let_a_head_of_the_source_serve_the_target(tmp_path):
    pool, truth = turned(120)
    words = ("epochs=2", "steps=100", "learning_rate=0.01", "backbone_rate=1.0", "dropout=0.0")
    words += ("backbone.hidden=[32]", "bottleneck=32", "reversal=0.3", "reversal_steps=50")
    scores = {}
    for weight in (0.0, 1.0):
        featurizer, folder = fdal(*words, f"weight={weight}"), tmp_path / str(weight)
        target = made(featurizer, pool, folder)
        source = encoded(featurizer.encoder(folder, pool.inputs), pool.source.inputs)
        centers = np.stack([source[pool.source.labels == label].mean(0) for label in range(3)])
        nearest = ((target[:, None] - centers) ** 2).sum(2).argmin(1)
        scores[weight] = (nearest == truth).mean()
    assert scores[1.0] > scores[0.0] + 0.1
    assert scores[1.0] > 0.85


def test_a_training_broken_off_ends_with_the_same_bits(tmp_path):
    pool, _ = turned()
    featurizer = fdal("epochs=4")
    whole = made(featurizer, pool, tmp_path / "whole")
    broken = scratch(tmp_path / "broken")

    def killed(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    broken._tell = killed
    with pytest.raises(KeyboardInterrupt):
        featurizer.make(pool, refuse, np.random.default_rng(0), broken)
    assert np.array_equal(made(featurizer, pool, tmp_path / "broken"), whole)
    assert not np.array_equal(made(featurizer, pool, tmp_path / "other", seed=1), whole)


def test_the_encoder_is_read_back_and_gives_the_features(tmp_path):
    pool, _ = turned()
    featurizer = fdal("head=spectral")
    features = made(featurizer, pool, tmp_path)
    assert features.shape == (60, 8)
    encoder = featurizer.encoder(tmp_path, pool.inputs)
    assert np.array_equal(encoded(encoder, pool.inputs), features)
    assert not any(weight.requires_grad for weight in encoder.parameters())
    with (tmp_path / "fdal.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert 0 <= float(lines[-1]["source_accuracy"]) <= 1
    assert (tmp_path / "fdal.png").exists()


def test_images_go_through_a_residual_network_that_sees_parts_of_them(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, 3, 40, 40), dtype=np.uint8)
    known = np.arange(6) % 2
    pool = Pool(Inputs(images[0]), np.full(6, -1), 2, Source(Inputs(images[1]), known))
    words = ("backbone.kind=resnet18", "backbone.crop=32", "epochs=1", "steps=1", "batch_size=2")
    featurizer = fdal(*words)
    features = made(featurizer, pool, tmp_path)
    encoder = featurizer.encoder(tmp_path, pool.inputs)
    assert np.array_equal(encoded(encoder, pool.inputs), features)
    framed = images[0].copy()
    framed[:, :, :4] = framed[:, :, 36:] = framed[:, :, :, :4] = framed[:, :, :, 36:] = 0
    assert np.array_equal(encoder(torch.from_numpy(framed)).numpy(), features)
    with pytest.raises(ValueError, match=r"featurizer\.backbone\.crop=64 .* side of 40"):
        made(fdal("backbone.kind=resnet18", "backbone.crop=64"), pool, tmp_path)


def test_random_parts_lie_within_the_image_and_middles_are_exact():
    steps = torch.arange(40, dtype=torch.float32)
    images = torch.stack([steps.expand(40, 40), steps[:, None].expand(40, 40)]).expand(64, 2, 40, 40)
    with seeded(np.random.default_rng(0), CPU):
        parts = resized_parts(images, (16, 24), 0.25)
    assert parts.shape == (64, 2, 16, 24)
    assert parts.min() >= 0
    assert parts.max() <= 39
    wide, tall = ((parts[:, i].amax((1, 2)) - parts[:, i].amin((1, 2))) / 40 for i in (0, 1))
    share = wide / (23 / 24) * tall / (15 / 16)
    assert share.min() > 0.24
    assert share.max() < 1.01
    assert share.std() > 0.1
    assert torch.equal(middles(images, (2, 4))[0, 0, 0], torch.tensor([18.0, 19, 20, 21]))
    view = View(None, flip=True)
    assert torch.equal(view.eval()(images), images)
    assert set(view.train()(images)[:, 0, 0, 0].tolist()) == {0.0, 39.0}


@pytest.mark.parametrize("mixed", [False, True])
def test_random_parts_lie_where_an_affine_grid_puts_them_also_in_mixed_precision(mixed):
    images = torch.rand(5, 3, 30, 40, generator=torch.Generator().manual_seed(1))
    with seeded(np.random.default_rng(0), CPU):
        tall, wide = _sides(images, 0.08)
        down, right = torch.rand(2, 5)
    zero = torch.zeros(5)
    across = torch.stack([wide, zero, (1 - wide) * (2 * right - 1)], 1)
    along = torch.stack([zero, tall, (1 - tall) * (2 * down - 1)], 1)
    grid = functional.affine_grid(torch.stack([across, along], 1), [5, 3, 16, 24], align_corners=False)
    expected = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    with seeded(np.random.default_rng(0), CPU), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        parts = resized_parts(images, (16, 24), 0.08)
    assert parts.dtype == torch.float32
    torch.testing.assert_close(parts, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("depth", "size", "small"),
    [(18, (32, 40), True), (50, (32, 32), True), (34, (96, 64), False), (50, (66, 97), False)],
)
def test_residual_networks_are_as_wide_as_they_say(depth, size, small):
    network, _ = residual(depth, small_stem=small)
    seen = []
    for layer in network.modules():
        layer.register_forward_hook(lambda layer, x, out: seen.append(out.numel()))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *size))
    assert max(seen) == widest(depth, size, small_stem=small)


def test_a_backbone_is_as_wide_as_its_network_or_as_the_images_it_is_cut_from():
    def wide(side: int, *words: str) -> int:
        inputs = Inputs(np.random.default_rng(0).random((2, side, side)).astype(np.float32))
        return fdal(*words).network(inputs, 2, filled=False).widest

    assert wide(40, "backbone.kind=resnet18", "backbone.crop=32") == 64 * 32**2
    assert wide(200, "backbone.kind=resnet18", "backbone.crop=32") == 3 * 200**2
    assert wide(40, "backbone.kind=resnet18", "backbone.pretrained=true") == 64 * 20**2


def test_pretrained_weights_that_nothing_would_read_are_refused():
    remedy = r"set featurizer\.backbone\.pretrained=false"
    found = settings("featurizer=fdal", "featurizer.backbone.kind=mlp", "featurizer.backbone.pretrained=true")
    with pytest.raises(ConfigError, match=rf"backbone\.pretrained=True .*backbone\.kind=mlp .*{remedy}"):
        assemble(found)
    pool, _ = turned()
    with pytest.raises(ValueError, match=rf"backbone\.pretrained=True .* shape \(4,\).*{remedy}"):
        fdal("backbone.pretrained=true").network(pool.inputs, 3, filled=False)


@pytest.mark.parametrize("bad", [0, 1])
def test_pretrained_backbones_want_pixels_between_zero_and_one_of_pool_and_source(bad, tmp_path):
    images = [np.random.default_rng(0).random((4, 32, 32)).astype(np.float32) for _ in range(2)]
    images[bad] *= 255
    pool = Pool(Inputs(images[0]), np.full(4, -1), 2, Source(Inputs(images[1]), np.arange(4) % 2))
    with pytest.raises(ValueError, match=r"featurizer=fdal wants pixels in \[0, 1\]"):
        made(fdal("backbone.kind=resnet18", "backbone.pretrained=true"), pool, tmp_path)


def test_a_pool_without_a_source_is_refused(tmp_path):
    pool, _ = turned()
    with pytest.raises(ValueError, match="adapts from a labeled source .* has none"):
        made(fdal(), unlabeled(pool.inputs.array, 3), tmp_path)


def test_a_training_that_leaves_the_numbers_is_named(tmp_path):
    pool, _ = turned()
    with pytest.raises(ValueError, match="must stay finite, got .*; lower featurizer.learning_rate"):
        made(fdal("learning_rate=1e30", "clip=1e30"), pool, tmp_path)


def test_an_encoder_that_learned_nothing_is_said(tmp_path, caplog):
    pool, _ = turned()
    made(fdal("epochs=1", "steps=40", "learning_rate=1e-9"), pool, tmp_path)
    assert "hardly learned the source's classes" in caplog.text


class Spy:
    """A featurizer that remembers the pool it was given."""

    depends_on_model = False
    cached = False

    def __init__(self, reads_source: bool) -> None:
        self.reads_source = reads_source

    def make(self, pool, embed, rng, making):
        self.pool = pool
        return pool.inputs.pixels(np.arange(len(pool)))


@pytest.mark.parametrize("reads", [True, False])
def test_fixed_features_see_no_purchase_and_the_source_only_if_they_say_so(reads):
    pool, truth = turned()
    spy = Spy(reads)
    Lifetime(lambda *names: stream(0, *names), spy, None, CPU).features(pool.reveal(np.arange(9), truth[:9]))
    assert len(spy.pool.labeled) == 0
    assert (spy.pool.source is pool.source) == reads


def test_features_follow_the_source_and_the_weights_file_by_content(tmp_path):
    def key(source: str, featurizer) -> dict:
        shelf = replace(NO_SHELF, source=source)
        return Lifetime(lambda *names: stream(0, *names), featurizer, None, CPU, shelf)._features_key()

    assert key("a", fdal()) != key("b", fdal())
    assert key("a", part("featurizer", "featurizer=pca")) == key("b", part("featurizer", "featurizer=pca"))
    for name, content in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / name).write_bytes(content)
    one, same, other = (
        identity(fdal(f"backbone.pretrained={tmp_path / name}"))["backbone"]["pretrained"]
        for name in ("one", "same", "other")
    )
    assert one == same != other
    assert identity(fdal("backbone.pretrained=true"))["backbone"]["pretrained"].startswith("resnet50-")


def test_a_forecast_counts_steps_and_epochs_and_not_rows(monkeypatch):
    pool, _ = turned()
    monkeypatch.setattr("alrun.forecast.seconds_a_step", lambda fit: fit(1) or 0.5)
    experiment = part("trainer"), part("model")
    found = forecast(*experiment, fdal("epochs=3", "steps=7"), pool, [], 10)
    assert found.features == pytest.approx(0.5 * 3 * 7)
