"""Label propagation's two stages: the supervised one, the turn, what an epoch is shown with."""

import numpy as np
import pytest
from fits import equal, images, pool, weights
from fits import fitted_by as fitted
from pool_fits import Seen, some_bought, trainer

from alrun.graph.pseudo_labels import PseudoLabels
from alrun.models.cnn import S0Cnn
from alrun.training.progress import Silent
from alrun.training.supervised import Supervised


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
