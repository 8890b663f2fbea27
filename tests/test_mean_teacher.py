"""The teacher: averages by hand, what agreement costs, how stages begin, and that it is what is reported."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest
import torch
from conftest import CPU, settings
from fits import DROPPED, NORMED, PLAIN, Frozen, chance, equal, images, pool, weights
from fits import fitted_by as fitted
from pool_fits import begun, trainer
from torch.nn import functional

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.models.cnn import S0Cnn
from alrun.models.cnn13 import Cnn13
from alrun.training.consistency import Consistency, Teacher
from alrun.training.progress import Silent
from alrun.training.seeding import seeded
from alrun.training.taught_fit import TaughtFit

SLOW = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "learning_rate": 0.1, "weight_decay": 0.0}


def network_of(data, architecture=PLAIN):
    with seeded(np.random.default_rng(3), CPU):
        return architecture.build(data.inputs.shape, data.inputs.moments, data.classes)


def taught(data, architecture=PLAIN, **changes) -> TaughtFit:
    fit = begun(trainer("mean_teacher", **{**SLOW, **changes}), data, architecture)
    assert isinstance(fit, TaughtFit)
    return fit


def test_agreement_costs_more_and_more_over_the_ramp():
    agreement = Consistency(100.0, 5, 0.97, 0.01)
    assert agreement.weight_at(0) == pytest.approx(100 * exp(-5))
    assert agreement.weight_at(0) == pytest.approx(0.6737947)
    assert agreement.weight_at(2) == pytest.approx(100 * exp(-5 * 0.36))
    assert [agreement.weight_at(epoch) for epoch in (5, 6, 179)] == [100.0] * 3
    assert Consistency(7.0, 0, 0.97, None).weight_at(0) == 7.0


def test_a_teacher_is_first_the_plain_average_of_all_it_followed_then_forgets_at_its_decay():
    student = network_of(pool())
    teacher = Teacher(Consistency(1.0, 5, 0.75, None), student)
    seen = [student.head.weight.detach().clone()]
    for step in range(1, 6):
        with torch.no_grad():
            student.head.weight.copy_(torch.randn(3, 6, generator=torch.Generator().manual_seed(step)))
        seen.append(student.head.weight.detach().clone())
        before = teacher.network.head.weight.clone()
        teacher.follow(step)
        # from the third step on the decay is 1 - 1 / (3 + 1)
        expected = torch.stack(seen).mean(0) if step <= 3 else 0.75 * before + 0.25 * seen[-1]
        assert torch.allclose(teacher.network.head.weight, expected, atol=1e-6)
    assert torch.equal(student.head.weight, seen[-1])


def test_disagreement_is_the_mean_over_items_and_classes_and_moves_the_student_alone():
    data = pool()
    student = network_of(data)
    with seeded(np.random.default_rng(5), CPU):
        teacher = Teacher(Consistency(10.0, 0, 0.97, 0.5), student)
        torch.nn.init.normal_(teacher.network.head.weight)
    x = student.fixed(data.inputs.take(np.arange(6)))
    twin = x + 0.1
    embeddings = student.body(x)
    logits = student.head(embeddings)
    found = teacher.disagreement(embeddings, logits, twin)
    second = teacher.second(embeddings)
    told = teacher.network.trainable(twin).softmax(1)
    squares = (second.softmax(1) - told).square().sum(1) / 3
    assert found.consistency.item() == pytest.approx(squares.mean().item(), rel=1e-5)
    distance = (logits - second).square().sum(1) / 3
    assert found.logit_distance.item() == pytest.approx(distance.mean().item(), rel=1e-5)
    cost = teacher.cost(found, 0)
    assert cost.item() == pytest.approx(10 * squares.mean().item() + 0.5 * distance.mean().item(), rel=1e-5)
    cost.backward()
    assert teacher.second.weight.grad is not None
    assert all(weight.grad is None for weight in teacher.network.parameters())
    assert teacher.second.weight.grad.abs().sum() > 0


def test_one_head_answers_for_both():
    data = pool()
    student = network_of(data)
    teacher = Teacher(Consistency(10.0, 0, 0.97, None), student)
    x = student.fixed(data.inputs.take(np.arange(6)))
    embeddings = student.body(x)
    found = teacher.disagreement(embeddings, student.head(embeddings), x)
    assert found.consistency.item() == pytest.approx(0.0, abs=1e-12)  # a copy sees the same
    assert found.logit_distance.item() == 0
    assert teacher.second is None
    assert "second_head" not in taught(data, logit_distance=None).parts()


def test_a_step_learns_the_labels_over_all_items_and_agrees_on_all_of_them():
    data = pool()
    fit = taught(data, ramp_up=0, consistency=3.0, logit_distance=None)
    torch.nn.init.normal_(fit.teacher.network.head.weight, generator=torch.Generator().manual_seed(1))
    rows = np.r_[data.labeled[:3], data.unlabeled[:5]]
    x = fit.network.fixed(data.inputs.take(rows))
    y = torch.from_numpy(np.maximum(data.labels[rows], 0))
    weight = torch.tensor([1.0] * 3 + [0.0] * 5)
    logits = fit.network.trainable(x)
    told = fit.teacher.network.trainable(x).softmax(1)
    loss = functional.cross_entropy(logits[:3], y[:3], reduction="sum") / 8
    loss = loss + 3.0 * (logits.softmax(1) - told).square().mean()
    expected = torch.autograd.grad(loss, list(fit.network.parameters()))
    before = {name: value.detach().clone() for name, value in fit.network.named_parameters()}
    own = {name: value.clone() for name, value in fit.teacher.network.named_parameters()}
    fit.pace(0.0)
    assert fit.learn(x, x, y, weight)[0].item() == pytest.approx(loss.item(), rel=1e-5)
    for (name, after), gradient in zip(fit.network.named_parameters(), expected, strict=True):
        assert torch.allclose(before[name] - 0.1 * gradient, after, rtol=1e-4, atol=1e-6)
        # the first step halves the way to the student that has moved
        assert torch.allclose(fit.teacher.network.get_parameter(name), (own[name] + after) / 2, atol=1e-6)


def test_an_epoch_of_a_mean_teacher_weighs_bought_rows_alone(monkeypatch):
    data, seen = pool(), []
    plain = TaughtFit.learn

    def spied(self, x, twin, y, weight):
        seen.append((y.tolist(), weight.tolist()))
        return plain(self, x, twin, y, weight)

    monkeypatch.setattr(TaughtFit, "learn", spied)
    model = fitted(trainer("mean_teacher", epochs=1), data)
    assert [weight for _, weight in seen] == [[1.0] * 3 + [0.0] * 5] * 2
    assert "train_pseudo_loss" not in model.facts
    assert {"train_labeled_loss", "train_consistency", "train_logit_distance"} <= set(model.facts)


def test_student_and_teacher_see_two_augmentations_of_the_same_items(monkeypatch):
    data = images()
    data = replace(data, labels=np.where(np.arange(24) < 9, data.labels, -1))
    seen = []
    plain = TaughtFit.learn

    def spied(self, x, twin, y, weight):
        seen.append((x.clone(), twin.clone()))
        return plain(self, x, twin, y, weight)

    monkeypatch.setattr(TaughtFit, "learn", spied)
    fitted(trainer("mean_teacher", epochs=1, flip=True), data, S0Cnn(0.0))
    for x, twin in seen:
        same = (x == twin).flatten(1).all(1)
        mirrored = (x == twin.flip(-1)).flatten(1).all(1)
        assert (same | mirrored).all()
    assert any((x != twin).any() for x, twin in seen)
    seen.clear()
    fitted(trainer("mean_teacher", epochs=1), data, S0Cnn(0.0))
    assert all(torch.equal(x, twin) for x, twin in seen)


@pytest.mark.parametrize("architecture", [NORMED, Cnn13(2, 0.1, False)], ids=["mlp", "cnn13"])
def test_the_teacher_is_reported_with_running_moments_of_its_own(architecture):
    data = images(24, (1, 12, 12)) if isinstance(architecture, Cnn13) else pool()
    data = replace(data, labels=np.where(np.arange(len(data)) < 9, data.labels, -1))

    class Keeps(Silent):
        def keep(self, epoch, make) -> None:
            made = make()
            self.found = {
                part: {k: v.clone() for k, v in made[part].items()} for part in ("network", "teacher")
            }

    keeps = Keeps()
    model = fitted(trainer("mean_teacher"), data, architecture, progress=keeps)
    assert equal(weights(model), keeps.found["teacher"])
    moments = [name for name in keeps.found["teacher"] if name.endswith("running_mean")]
    assert len(moments) > 1
    for name in moments[1:]:  # the first layer's are those of the items
        assert not torch.equal(keeps.found["teacher"][name], keeps.found["network"][name])


def test_dropout_is_on_in_the_teacher_while_it_teaches():
    fit = taught(pool(), DROPPED)
    fit.model()
    assert not fit.teacher.network.training
    fit.steps(chance("order", 0))
    assert fit.teacher.network.training


def test_frozen_layers_are_shared_and_never_averaged():
    student = network_of(pool(), Frozen())
    teacher = Teacher(Consistency(1.0, 5, 0.97, 0.01), student)
    assert teacher.network.frozen is student.frozen
    assert teacher.network.adapt is student.adapt
    assert teacher.network.body is not student.body
    before = student.frozen.weight.clone()
    teacher.follow(1)
    assert torch.equal(before, student.frozen.weight)
    assert all(weight.requires_grad for weight in student.body.parameters())


@pytest.mark.parametrize(
    ("variant", "steps", "weight"), [("paper", 4, [100, 100]), ("repo", 0, [0.6738, 4.0762])]
)
def test_a_second_stage_goes_on_with_its_teacher_or_begins_with_a_copy_of_the_student(
    variant, steps, weight, monkeypatch
):
    data, found, costs = pool(), [], []
    plain, cost = TaughtFit.learn, Teacher.cost

    def spied(self, *lesson):
        if self.since_turn == 0 and not found:
            own = equal(self.teacher.network.state_dict(), self.network.state_dict())
            found.append((self.state["steps"], own))
        return plain(self, *lesson)

    def priced(self, told, epoch):
        costs.append(self.settings.weight_at(epoch))
        return cost(self, told, epoch)

    monkeypatch.setattr(TaughtFit, "learn", spied)
    monkeypatch.setattr(Teacher, "cost", priced)
    who = trainer(
        "mean_teacher_label_propagation", variant=variant, epochs=2, propagation_epochs=2, ramp_up=2
    )
    who = replace(who, ramp_up=2 if variant == "paper" else 5)
    fitted(who, data, NORMED)
    assert found == [(steps, variant == "repo")]
    assert [round(each, 4) for each in costs[4::2]] == pytest.approx(weight)


def test_agreement_pulls_the_student_towards_its_teacher():
    data = pool(bought=6)
    near, far = (
        fitted(trainer("mean_teacher", epochs=8, consistency=weight, ramp_up=1), data, DROPPED).facts
        for weight in (100.0, 0.0)
    )
    assert near["train_consistency"] < far["train_consistency"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.patience=3"], "trainer.patience: must be null with a teacher"),
        (["trainer.validation=0.1"], "trainer.validation: holds labels out for patience"),
        (["trainer.ema_decay=1.0"], "trainer.ema_decay"),
        (["trainer.logit_distance=0.0"], "trainer.logit_distance"),
    ],
)
@pytest.mark.parametrize("kind", ["mean_teacher", "mean_teacher_label_propagation"])
def test_settings_that_do_not_fit_are_refused_by_name(kind, words, line):
    with pytest.raises(ConfigError) as caught:
        assemble(settings(f"trainer={kind}", *words))
    assert any(each.startswith(line) for each in caught.value.problems), caught.value.problems
