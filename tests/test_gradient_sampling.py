import tracemalloc

import numpy as np
import pytest
from scipy.stats import chisquare

from alrun.coverage import gradients as module
from alrun.coverage.gradients import gradient_sampling


def candidates(kind, seed=0, m=300, c=5, d=12):
    """Probabilities float32 (m, c) and embeddings float32 (m, d)."""
    rng = np.random.default_rng(seed)
    p, h = rng.dirichlet(np.full(c, 0.4), m), rng.normal(size=(m, d))
    six, fewer = rng.integers(6, size=m), rng.integers(m // 4, size=m)
    sure, signs = np.eye(c)[rng.integers(c, size=m)], rng.choice([-1, 1], (m, 1))
    most, rows = np.arange(m)[:, None] > m // 10, np.arange(m)[:, None]
    p, h = {
        "plain": (p, h),
        "clusters": (0.99 * p[six] + 0.01 * p, 10 * h[six] + 0.01 * h),
        "duplicates": (p[fewer], h[fewer]),
        "equal embeddings": (p, np.ones_like(h)),
        "one gradient": (np.full_like(p, 1 / c), np.ones_like(h)),
        "certain": (sure, h),
        "mostly certain": (np.where(most, sure, p), h),
        "zero embeddings": (p, h * most),
        "opposite": (p, signs * h[:1]),
        "tiny": (p, 1e-40 * h),
        "huge": (p, 1e37 * h),
        "an outlier": (p, np.where(rows == 3, 1e8, 1) * h),
    }[kind]
    return p.astype(np.float32), h.astype(np.float32)


KINDS = ["plain", "clusters", "duplicates", "equal embeddings", "one gradient", "certain", "mostly certain"]
KINDS += ["zero embeddings", "opposite", "tiny", "huge", "an outlier"]


def gradients(p, h):
    """What is never made: float64 (m, c d)."""
    a = p.copy()
    a[np.arange(len(p)), p.argmax(axis=1)] -= 1
    return (a.astype(float)[:, :, None] * h.astype(float)[:, None]).reshape(len(p), -1)


def by_definition(p, h, size, rng):
    """k-means++ on the gradients, from the longest one, and the squared distances when chosen."""
    g = gradients(p, h)
    picks = [int((g**2).sum(axis=1).argmax())]
    squared, gaps = [np.inf], np.full(len(g), np.inf)
    while len(picks) < size:
        gaps = np.minimum(gaps, ((g - g[picks[-1]]) ** 2).sum(axis=1))
        shares = np.cumsum(gaps)
        picks.append(int(np.searchsorted(shares, rng.random() * shares[-1], side="right")))
        squared.append(gaps[picks[-1]])
    return picks, squared


@pytest.mark.parametrize("kind", KINDS)
def test_pruning_changes_no_bit(kind, monkeypatch):
    for seed, (c, d, size) in enumerate([(5, 12, 80), (2, 3, 40), (10, 64, 120), (3, 1, 300)]):
        given = *candidates(kind, seed, c=c, d=d), size
        picks, squared = gradient_sampling(*given, np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            patch.setattr(module, "COMPILED", False)
            plain, gaps = gradient_sampling(*given, np.random.default_rng(seed))
        assert picks.tolist() == plain.tolist()
        assert squared.tobytes() == gaps.tobytes()


@pytest.mark.parametrize("kind", ["plain", "clusters", "mostly certain", "zero embeddings", "huge"])
def test_the_same_numbers_draw_what_the_whole_gradients_draw(kind):
    for seed, (c, d) in enumerate([(5, 12), (2, 3), (10, 30)]):
        p, h = candidates(kind, seed, c=c, d=d)
        picks, squared = gradient_sampling(p, h, 25, np.random.default_rng(seed))
        expected, gaps = by_definition(p, h, 25, np.random.default_rng(seed))
        assert picks.tolist() == expected
        np.testing.assert_allclose(squared, gaps, rtol=1e-9)


def test_draws_are_distributed_as_k_means_plus_plus_on_the_gradients():
    p, h = candidates("plain", 3, m=8, c=3, d=2)
    g = gradients(p, h)
    gaps = ((g[:, None] - g) ** 2).sum(axis=2)
    first = int((g**2).sum(axis=1).argmax())
    chances = np.zeros((8, 8))
    for second in range(8):
        near = np.minimum(gaps[first], gaps[second])
        chances[second] = gaps[first, second] / gaps[first].sum() * near / near.sum()
    rng, seen = np.random.default_rng(11), np.zeros((8, 8))
    draws = 4000
    for _ in range(draws):
        picks, _ = gradient_sampling(p, h, 3, rng)
        assert picks[0] == first
        seen[picks[1], picks[2]] += 1
    assert chances.sum() == pytest.approx(1)
    assert (seen[chances == 0] == 0).all()
    rare = draws * chances < 8
    expected = np.append(draws * chances[~rare], draws * chances[rare].sum())
    assert len(expected) > 20
    assert chisquare(np.append(seen[~rare], seen[rare].sum()), expected).pvalue > 1e-6


@pytest.mark.parametrize("kind", ["certain", "one gradient"])
def test_where_all_are_equal_each_of_the_rest_is_as_likely(kind):
    p, h = candidates(kind, m=6)
    rng, seen = np.random.default_rng(2), np.zeros((6, 6))
    for _ in range(2000):
        picks, squared = gradient_sampling(p, h, 3, rng)
        assert squared.tolist() == [np.inf, 0.0, 0.0]
        seen[picks[1], picks[2]] += 1
    assert picks[0] == 0
    pairs = seen[1:, 1:]
    assert np.trace(pairs) == seen[0].sum() == seen[:, 0].sum() == 0
    assert chisquare(pairs[~np.eye(5, dtype=bool)]).pvalue > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_all_gives_each_once(kind):
    picks, squared = gradient_sampling(*candidates(kind, m=40), 99, np.random.default_rng(0))
    assert np.sort(picks).tolist() == list(range(40))
    assert squared[0] == np.inf
    assert (squared >= 0).all()


def test_the_first_is_the_longest_gradient_and_ties_fall_to_the_smaller_position():
    p, h = candidates("plain")
    longest = int((gradients(p, h) ** 2).sum(axis=1).argmax())
    p, h = np.vstack([p, p[[longest]]]), np.vstack([h, h[[longest]]])
    assert gradient_sampling(p, h, 1, np.random.default_rng(0))[0].tolist() == [longest]
    order = np.arange(len(p))[::-1]
    again, _ = gradient_sampling(p[order], h[order], 1, np.random.default_rng(0))
    assert again.tolist() == [0]


def test_each_choice_but_the_first_takes_one_number():
    for kind in ("plain", "certain"):
        rng, other = np.random.default_rng(4), np.random.default_rng(4)
        gradient_sampling(*candidates(kind), 7, rng)
        other.random(6)
        assert rng.random() == other.random()


def test_duplicates_are_drawn_only_once_all_others_are_at_distance_zero():
    p, h = candidates("duplicates")
    kinds = len(np.unique(gradients(p, h), axis=0))
    picks, squared = gradient_sampling(p, h, 200, np.random.default_rng(0))
    assert len(np.unique(picks)) == 200
    assert (squared[:kinds] > 0).all()
    assert (squared[kinds:] == 0).all()


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1 - 2.0**-53])
def test_what_is_at_distance_zero_is_never_drawn(uniform):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        nearest = module._nearest(700, 3)
        nearest.gaps[:] = rng.random(700) * (rng.random(700) < 0.01) * 10.0 ** rng.integers(-8, 8, 700)
        nearest.gaps[rng.integers(700)] = 1.0
        for span in range(3):
            nearest.sums[span] = np.cumsum(nearest.gaps[256 * span : 256 * (span + 1)])[-1]
        drawn = module._drawn(nearest, np.array([0]), uniform)
        assert nearest.gaps[drawn] > 0
        below = nearest.gaps[:drawn].sum() / nearest.gaps.sum()
        assert below - 1e-9 <= uniform <= below + nearest.gaps[drawn] / nearest.gaps.sum() + 1e-9


@pytest.mark.parametrize("name", ["probabilities", "embeddings"])
def test_what_is_no_number_is_refused(name):
    p, h = candidates("plain")
    {"probabilities": p, "embeddings": h}[name][[8, 20], 1] = np.nan
    with pytest.raises(ValueError, match=f"{name} must be finite, got NaN or inf in row 8"):
        gradient_sampling(p, h, 5, np.random.default_rng(0))


def test_inputs_are_left_as_they_were_and_may_lie_in_any_order():
    p, h = candidates("plain")
    before = p.copy(), h.copy()
    picks, _ = gradient_sampling(p, h, 30, np.random.default_rng(0))
    assert (p == before[0]).all()
    assert (h == before[1]).all()
    turned, _ = gradient_sampling(np.asfortranarray(p), np.asfortranarray(h), 30, np.random.default_rng(0))
    assert turned.tolist() == picks.tolist()


def test_gradients_are_never_made():
    p, h = candidates("plain", m=4000, c=50, d=64)  # 51 MB of gradients in float32
    gradient_sampling(p[:100], h[:100], 3, np.random.default_rng(0))
    tracemalloc.start()
    gradient_sampling(p, h, 10, np.random.default_rng(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6
