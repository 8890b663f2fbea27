"""The query that stays on the device against the incremental one."""

import numpy as np
import pytest
import torch
from conftest import strategy
from test_diffusion import Case

from alrun.graph import uncertainty
from alrun.graph.batch_query import Query, Situation, batch_query
from alrun.graph.diffusion import clamp_values
from alrun.graph.resident import resident_query
from alrun.graph.uncertainty import min_abs
from alrun.strategies.diffusion import Diffusion

CPU = torch.device("cpu")


def both(at, size, query, clamps, ranks=None):
    """The same query done both ways."""
    usual = batch_query(at, size, query, min_abs, lambda rows, _: clamps[rows].astype(np.float64), ranks)
    return usual, resident_query(at, size, query, lambda chi: chi.abs().amin(dim=1), clamps, CPU, ranks)


def assert_same(usual, resident):
    assert resident.rows.tolist() == usual.rows.tolist()
    assert (resident.scores == usual.scores).all()
    for name in ("unreached", "steps", "by_influence", "hub_free"):
        assert getattr(resident, name) == getattr(usual, name)


@pytest.mark.parametrize("mini_batch", [1, 4, 50])
@pytest.mark.parametrize("delta", [None, 0.3, 1.0])
@pytest.mark.parametrize("labeled", [0, 3, 25])
@pytest.mark.parametrize("kind", ["start", "soft"])
def test_it_picks_what_the_incremental_query_picks(mini_batch, delta, labeled, kind):
    case = Case(seed=1, n=150, labeled=labeled)
    at = case.situation(getattr(case, kind).astype(np.float32))
    clamps = clamp_values(case.labels, case.classes).astype(np.float32)
    for influence in ("row", "col"):
        query = Query(4, mini_batch, delta, influence, kind == "soft")
        assert_same(*both(at, 30, query, clamps))


def test_ranks_stand_in_for_influence_also_here():
    case = Case(seed=1, n=150, labeled=3)
    at = case.situation(case.start.astype(np.float32))
    clamps = clamp_values(case.labels, case.classes).astype(np.float32)
    query = Query(4, 4, None, "row", False)
    usual, resident = both(at, 30, query, clamps, np.random.default_rng(0).random(150))
    assert usual.by_influence > 0
    assert_same(usual, resident)
    assert usual.rows.tolist() != both(at, 30, query, clamps)[0].rows.tolist()


def test_ties_fall_to_the_smaller_row_also_here():
    case = Case(n=120, labeled=2)
    same = Situation(case.weights, np.zeros((120, 4), np.float32), np.zeros(120, bool), np.arange(3, 90))
    clamps = np.zeros((120, 4), np.float32)
    query = Query(2, 7, None, "row", True)
    usual, resident = both(same, 20, query, clamps)
    assert resident.rows.tolist() == list(range(3, 23))
    assert_same(usual, resident)


@pytest.mark.parametrize(("wanted", "got"), [(0, 0), (1, 1), (8, 8), (50, 8)])
def test_it_holds_what_is_asked_for_or_all_there_is(wanted, got):
    case = Case()
    few = np.flatnonzero(~case.labeled)[:8]
    at = case.situation(case.start.astype(np.float32), few)
    clamps = clamp_values(case.labels, case.classes).astype(np.float32)
    usual, resident = both(at, wanted, Query(3, 3, 0.2, "row", False), clamps)
    assert len(resident.rows) == got
    assert_same(usual, resident)


@pytest.mark.parametrize("name", ["min_abs", "norm", "confidence", "margin", "entropy"])
def test_each_criterion_is_the_same_on_a_device(name):
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 50)
    shares[3] = np.eye(5)[1]
    numpy = {"norm": lambda chi: uncertainty.norm(chi, 3.0), "entropy": uncertainty.negative_entropy}
    expected = numpy.get(name) or getattr(uncertainty, name)
    found = uncertainty.resident(torch.from_numpy(shares), name, 3.0)
    np.testing.assert_allclose(found, expected(shares), atol=1e-12)


def test_a_strategy_on_a_gpu_would_pick_what_it_picks_here(situation, monkeypatch):
    who = strategy("diffusion", "mini_batch=2")
    usual = who.select(situation().round(who, 9), 9)
    monkeypatch.setattr(Diffusion, "_resident", lambda *_: True)
    resident = who.select(situation().round(who, 9), 9)
    assert resident.rows.tolist() == usual.rows.tolist()
    assert (resident.scores == usual.scores).all()
    assert resident.notes == usual.notes
