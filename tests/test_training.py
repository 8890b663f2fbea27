"""A supervised fit: what it learns, that it repeats, goes on and starts from before, what it refuses."""

import copy
import math

import numpy as np
import pytest
import torch
from fits import (
    CPU,
    DROPPED,
    NORMED,
    PLAIN,
    Broken,
    chance,
    equal,
    fitted,
    images,
    pool,
    trainer,
    weights,
)
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from torch.nn import functional

from alrun.models.cnn import S0Cnn
from alrun.models.linear import Linear
from alrun.pool import Pool, stream
from alrun.training.batches import flattened
from alrun.training.dropout import dropout_passes
from alrun.training.evaluate import negative_log_likelihood
from alrun.training.progress import Progress, Silent
from alrun.training.seeding import repeatable_attention, seeded
from alrun.training.supervised import Supervised


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_separated_classes_are_learned(optimizer, loss):
    data = pool()
    model = fitted(data, optimizer=optimizer, loss=loss, epochs=60, learning_rate=0.03)
    right = model.predict(data.labeled).argmax(1) == data.labels[data.labeled]
    assert right.mean() > 0.9


def test_the_same_streams_give_the_same_bits_and_other_streams_others():
    data = pool()
    first, second = fitted(data, DROPPED), fitted(data, DROPPED)
    assert equal(weights(first), weights(second))
    assert first.facts == second.facts
    for moved in ("weights", "order"):

        def other(branch, *names, moved=moved):
            return stream(int(branch == moved), branch, *names)

        assert not equal(weights(first), weights(fitted(data, DROPPED, draw=other)))


def test_a_fit_and_its_predictions_leave_all_global_random_state_alone():
    torch.manual_seed(5)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    model = fitted(images(), S0Cnn(0.5), crop=1, flip=True)
    list(dropout_passes(model, np.arange(4), 2, np.random.default_rng(0)))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])  # noqa: NPY002
    assert flags == (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)


def test_seeded_restores_the_state_even_after_an_error():
    def fails() -> None:
        with seeded(np.random.default_rng(0), CPU):
            torch.rand(3)
            raise KeyError

    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        fails()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.backends.cudnn.enabled


def test_on_a_gpu_attention_is_left_to_the_kernel_that_repeats():
    known = torch.backends.cuda
    others = (known.flash_sdp_enabled, known.mem_efficient_sdp_enabled, known.cudnn_sdp_enabled)
    before = [enabled() for enabled in others]
    with repeatable_attention(torch.device("cuda")):
        assert known.math_sdp_enabled()
        assert not any(enabled() for enabled in others)
    assert [enabled() for enabled in others] == before


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (PLAIN, {"optimizer": "sgd", "schedule": "step", "step_epochs": 2}),
        (NORMED, {"optimizer": "adam", "schedule": "cosine"}),
        (DROPPED, {"optimizer": "adamw", "weight_decay": 0.1}),
        (PLAIN, {"patience": 2, "validation": 0.3, "learning_rate": 0.3, "epochs": 12}),
        (S0Cnn(0.5), {"crop": 2, "flip": True}),
    ],
    ids=["sgd", "adam", "dropout", "patience", "augmentation"],
)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_fit_broken_off_after_any_epoch_continues_to_the_same_bits(architecture, changes, stop):
    data = images() if isinstance(architecture, S0Cnn) else pool()
    whole = fitted(data, architecture, **changes)
    broken = Broken(stop)
    with pytest.raises(KeyboardInterrupt):
        fitted(data, architecture, progress=broken, **changes)
    broken.stop = -1
    continued = fitted(data, architecture, progress=broken, **changes)
    assert equal(weights(whole), weights(continued))
    assert whole.facts == continued.facts


def test_a_warm_start_continues_from_the_weights_before_and_never_changes_them():
    data = pool()
    first = fitted(data, NORMED)
    before = weights(first)
    still = fitted(data, NORMED, previous=first, start="previous", optimizer="sgd", learning_rate=1e-12)
    assert torch.allclose(still.network.head.weight, before["head.weight"], atol=1e-6)
    moved = fitted(data, NORMED, previous=first, start="previous")
    assert moved.facts["train_loss"] < first.facts["train_loss"]
    assert equal(before, weights(first))


