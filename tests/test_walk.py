import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array

from alrun.graph import walk as module
from alrun.graph.walk import Walk, locality

CPU = torch.device("cpu")


@pytest.fixture(params=["compiled", "plain"])
def path(request, monkeypatch):
    monkeypatch.setattr(module, "COMPILED", request.param == "compiled" and module.COMPILED)


def matrix(kind, n=300, seed=0):
    """Rows of seven entries each, or of any number, some empty and one full."""
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        columns = np.array([rng.choice(n, 7, replace=False) for _ in range(n)])
        return csr_array((rng.random(7 * n), columns.ravel(), 7 * np.arange(n + 1)), shape=(n, n))
    made = random_array((n, n), density=0.03, rng=rng, format="lil")
    made[5], made[7] = 0, rng.random(n)
    made = csr_array(made)
    made.eliminate_zeros()
    return made


def walk(made, dtype=torch.float32, ordered=False):
    return Walk(made, dtype, CPU, ordered)


def values(n, width=3, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(1).normal(size=(n, width))).to(dtype)


@pytest.mark.parametrize("kind", ["uniform", "any"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 10, 26, 100])
def test_some_rows_alone_have_the_bits_of_all_rows(path, kind, dtype, width):
    made, x = matrix(kind), values(300, width, dtype)
    own = walk(made, dtype)
    whole = own.step(x)
    close = 3e-5 if dtype == torch.float32 else 1e-13
    np.testing.assert_allclose(whole, made @ x.double().numpy(), rtol=0, atol=close)
    rng = np.random.default_rng(2)
    for size in (1, 2, 40, 300):
        rows = rng.permutation(300)[:size]
        assert torch.equal(own.step_of(rows, x), whole[torch.from_numpy(rows)])
    assert own.step_of(np.empty(0, np.int64), x).shape == (0, width)


@pytest.mark.parametrize("kind", ["uniform", "any"])
def test_an_order_by_locality_changes_no_bit(kind):
    made, x = matrix(kind), values(300)
    plain = walk(made).step(x)
    moved = walk(made, ordered=True)
    assert moved.row_of is not None
    assert sorted(moved.row_of) == list(range(300))
    assert torch.equal(moved.step(x[moved.row_of]), plain[moved.row_of])


def test_an_order_by_locality_brings_neighbors_together():
    line = np.random.default_rng(0).permutation(500)  # a ring with shuffled names
    rows, columns = np.tile(line, 2), np.concatenate([np.roll(line, 1), np.roll(line, -1)])
    ring = csr_array((np.ones(1000), (rows, columns)), shape=(500, 500))
    place = np.argsort(locality(ring))
    assert np.abs(place[rows] - place[columns]).max() <= 3


def test_threads_change_no_bit():
    made, x, before = matrix("any"), values(300, 10), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = walk(made).step(x)
        torch.set_num_threads(2)
        assert torch.equal(walk(made).step(x), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["uniform", "any"])
def test_what_leads_into_rows_is_found_once_each(path, kind):
    made, rng = matrix(kind), np.random.default_rng(3)
    own, dense = walk(made), made.toarray() > 0
    for size in (0, 1, 30, 300):
        rows, closed = rng.permutation(300)[:size], rng.random(300) < 0.2
        found = own.into(rows, closed)
        assert found.tolist() == np.flatnonzero(dense[:, rows].any(axis=1) & ~closed).tolist()
        assert own.edges_into(rows) == dense[:, rows].sum()


def test_a_matrix_without_entries_gives_zeros():
    own = walk(csr_array((4, 4)))
    assert not own.step(values(4)).any()
    assert own.into(np.arange(4), np.zeros(4, bool)).size == 0
