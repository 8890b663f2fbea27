import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from torch.nn import functional

from alrun.models.cnn import S0Cnn
from alrun.models.linear import Linear
from alrun.models.mlp import Mlp, connected
from alrun.models.network import Adapt, Network
from alrun.pool import Inputs, Pool, stream
from alrun.training.augment import UNTOUCHED
from alrun.training.batches import Batches, flattened
from alrun.training.dropout import dropout_passes
from alrun.training.evaluate import negative_log_likelihood
from alrun.training.fit import Fit
from alrun.training.model import Model
from alrun.training.parts import sizes_of
from alrun.training.progress import Progress, Silent
from alrun.training.seeding import repeatable_attention, seeded
from alrun.training.supervised import Supervised

YAML = Path(__file__).parent.parent / "conf" / "trainer" / "supervised.yaml"
CPU = torch.device("cpu")
PLAIN = Mlp([12, 6], False, 0.0)
NORMED = Mlp([12, 6], True, 0.0)
DROPPED = Mlp([12, 6], False, 0.5)


def trainer(**changes) -> Supervised:
    settings = OmegaConf.load(YAML)
    return instantiate(OmegaConf.merge(settings, {"epochs": 4, "batch_size": 8, **changes}), _convert_="all")


def chance(branch: str, *names: str | int) -> np.random.Generator:
    return stream(0, branch, *names)


def pool(n: int = 40, bought: int = 30, classes: int = 3, width: int = 5) -> Pool:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, classes, n)
    points = (rng.normal(size=(n, width)) + 2.0 * truth[:, None] * (np.arange(width) % 2)).astype(np.float32)
    labels = np.where(np.arange(n) < bought, truth, -1).astype(np.int64)
    return Pool(Inputs(points), labels, classes)


def images(n: int = 24, shape: tuple[int, ...] = (3, 8, 8)) -> Pool:
    rng = np.random.default_rng(2)
    return Pool(Inputs(rng.integers(0, 256, (n, *shape), dtype=np.uint8)), rng.integers(0, 3, n), 3)


def fitted(data: Pool, architecture=PLAIN, *, previous=None, progress=None, draw=chance, **changes) -> Model:
    settings = trainer(**changes)
    progress = progress or Silent()
    return settings.fit(architecture, data, chance=draw, start=previous, progress=progress)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Broken:
    """Keeps the state after `stop` epochs as a file would, and breaks the fit off there."""

    def __init__(self, stop: int) -> None:
        self.stop, self.file = stop, io.BytesIO()

    def epoch(self, done: int, total: int) -> None:
        pass

    def watch(self, sight) -> None:
        pass

    def keep(self, epoch: int, make) -> None:
        if epoch == self.stop:
            torch.save(make(), self.file)
            raise KeyboardInterrupt

    def load(self) -> dict | None:
        if not self.file.getbuffer().nbytes:
            return None
        self.file.seek(0)
        return torch.load(self.file, weights_only=True)


class Frozen:
    """Six frozen features and a small trainable end, with the passes through the frozen part counted."""

    has_dropout = False

    def __init__(self) -> None:
        self.seen = 0

    def build(self, shape, moments, classes) -> Network:
        frozen = nn.Linear(math.prod(shape), 6)
        frozen.register_forward_hook(self._count)
        nn.init.eye_(frozen.weight)
        body = connected(6, [4], batch_norm=True, dropout=0.0)
        return Network(Adapt(shape, moments, (math.prod(shape),)), frozen, body, nn.Linear(4, classes))

    def _count(self, module, inputs, output) -> None:
        self.seen += len(output)


# --- the fit ----------------------------------------------------------------------------------------------


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


def test_schedules_give_the_stated_rates():
    fixed = {"learning_rate": 1.0, "decay": 0.5, "epochs": 4}
    step = trainer(schedule="step", step_epochs=2, **fixed)
    assert [step.rate(epoch) for epoch in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    stones = trainer(schedule="milestones", milestones=[1, 3], **fixed)
    assert [stones.rate(epoch) for epoch in range(5)] == [1, 0.5, 0.5, 0.25, 0.25]
    cosine = trainer(schedule="cosine", **fixed)
    wanted = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]
    assert [cosine.rate(epoch) for epoch in range(4)] == pytest.approx(wanted)
    assert {trainer(**fixed).rate(epoch) for epoch in range(9)} == {1.0}


def test_a_cosine_reaches_zero_at_its_horizon_not_before_the_fit_ends():
    fixed = {"learning_rate": 0.05, "schedule": "cosine", "epochs": 180}
    long = trainer(horizon=210, **fixed)
    assert [long.rate(epoch) for epoch in (0, 105, 140)] == pytest.approx([0.05, 0.025, 0.0125])
    assert long.rate(180) == pytest.approx(0.025 * (1 + math.cos(math.pi * 6 / 7)))
    assert long.rate(210) == pytest.approx(0, abs=1e-12)
    assert trainer(horizon=180, **fixed).rate(17) == trainer(**fixed).rate(17)
    with pytest.raises(InstantiationException, match=r"trainer\.horizon must be at least .* 179 and 180"):
        trainer(horizon=179, **fixed)