def test_a_fresh_start_ignores_the_model_before():
    data = pool()
    settings = trainer()
    again = settings.fit(PLAIN, data, chance=chance, start=fitted(data, epochs=9), progress=Silent())
    assert equal(weights(fitted(data)), weights(again))


def test_flat_weights_learn_what_separate_weights_learn():
    torch_state = torch.get_rng_state()
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    twin = copy.deepcopy(network)
    whole = flattened(list(network.parameters()))
    optimizers = torch.optim.Adam([whole], 0.1), torch.optim.Adam(twin.parameters(), 0.1)
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    for _ in range(5):
        for each, optimizer in zip((network, twin), optimizers, strict=True):
            optimizer.zero_grad(set_to_none=False)
            functional.cross_entropy(each(x), y).backward()
            optimizer.step()
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(network.parameters(), twin.parameters(), strict=True)
    )
    torch.set_rng_state(torch_state)


def test_held_out_labels_are_never_trained_on_and_one_label_always_is():
    data = pool()
    assert fitted(data, validation=0.4, epochs=2).facts["train_images"] == 2 * 18
    assert fitted(pool(bought=2), validation=0.99, epochs=2).facts["train_images"] == 2 * 1
    assert fitted(pool(bought=1), validation=0.99, patience=1, epochs=2).facts["train_images"] == 2 * 1


def test_one_labeled_item_and_one_labeled_class_can_be_learned():
    alone = fitted(pool(bought=1), NORMED, epochs=30, learning_rate=0.05)
    assert math.isfinite(alone.facts["train_loss"])
    data = pool()
    single = Pool(data.inputs, np.where(data.labels >= 0, 2, -1), 3)
    model = fitted(single, NORMED, epochs=40, learning_rate=0.05)
    assert model.predict(single.labeled)[:, 2].min() > 0.9


def test_facts_say_the_mean_loss_of_the_last_epoch_and_the_items_seen():
    data = pool()
    facts = fitted(data, Linear(0.0), optimizer="sgd", momentum=0.0, learning_rate=1e-9, epochs=2).facts
    model = fitted(data, Linear(0.0), optimizer="sgd", momentum=0.0, learning_rate=1e-9, epochs=2)
    own = negative_log_likelihood(model.predict(data.labeled), data.labels[data.labeled])
    assert facts["train_loss"] == pytest.approx(own, abs=1e-5)
    assert (facts["train_epochs"], facts["train_images"]) == (2.0, 60.0)


@pytest.mark.parametrize(
    ("changes", "architecture", "data", "message"),
    [
        ({}, PLAIN, pool(bought=0), "none was bought"),
        ({"flip": True}, PLAIN, pool(), "need images"),
        ({"batch_size": 1}, NORMED, pool(), "BatchNorm"),
        ({"optimizer": "sgd", "learning_rate": 1e30}, PLAIN, pool(), r"epoch \d.*1e\+30.*lower"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, architecture, data, message):
    with pytest.raises(ValueError, match=message):
        fitted(data, architecture, **changes)


def test_weights_that_the_last_step_blew_up_are_refused():
    data = pool(bought=8)
    with pytest.raises(ValueError, match="lower trainer.learning_rate"):
        fitted(
            data, optimizer="sgd", learning_rate=1e38, momentum=0.0, weight_decay=1e30, epochs=1, batch_size=8
        )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("validation", 1.0),
        ("patience", 0),
        ("decay", 0.0),
    ],
)
def test_ranges_stand_in_the_annotations(name, wrong):
    hint = Supervised.__dataclass_fields__[name].type
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True))
    adapter.validate_python(getattr(trainer(), name))
    with pytest.raises(ValidationError):
        adapter.validate_python(wrong)


def test_silent_is_a_progress():
    assert isinstance(Silent(), Progress)
