"""Trainers that learn from unlabeled rows go on after a kill, are restored, set and forecast."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import settings
from fits import DROPPED, NORMED, PLAIN, Broken, Frozen, chance, equal, images, pool, weights
from fits import fitted_by as fitted
from pool_fits import KINDS, Seen, lasting, some_bought, trainer
from test_run import Unwatched

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.forecast import forecast
from alrun.graph.pseudo_labels import PseudoLabels
from alrun.models.cnn import S0Cnn
from alrun.run import run
from alrun.state import RunFolder
from alrun.training.progress import Silent
from alrun.training.recipe import optimizer_of
from alrun.training.supervised import Supervised


@pytest.mark.parametrize(
    ("kind", "architecture", "changes"),
    [
        ("label_propagation", NORMED, {}),
        ("label_propagation", DROPPED, {"optimizer": "adam", "pseudo_labels": "gtg"}),
        ("label_propagation", S0Cnn(0.5), {"crop": 1, "flip": True, "variant": "repo"}),
        ("label_propagation", PLAIN, {"patience": 1, "validation": 0.2, "learning_rate": 0.5}),
        ("mean_teacher", NORMED, {}),
        ("mean_teacher_label_propagation", NORMED, {}),
        ("mean_teacher_label_propagation", S0Cnn(0.5), {"crop": 1, "flip": True, "variant": "repo"}),
        ("mean_teacher_label_propagation", DROPPED, {"logit_distance": None, "pseudo_labels": "network"}),
    ],
)
def test_a_fit_broken_off_in_a_stage_or_between_them_continues_to_the_same_bits(kind, architecture, changes):
    data = some_bought(images(), 9) if isinstance(architecture, S0Cnn) else pool()
    who = trainer(kind, **changes)
    seen = Seen()
    whole = fitted(who, data, architecture, progress=seen)
    turn = sum(sight.stage == "supervised" for sight in seen.sights)
    stops = [stop for stop in (turn - 1, turn, turn + 1) if 0 < stop < len(seen.sights)]
    assert len(stops) == (1 if kind == "mean_teacher" else 3)
    for stop in stops:
        broken = Broken(stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(who, data, architecture, progress=broken)
        broken.stop = -1
        continued = fitted(who, data, architecture, progress=broken)
        assert equal(whole.weights, continued.weights), stop
        assert lasting(whole.facts) == lasting(continued.facts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", [NORMED, Frozen()], ids=["normed", "frozen"])
def test_a_restored_model_says_the_same_and_can_be_started_from(kind, architecture):
    data, rows = pool(), np.arange(40)
    who = trainer(kind, start="previous")
    model = fitted(who, data, architecture)
    again = who.restored(architecture, data, model.weights, model.facts)
    assert np.array_equal(model.predict(rows), again.predict(rows))
    assert again.facts == model.facts
    assert not model.heads
    before = weights(model)
    further = fitted(replace(who, learning_rate=1e-12), data, architecture, start=model)
    assert equal(before, weights(model))
    assert torch.allclose(further.network.head.weight, before["head.weight"], atol=1e-6)


def test_hidden_chance_is_named_by_epoch_and_other_streams_give_other_bits():
    data, who = pool(), trainer()
    one, same = fitted(who, data, DROPPED), fitted(who, data, DROPPED)
    assert equal(weights(one), weights(same))
    other = who.fit(
        DROPPED, data, chance=lambda *names: chance("other", *names), start=None, progress=Silent()
    )
    assert not equal(weights(one), weights(other))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.labeled_batch_size=100"], "trainer.labeled_batch_size: must be below trainer.batch_size"),
        (
            ["trainer.horizon=110", "trainer.propagation_epochs=120"],
            "trainer.horizon: must be at least trainer.prop",
        ),
        (["trainer.momentum=0.0"], "trainer.nesterov: needs trainer.momentum above 0"),
        (["trainer.pseudo_labels=graph"], "trainer.pseudo_labels"),
        (["trainer.alpha=1.0"], "trainer.alpha"),
        (["+trainer.consistency=1.0"], "trainer.consistency"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(words, line):
    with pytest.raises(ConfigError) as caught:
        assemble(settings("trainer=label_propagation", *words))
    assert any(each.startswith(line) for each in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dataset", ["digits", "cifar10", "mnist", "checkerboard"])
def test_each_composes_with_data_sets_of_every_sort_and_augments_what_stays_what_it_is(kind, dataset):
    found = assemble(settings(f"dataset={dataset}", f"trainer={kind}")).trainer
    assert isinstance(found, Supervised)
    assert (found.crop, found.flip) == {"cifar10": (4, True), "mnist": (2, False)}.get(dataset, (0, False))


@pytest.mark.parametrize(
    ("kind", "reads"),
    [("label_propagation", 3 * 30 + 3 * (10 + 2 * 3)), ("mean_teacher", 3 * 16), (KINDS[2], 3 * 16 + 3 * 16)],
)
def test_a_forecast_counts_the_items_that_a_fit_reads(kind, reads):
    who, data = trainer(kind), pool()
    assert who.reads(30, 10) == reads == fitted(who, data).facts["train_images"]
    assert who.reads(40, 0) == fitted(who, pool(40, 40)).facts["train_images"]
    longer = replace(who, epochs=200)
    one, other = (forecast(each, PLAIN, None, data.blank, [30], 10).training for each in (who, longer))
    assert other > 5 * one > 0


def test_a_forecast_grows_with_the_rows_but_that_of_the_graph_with_their_square(monkeypatch):
    monkeypatch.setattr("alrun.training.label_propagation.TRIED", 10)
    plain = PseudoLabels.of

    def timed(self, *everything):
        parts = {"graph": 100.0, "solve": 10.0} if self.kind == "diffusion" else {"predict": 10.0}
        return replace(plain(self, *everything), seconds=parts)

    monkeypatch.setattr(PseudoLabels, "of", timed)
    for kind, seconds in (("diffusion", 3 * (16 * 100 + 4 * 10)), ("network", 3 * 4 * 10)):
        found = trainer(pseudo_labels=kind).seconds_beside(PLAIN, pool(40), chance)
        assert found == pytest.approx(seconds, rel=1e-2)


class Killed(Unwatched):
    """Is killed after the seventh epoch: the first of the second stage, in the second round."""

    count = 0

    def epoch(self, done, total):
        self.count += 1
        if self.count == 7:
            raise KeyboardInterrupt


def test_a_run_killed_inside_a_fit_goes_on_to_the_same_numbers(tmp_path):
    words = ["dataset.pool_size=120", "tracker=none", "strategy=margin", "budget.rounds=1", "trainer.k=5"]
    words += ["trainer.epochs=1", "trainer.propagation_epochs=4", "trainer=mean_teacher_label_propagation"]
    found = {**settings(*words), "choices": {"dataset": "digits", "strategy": "margin"}}

    def folder(name: str) -> RunFolder:
        where = RunFolder(tmp_path / name)
        where.progress = partial(where.progress, every=0.0)
        return where

    whole = run(assemble(found), folder("whole"), found, Unwatched())
    with pytest.raises(KeyboardInterrupt):
        run(assemble(found), folder("broken"), found, Killed())
    assert (tmp_path / "broken" / "checkpoint" / "fit.pt").exists()
    again = run(assemble(found), folder("broken"), found, Unwatched())
    assert equal(whole.weights, again.weights)
    for one, other in zip(whole.records, again.records, strict=True):
        assert "pseudo_unconverged" in one
        for name in ("accuracy", "loss", "pseudo_residual", "train_consistency", "train_images"):
            assert one[name] == other[name]


def test_nesterovs_way_is_a_setting_of_sgd():
    weight = [torch.nn.Parameter(torch.ones(2))]
    assert optimizer_of(trainer(), weight).param_groups[0]["nesterov"]
    assert not optimizer_of(trainer(nesterov=False), weight).param_groups[0]["nesterov"]
