"""WAAL as a strategy: its score, the one pass through the network, the trainer that it brings, whole runs."""

import numpy as np
import pytest
from adversaries import clusters, gone_on
from conftest import settings
from fits import fitted_by as fitted
from test_waal import trainer

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.models.linear import Linear
from alrun.rounds import needed_heads, needs_model
from alrun.strategies.waal import Waal as Strategy
from alrun.strategies.waal import uncertainty_bound
from alrun.training.waal import Waal


def test_the_critic_tells_an_unlabeled_cluster_and_the_strategy_takes_it_first(situation):
    data = clusters()
    who = trainer(epochs=30, batch_size=32, optimizer="adam", learning_rate=3e-3, alpha=1.0, penalty=0.1)
    model = fitted(who, data, Linear(0.0))
    assert model.facts["train_critic_gap"] > 0.3
    at = situation()
    at.pool, at.model = data, model
    chooser = Strategy(100.0)
    batch = chooser.select(at.round(chooser, 60), 60)
    assert (batch.rows % 2 == 1).all()
    assert (np.diff(batch.scores) >= 0).all()


def test_uniform_probabilities_have_the_smallest_bound():
    found = uncertainty_bound(np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]], np.float32))
    np.testing.assert_allclose(found, [1.1832762, 2.3564701, 27.6310211], rtol=1e-6)
    for classes in (2, 3, 10):
        some = np.random.default_rng(0).dirichlet(np.ones(classes), 200).astype(np.float32)
        least = np.log(classes) * (np.sqrt(classes) + classes) / 2
        uniform = np.full((1, classes), 1 / classes, np.float32)
        assert uncertainty_bound(uniform)[0] == pytest.approx(least, rel=1e-6)
        assert (uncertainty_bound(some) >= least * (1 - 1e-6)).all()


@pytest.mark.parametrize("weight", [0.0, 10.0, 1e8])
def test_the_smallest_scores_are_chosen(weight, situation):
    at, who = situation(), Strategy(weight)
    current = at.round(who, 9)
    batch = who.select(current, 9)
    rows = at.pool.unlabeled
    assert current.work.predicted == len(rows)  # one pass for both parts of the score
    critic = at.model.head("critic", rows)[:, 0].astype(float)
    scores = uncertainty_bound(at.model.predict(rows)) - weight * critic
    assert batch.rows.tolist() == rows[np.argsort(scores, kind="stable")[:9]].tolist()
    np.testing.assert_allclose(batch.scores, np.sort(scores)[:9], rtol=1e-6)
    if weight == 1e8:
        assert batch.rows.tolist() == rows[np.argsort(-critic, kind="stable")[:9]].tolist()


def test_the_strategy_needs_a_trainer_with_a_critic_and_brings_it():
    who = Strategy(10.0)
    assert needed_heads(who) == {"critic"}
    assert needs_model(who, None)
    found = {**settings("strategy=waal"), "trainer": settings("strategy=margin")["trainer"]}
    with pytest.raises(ConfigError) as caught:
        assemble(found)
    assert caught.value.problems == [
        "trainer: waal needs a trainer with the head 'critic' and got supervised; choose trainer=waal"
    ]
    experiment = assemble(settings("strategy=margin", "trainer=waal", "trainer.steps=4"))
    assert isinstance(experiment.trainer, Waal)
    assert experiment.trainer.steps == 4


def test_the_strategy_keeps_the_trainer_of_data_set_and_experiment_but_for_its_epochs():
    own = {"steps", "alpha", "penalty", "critic_hidden", "critic_dropout", "repo_sign"}
    for words in (["dataset=cifar10"], ["trainer.optimizer=sgd", "dataset=svhn"]):
        plain = settings(*words, "strategy=margin")["trainer"]
        found = settings(*words, "strategy=waal")["trainer"]
        assert found.keys() - plain.keys() == own
        assert {name for name in plain if found[name] != plain[name]} == {"_target_", "epochs"}
        assert found["epochs"] == 80
    assert settings("strategy=waal", "trainer.epochs=7")["trainer"]["epochs"] == 7


def test_a_run_that_goes_on_with_a_restored_critic_chooses_the_same(tmp_path):
    words = ["tracker=none", "budget.rounds=3", "trainer.steps=20", "dataset.pool_size=120"]
    found = {**settings("strategy=waal", *words), "choices": {"dataset": "digits", "strategy": "waal"}}
    whole, again = gone_on(found, tmp_path)
    for one, other in zip(again.records, whole.records, strict=True):
        assert one["train_critic_gap"] == other["train_critic_gap"]