@pytest.mark.parametrize(("renewed", "passed"), [("epoch", [0, 0, 0, 0]), ("step", [0, 0.25, 0.5, 0.75])])
def test_the_rate_of_a_step_is_that_of_its_epoch_or_of_the_share_that_is_over(renewed, passed, monkeypatch):
    seen: list[float] = []
    step = Fit.descend

    def descend(fit, loss) -> None:
        seen.append(fit.optimizer.param_groups[0]["lr"])
        step(fit, loss)

    monkeypatch.setattr(Fit, "descend", descend)
    changes = {"schedule": "cosine", "horizon": 3, "epochs": 2, "learning_rate": 0.1, "renewed": renewed}
    fitted(pool(), **changes)  # 30 labels by 8: four steps
    wanted = [0.05 * (1 + math.cos(math.pi * (epoch + share) / 3)) for epoch in range(2) for share in passed]
    assert seen == pytest.approx(wanted)


def test_the_optimizer_steps_at_the_rate_of_the_epoch():
    class Watch(Silent):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def keep(self, epoch, make) -> None:
            self.rates.append(make()["optimizer"]["param_groups"][0]["lr"])

    watch = Watch()
    fitted(pool(), progress=watch, schedule="step", step_epochs=1, decay=0.5, learning_rate=0.08)
    assert watch.rates == [0.08, 0.04, 0.02, 0.01]


def test_early_stopping_ends_before_the_last_epoch_and_restores_the_best_weights():
    class Watch(Silent):
        def __init__(self) -> None:
            self.states: list[dict] = []

        def keep(self, epoch, make) -> None:
            self.states.append(copy.deepcopy(make()))

    watch = Watch()
    changes = {"patience": 3, "validation": 0.4, "learning_rate": 0.1, "epochs": 200}
    model = fitted(pool(), progress=watch, **changes)
    assert model.facts["train_epochs"] == len(watch.states) < 200
    assert [each["state"]["stale"] for each in watch.states[-3:]] == [1, 2, 3]
    assert equal(weights(model), watch.states[-4]["network"])
    assert all(each["state"]["best"] >= watch.states[-4]["state"]["best"] for each in watch.states)


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


def test_a_last_single_item_joins_the_batch_before():
    assert sizes_of(9, 4) == [4, 5]
    assert sizes_of(10, 4) == [4, 4, 2]
    assert sizes_of(5, 8) == [5]
    assert sizes_of(1, 8) == [1]
    assert sizes_of(3, 1) == [1, 1, 1]
    fitted(pool(bought=9), NORMED, batch_size=4)


def test_facts_say_the_mean_loss_of_the_last_epoch_and_the_items_seen():
    data = pool()
    facts = fitted(data, Linear(0.0), optimizer="sgd", momentum=0.0, learning_rate=1e-9, epochs=2).facts
    model = fitted(data, Linear(0.0), optimizer="sgd", momentum=0.0, learning_rate=1e-9, epochs=2)
    own = negative_log_likelihood(model.predict(data.labeled), data.labels[data.labeled])
    assert facts["train_loss"] == pytest.approx(own, abs=1e-5)
    assert (facts["train_epochs"], facts["train_images"]) == (2.0, 60.0)


def test_memory_mapped_inputs_train_to_the_same_bits(tmp_path):
    data = pool()
    np.save(tmp_path / "x.npy", data.inputs.array)
    mapped = Pool(Inputs(np.load(tmp_path / "x.npy", mmap_mode="r")), data.labels, 3)
    assert equal(weights(fitted(data)), weights(fitted(mapped)))


def test_items_that_do_not_fit_are_read_batch_by_batch_to_the_same_bits(monkeypatch):
    whole = weights(fitted(pool()))
    monkeypatch.setattr("alrun.training.batches.RESIDENT_BYTES", 0)
    assert equal(whole, weights(fitted(pool())))


def test_rows_that_come_back_in_an_epoch_are_never_gathered_all_at_once(monkeypatch):
    data, order, largest = pool(), np.tile(np.arange(30), 5)[:147], []
    batches = Batches(fitted(data).network, data, data.labeled, UNTOUCHED)
    whole = list(batches.each(order, 8))
    assert sum(len(y) for _, y in whole) == 147
    assert torch.equal(torch.cat([x for x, _ in whole]), batches._kept[torch.from_numpy(order)])
    plain = torch.Tensor.index_select

    def gathers(items, axis, index):
        largest.append(len(index))
        return plain(items, axis, index)

    monkeypatch.setattr(torch.Tensor, "index_select", gathers)
    for limit, steps in ((1, 1), (3 * 8 * 5 * 4, 3)):  # of 5 numbers in float32
        largest.clear()
        monkeypatch.setattr("alrun.training.batches.GATHERED_BYTES", limit)
        for (x, y), (again, label) in zip(whole, batches.each(order, 8), strict=True):
            assert torch.equal(x, again)
            assert torch.equal(y, label)
        assert max(largest) == 8 * steps


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


# --- the model --------------------------------------------------------------------------------------------
