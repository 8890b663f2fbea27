"""Who answers: noise, lines, and the classifier that stands for a person."""

from itertools import product

import numpy as np
import pytest
import torch
from conftest import CPU, part, settings

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.inputs import Inputs
from alrun.lifetime import Lifetime, Shelf
from alrun.oracle import LEAST, Oracle, Referee, Reference, Simulated, blurred
from alrun.pool import Pool, stream
from alrun.shelf import Deaf
from alrun.training.model import Model


class Told:
    """A model that says of items what stands in them: logarithms of class probabilities."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def on(self, inputs: Inputs) -> "Told":
        return Told(inputs)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return torch.from_numpy(self.inputs.read(rows)).softmax(1).numpy()


def referee(noise: float = 0.0, seed: int = 0) -> Referee:
    told = object.__new__(Model)
    found = Referee(told, noise, np.random.default_rng(seed))
    found.classifier = Told(Inputs(np.zeros((1, 2), np.float32)))
    return found


def test_no_noise_changes_no_label_and_all_noise_every_label():
    labels = np.arange(300) % 3
    assert (blurred(labels, 3, 0.0, np.random.default_rng(0)) == labels).all()
    wrong = blurred(labels, 3, 0.9999999, np.random.default_rng(0))
    assert (wrong != labels).all()
    assert set(wrong) == {0, 1, 2}


def test_noise_is_the_share_of_wrong_labels_and_other_classes_are_equally_likely():
    labels = np.zeros(20000, np.int64)
    found = np.bincount(blurred(labels, 4, 0.3, np.random.default_rng(1)), minlength=4) / 20000
    np.testing.assert_allclose(found, [0.7, 0.1, 0.1, 0.1], atol=0.01)


def test_simulated_and_reference_answer_rows_by_the_data_set_s_labels():
    truth, rows = np.array([2, 0, 1, 1]), np.array([3, 0])
    for oracle in (Simulated(), Reference(0.0, None, None)):
        assert isinstance(oracle, Oracle)
        assert oracle.answer(rows, truth, 3, np.random.default_rng(0)).tolist() == [1, 2]
    assert not Simulated().labels_images
    assert Reference(0.0, None, None).labels_images


def test_images_get_the_likeliest_class_and_the_confidence_is_its_mean_probability():
    found = referee()
    assert found.confidence is None
    shares = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    assert found.label(np.log(shares)).tolist() == [0, 1]
    assert found.confidence == pytest.approx(0.75)
    found.label(np.log(np.array([[0.5, 0.5]], np.float32)))
    assert found.confidence == pytest.approx(2 / 3)


def likeliest(logs: np.ndarray) -> float:
    """The largest sum over all ways to change the class once or never, one by one."""
    count, classes = logs.shape
    ways = product(range(count), range(classes), range(classes))
    return max(logs[:place, one].sum() + logs[place:, two].sum() for place, one, two in ways)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_line_is_divided_where_that_is_likeliest(classes):
    rng = np.random.default_rng(classes)
    for _ in range(50):
        items = rng.normal(size=(6, classes)).astype(np.float32) * 2
        labels = referee().divide(items)
        assert (np.diff(labels) != 0).sum() <= 1
        logs = np.log(np.maximum(torch.from_numpy(items).softmax(1).double().numpy(), LEAST))
        assert logs[np.arange(6), labels].sum() == pytest.approx(likeliest(logs), abs=1e-5)


def test_a_wrong_line_changes_elsewhere_but_still_at_most_once():
    sure = np.repeat(np.log(np.array([[0.99, 0.01], [0.01, 0.99]], np.float32)), 4, axis=0)
    right = referee().divide(sure)
    assert right.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    places = set()
    for seed in range(60):
        wrong = referee(0.9999999, seed).divide(sure)
        assert wrong.tolist() != right.tolist()
        assert (np.diff(wrong) != 0).sum() == 1
        places.add(int(np.flatnonzero(np.diff(wrong))[0]) + 1)
    assert places == {1, 2, 3, 5, 6, 7}
    assert (np.diff(referee(0.9999999).divide(sure[:4])) != 0).sum() == 1


def test_the_reference_classifier_is_learned_once_from_all_labels(cache, monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(80, 2)).astype(np.float32)
    truth = (points[:, 0] > 0).astype(np.int64)
    whole = Pool(Inputs(points), truth, 2)
    oracle, model = Reference(0.0, None, None), part("model", "model=linear")
    trainer = part("trainer", "trainer.epochs=30", "trainer.learning_rate=0.05")
    shelf = Shelf(cache, "pool", None, Deaf(), lambda kind, folder: None)

    def learned(seed: int = 0) -> Model:
        life = Lifetime(lambda *names: stream(seed, *names), None, None, CPU, shelf)
        return oracle.learned(model, trainer, whole, life)

    first = learned()
    assert (first.predict(np.arange(80)).argmax(axis=1) == truth).mean() > 0.95
    fits = []
    monkeypatch.setattr(type(trainer), "fit", lambda *_, **__: fits.append(1) or first)
    again = learned()
    assert not fits
    np.testing.assert_array_equal(again.predict(np.arange(80)), first.predict(np.arange(80)))
    learned(seed=1)
    assert fits


def test_strategies_that_make_images_need_somebody_who_labels_them():
    words = ("dataset=digits", "dataset.classes=[3,5]", "generator=dcgan")
    assert assemble(settings("strategy=gaal", *words)).oracle == Reference(0.0, None, None)
    with pytest.raises(ConfigError, match="oracle: gaal makes images.*choose oracle=reference"):
        assemble(settings("strategy=gaal", "oracle=simulated", *words))
    assemble(settings("strategy=random", "oracle=reference", "oracle.noise=0.2"))
    with pytest.raises(ConfigError, match="oracle.noise"):
        assemble(settings("strategy=random", "oracle=reference", "oracle.noise=1"))


def test_the_reference_may_be_another_model_with_another_trainer():
    words = ("strategy=gaal", "generator=dcgan", "+model@oracle.model=lenet")
    oracle = assemble(
        settings(*words, "+trainer@oracle.trainer=supervised", "oracle.trainer.epochs=3")
    ).oracle
    assert type(oracle.model).__name__ == "Lenet"
    assert oracle.trainer.epochs == 3
    with pytest.raises(ConfigError, match="oracle.model: frozen_head stands on"):
        assemble(settings("strategy=gaal", "generator=dcgan", "+model@oracle.model=frozen_head"))
