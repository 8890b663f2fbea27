"""Label propagation as a trainer: its steps, losses, stages, edges, and that a kill changes nothing."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from conftest import CPU, part, settings
from test_run import Unwatched
from test_training import DROPPED, NORMED, PLAIN, Broken, Frozen, chance, equal, images, pool, weights
from torch.nn import functional

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.forecast import forecast
from alrun.graph.pseudo_labels import PseudoLabels
from alrun.models.cnn import S0Cnn
from alrun.pool import Inputs, Pool
from alrun.run import run
from alrun.state import RunFolder
from alrun.training.model import Model
from alrun.training.pool_fit import PoolFit
from alrun.training.progress import Silent
from alrun.training.recipe import optimizer_of
from alrun.training.seeding import seeded
from alrun.training.supervised import Supervised

SMALL = {"epochs": 3, "propagation_epochs": 3, "batch_size": 8, "labeled_batch_size": 3, "k": 5}
KINDS = ("label_propagation", "mean_teacher", "mean_teacher_label_propagation")


@cache
def made(kind: str):
    return part("trainer", f"trainer={kind}")


def trainer(kind: str = "label_propagation", **changes):
    """Small, unless changed."""
    whole = made(kind)
    small = {name: value for name, value in SMALL.items() if hasattr(whole, name)}
    return replace(whole, **{**small, **changes})


def fitted(who, data: Pool, architecture=PLAIN, progress=None, start=None) -> Model:
    return who.fit(architecture, data, chance=chance, start=start, progress=progress or Silent())


def begun(who, data: Pool, architecture=PLAIN) -> PoolFit:
    with seeded(np.random.default_rng(3), CPU):
        network = architecture.build(data.inputs.shape, data.inputs.moments, data.classes)
    fit = who.begun(network, data, data.labeled, np.empty(0, np.int64), chance)
    assert isinstance(fit, PoolFit)
    return fit


def lasting(facts) -> dict[str, float]:
    return {name: value for name, value in facts.items() if not name.endswith("_seconds")}


def some_bought(data: Pool, count: int) -> Pool:
    return replace(data, labels=np.where(np.arange(len(data)) < count, data.labels, -1))


class Seen(Silent):
    """Remembers what was shown, and looks at each model."""

    def __init__(self) -> None:
        self.sights, self.accuracy, self.told = [], [], []

    def epoch(self, done, total) -> None:
        self.told.append((done, total))

    def watch(self, sight) -> None:
        self.sights.append(sight)
        model = sight.model()
        self.accuracy.append(model.predict(np.arange(len(model.inputs))).argmax(1))


# --- steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bought", "steps"), [(30, 2), (2, 8), (39, 1)])
def test_an_epoch_reads_unlabeled_rows_once_and_cycles_the_bought_ones(bought, steps, monkeypatch):
    data, seen = pool(bought=bought), []
    fit = begun(trainer(), data)
    fit.state["turn"] = 0
    monkeypatch.setattr(fit, "looks", lambda order: seen.append(order) or type(fit).looks(fit, order))
    fit.steps(chance("order", 0))
    (order,) = seen
    parts = [order[start : start + 8] for start in range(0, len(order), 8)]
    assert len(parts) == steps
    for step in parts:
        assert (data.labels[step[:3]] >= 0).all()
        assert (data.labels[step[3:]] < 0).all()
        assert len(step) > 3
    own = np.concatenate([step[:3] for step in parts])
    others = np.concatenate([step[3:] for step in parts])
    assert sorted(others) == data.unlabeled.tolist()
    times = np.bincount(own, minlength=len(data))[data.labeled]
    assert times.max() - times.min() <= 1
    assert times.sum() == 3 * steps


def test_a_step_follows_the_gradient_of_the_weighted_loss():
    data = pool()
    fit = begun(
        trainer(optimizer="sgd", momentum=0.0, nesterov=False, learning_rate=0.1, weight_decay=0.0), data
    )
    rows, omegas = np.r_[data.labeled[:3], data.unlabeled[:5]], torch.linspace(0.1, 2.0, 8)
    x, y = data.inputs.take(rows), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    x = fit.network.fixed(x)
    fit.pace(0.0)
    loss = (omegas * functional.cross_entropy(fit.network.trainable(x), y, reduction="none")).sum() / 8
    expected = torch.autograd.grad(loss, list(fit.network.parameters()))
    before = {name: value.detach().clone() for name, value in fit.network.named_parameters()}
    told = fit.learn(x, x, y, omegas)
    assert told[0] == pytest.approx(loss.item(), rel=1e-6)
    assert told[0] == pytest.approx((told[1] + told[2]).item(), rel=1e-6)
    for (name, weight), gradient in zip(fit.network.named_parameters(), expected, strict=True):
        assert torch.allclose(before[name] - 0.1 * gradient, weight, rtol=1e-4, atol=1e-6)


def test_a_row_weighs_by_its_certainty_and_its_class(monkeypatch):
    data, lessons = pool(), []
    plain = PoolFit.learn

    def spied(self, x, twin, y, weight):
        lessons.append((y.clone(), weight.clone()))
        return plain(self, x, twin, y, weight)

    monkeypatch.setattr(PoolFit, "learn", spied)
    seen, orders = Seen(), []
    monkeypatch.setattr(PoolFit, "looks", _spying_looks(orders, PoolFit.looks))
    fitted(trainer(propagation_epochs=1), data, progress=seen)
    made = seen.sights[2].pseudo
    y, weight = (torch.cat(each).numpy() for each in zip(*lessons, strict=True))
    assert np.array_equal(y, made.labels[orders[0]])
    np.testing.assert_allclose(weight, made.weights[orders[0]] * made.class_weights[y], rtol=1e-6)
    bought = data.labels[orders[0]] >= 0
    assert np.array_equal(y[bought], data.labels[orders[0]][bought])
    assert np.allclose(weight[bought], made.class_weights[y[bought]])


def _spying_looks(orders, plain):
    def looks(self, order):
        orders.append(order)
        return plain(self, order)

    return looks


@pytest.mark.parametrize("changes", [{"certainty_weights": False}, {"class_weights": False}])
def test_each_weight_can_be_switched_off(changes):
    seen = Seen()
    fitted(trainer(**changes), pool(), progress=seen)
    made = seen.sights[2].pseudo
    if "certainty_weights" in changes:
        assert np.array_equal(made.weights, np.where(made.zero, 0, 1))
    else:
        assert np.array_equal(made.class_weights, np.ones(3))


# --- stages -----------------------------------------------------------------------------------------------


def test_the_first_stage_is_the_supervised_fit_bit_for_bit():
    data, who = pool(), trainer()
    names = Supervised.__dataclass_fields__
    alone = fitted(Supervised(**{name: getattr(who, name) for name in names}), data)

    class Stops(Silent):
        def keep(self, epoch, make) -> None:
            if epoch == who.epochs:
                self.found = {name: value.clone() for name, value in make()["network"].items()}

    stops = Stops()
    fitted(who, data, progress=stops)
    assert equal(stops.found, weights(alone))


def test_the_second_stage_goes_on_with_weights_and_optimizer_at_rates_that_begin_anew():
    class Keeps(Silent):
        def __init__(self) -> None:
            self.momentum, self.rates = [], []

        def keep(self, epoch, make) -> None:
            state = make()["optimizer"]
            self.momentum.append(state["state"][0]["momentum_buffer"].clone())
            self.rates.append(state["param_groups"][0]["lr"])

    def kept(**changes) -> Keeps:
        keeps = Keeps()
        fitted(trainer(renewed="epoch", propagation_epochs=2, **changes), pool(), progress=keeps)
        return keeps

    keeps = kept(learning_rate=0.1)
    cosine = [0.5 * (1 + np.cos(np.pi * share)) for share in (0, 1 / 3, 2 / 3, 0, 1 / 2)]
    assert keeps.rates == pytest.approx(0.1 * np.array(cosine))
    later = kept(learning_rate=0.1, horizon=6)
    cosine = [0.5 * (1 + np.cos(np.pi * share / 6)) for share in (0, 1, 2, 0, 1)]
    assert later.rates == pytest.approx(0.1 * np.array(cosine))
    # with a rate of next to nothing the gradients barely change: momentum goes on to grow across the turn
    still = kept(learning_rate=1e-9, class_weights=False)
    sizes = [float(each.norm()) for each in still.momentum]
    assert sizes[3] > 0.8 * sizes[2]


def test_patience_ends_the_first_stage_with_its_best_weights_and_the_second_runs_in_full():
    seen = Seen()
    who = trainer(epochs=40, patience=2, learning_rate=0.4, schedule="constant", propagation_epochs=4)
    model = fitted(who, pool(), progress=seen)
    turn = sum(sight.stage == "supervised" for sight in seen.sights)
    assert 2 < turn < 40
    assert model.facts["train_epochs"] == turn + 4
    assert seen.told[0] == (1, 44)
    assert seen.told[-1] == (turn + 4, turn + 4)
    losses = [sight.numbers["loss"] for sight in seen.sights[:turn]]
    assert min(losses) < min(losses[-2:])


def test_epochs_are_shown_with_what_the_next_one_learns_from():
    seen, data = Seen(), pool()
    model = fitted(trainer(), data, progress=seen)
    assert [sight.epoch for sight in seen.sights] == [1, 2, 3, 4, 5, 6]
    assert [sight.stage for sight in seen.sights] == ["supervised"] * 3 + ["semi_supervised"] * 3
    assert [sight.pseudo is not None for sight in seen.sights] == [False, False, True, True, True, False]
    numbers = seen.sights[3].numbers
    assert {"loss", "labeled_loss", "pseudo_loss", "learning_rate", "train_seconds"} <= set(numbers)
    assert {"embed_seconds", "graph_seconds", "solve_seconds"} <= set(numbers)
    assert numbers["loss"] == pytest.approx(numbers["labeled_loss"] + numbers["pseudo_loss"], rel=1e-5)
    assert equal(weights(model), weights(fitted(trainer(), data)))  # looking on has changed nothing
    assert np.array_equal(seen.accuracy[-1], model.predict(np.arange(40)).argmax(1))
    assert model.facts["train_images"] == 3 * 30 + 3 * (10 + 2 * 3)
    assert model.facts["train_pseudo_loss"] == seen.sights[-1].numbers["pseudo_loss"]


def test_embeddings_are_plain_in_the_paper_and_augmented_in_its_code(monkeypatch):
    data, found = some_bought(images(), 9), {}
    plain = PseudoLabels.of

    def spied(self, embeddings, *rest):
        found.setdefault(self.variant, []).append(embeddings)
        return plain(self, embeddings, *rest)

    monkeypatch.setattr(PseudoLabels, "of", spied)
    for variant in ("paper", "repo"):
        who = trainer(crop=2, flip=True, variant=variant, propagation_epochs=1)
        fitted(who, data, S0Cnn(0.5))
    assert found["paper"][0].shape == found["repo"][0].shape
    assert not np.allclose(found["paper"][0], found["repo"][0])
    # eval mode in both: without augmentation they are the same
    found.clear()
    for variant in ("paper", "repo"):
        fitted(trainer(variant=variant, propagation_epochs=1), data, S0Cnn(0.5))
    assert np.array_equal(found["paper"][0], found["repo"][0])


# --- what may go wrong ------------------------------------------------------------------------------------


def test_a_solve_that_was_cut_off_stands_in_the_facts():
    cut = fitted(trainer(iterations=1, tolerance=1e-12), pool()).facts
    assert cut["pseudo_unconverged"] > 0
    assert cut["pseudo_unconverged_epochs"] == 3
    whole = fitted(trainer(iterations=500, tolerance=1e-3, alpha=0.5), pool()).facts
    assert whole["pseudo_unconverged"] == whole["pseudo_unconverged_epochs"] == 0
    assert whole["train_steps_seconds"] > 0
    assert whole["train_graph_seconds"] > 0


def test_weights_that_are_no_numbers_never_reach_the_loss(monkeypatch):
    plain = PseudoLabels.of

    def poisoned(self, *everything):
        made = plain(self, *everything)
        made.weights[7] = np.nan
        return made

    monkeypatch.setattr(PseudoLabels, "of", poisoned)
    with pytest.raises(ValueError, match="weights of pseudo-labels must be finite, got nan after epoch 3"):
        fitted(trainer(), pool())


def test_a_fit_that_diverges_says_so():
    with pytest.raises(ValueError, match="lower trainer.learning_rate"):
        fitted(trainer(learning_rate=1e30), pool())


EDGES = {
    "nothing unlabeled": pool(20, 20),
    "a single label": pool(20, 1),
    "one row": pool(1, 1),
    "two rows": pool(2, 1),
    "one unlabeled": pool(20, 19),
    "less than a step": pool(5, 2),
    "one class bought": replace(pool(), labels=np.where(pool().labels == 1, 1, -1)),
    "one class known": Pool(pool().inputs, np.where(np.arange(40) < 9, 0, -1), 1),
    "duplicates": Pool(
        Inputs(np.ones((20, 5), np.float32)), np.where(np.arange(20) < 4, np.arange(20) % 3, -1), 3
    ),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", KINDS)
def test_edges_end_in_weights_that_are_numbers(edge, kind):
    data, more = EDGES[edge], {"k": 50} if "label" in kind else {}
    model = fitted(trainer(kind, epochs=2, **more), data, NORMED)
    assert all(bool(value.isfinite().all()) for value in model.weights.values())
    probabilities = model.predict(np.arange(len(data)))
    assert np.isfinite(probabilities).all()
    assert all(np.isfinite(value) for value in model.facts.values())


@pytest.mark.parametrize("pseudo_labels", ["diffusion", "network", "gtg"])
@pytest.mark.parametrize("variant", ["paper", "repo"])
def test_the_rest_of_the_pool_teaches_more_than_the_labels_alone(pseudo_labels, variant):
    data, seen = pool(90, 90), Seen()
    truth = data.labels
    apart = Inputs((data.inputs.array + 3 * np.eye(5)[truth]).astype(np.float32))
    few = some_bought(replace(data, inputs=apart), 9)
    sizes = {"epochs": 40, "propagation_epochs": 15, "batch_size": 20, "labeled_batch_size": 9}
    fitted(trainer(pseudo_labels=pseudo_labels, variant=variant, **sizes), few, progress=seen)
    right = [(found == truth)[few.unlabeled].mean() for found in seen.accuracy]
    assert right[-1] > 0.85
    assert right[-1] > right[39] + 0.15


def test_without_labels_there_is_no_fit():
    with pytest.raises(ValueError, match="none was bought"):
        fitted(trainer(), pool(bought=0))


# --- goes on, is restored, starts from before -------------------------------------------------------------


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


# --- settings ---------------------------------------------------------------------------------------------


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
