"""Every preset and every pair of strategy and data set composes and fits together."""

import json
import re
from dataclasses import fields
from functools import cache
from typing import Any

import pytest
from conftest import MAKERS, ROOT, composed, settings
from omegaconf import OmegaConf

from alrun import assembly
from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.experiment import Experiment

CONF = ROOT / "conf"


@pytest.fixture(autouse=True, scope="module")
def equal_parts_are_made_once():
    """Most presets and strategies bring the same other parts; making them anew takes most of the time."""
    make, made = assembly._built, {}

    def built(node: Any) -> Any:
        key = json.dumps(node, sort_keys=True)
        if key not in made:
            made[key] = make(node)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "_built", built)
        yield


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@cache
def alike() -> list[dict[str, Any]]:
    """Strategies by name, unresolved, in groups that bring the same with them: all else agrees."""
    groups: dict[str, dict[str, Any]] = {}
    for name in names("strategy"):
        rest = OmegaConf.to_container(composed(f"strategy={name}"))
        node = rest.pop("strategy")
        groups.setdefault(json.dumps(rest, sort_keys=True), {})[name] = node
    return list(groups.values())


@cache
def alone(name: str) -> dict[str, Any]:
    """The settings that a strategy brings by itself."""
    return settings(f"strategy={name}")


def with_every_strategy(*words: str) -> dict[str, dict[str, Any]]:
    """Settings by strategy. Composing is slow: it is done once for strategies that are alike."""
    found = {}
    for group in alike():
        config = composed(f"strategy={next(iter(group))}", *words)
        for name, node in group.items():
            config.strategy = node
            found[name] = OmegaConf.to_container(config, resolve=True)
    return found


def refuses_dropout(found: dict[str, Any]) -> bool:
    """Whether a strategy asks a linear model for dropout, which it has not, and says so."""
    if not found["model"]["_target_"].endswith(".Linear") or found["model"]["dropout"] == 0:
        return False
    with pytest.raises(ConfigError, match="a linear model has none"):
        assemble(found)
    return True


def refuses_another_space(found: dict[str, Any]) -> bool:
    """Whether ADBA, whose classifier is linear in latents, got another model or featurizer, and says so."""
    if not found["strategy"]["_target_"].endswith(".Adba"):
        return False
    own = alone("adba")
    if all(found[part] == own[part] for part in ("model", "featurizer")):
        return False
    with pytest.raises(ConfigError, match=r"model[.:]|featurizer: adba needs latents of the generator"):
        assemble(found)
    return True


def unfit(found: dict[str, Any]) -> bool:
    """Whether a strategy cannot go with a preset, and says so."""
    return refuses_dropout(found) or refuses_another_space(found)


def test_composing_for_strategies_that_are_alike_is_composing_for_each():
    found = with_every_strategy("dataset=cifar10")
    assert found == {name: settings(f"strategy={name}", "dataset=cifar10") for name in names("strategy")}


@pytest.mark.parametrize("dataset", names("dataset"))
def test_every_strategy_runs_on_the_data_set_with_what_both_bring(dataset, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")
    path = [f"dataset.path={tmp_path / 'x.npz'}"] if dataset == "arrays" else []
    for found in with_every_strategy(f"dataset={dataset}", *path).values():
        assert unfit(found) or isinstance(assemble(found), Experiment)


# Their data sets bring S1's settings by themselves.
DATA_SETS_OF_S1 = ("emnist_letters", "svhn", "cifar10", "cifar100", "mini_imagenet")


@pytest.mark.parametrize("dataset", DATA_SETS_OF_S1)
def test_the_presets_of_s1_are_what_their_data_sets_bring(dataset):
    assert settings(f"+experiment=s1_{dataset}", "strategy=dgal") == settings(
        f"dataset={dataset}", "strategy=dgal"
    )


# By what is in a preset's name, the first that is: a pool no larger than its data set's.
POOLS = {"s4": 50000, "cifar": 50000, "imagenet": 48000, "svhn": 20000}


# To their data sets, which go with every strategy, these add numbers alone; see test_s4_presets.
NUMBERS_OF_S4 = ("mnist_two", "cifar10_two", "celeba", "svhn", "lsun")


@pytest.mark.parametrize(
    "preset",
    sorted(
        {*names("experiment")}
        - {f"s1_{each}" for each in DATA_SETS_OF_S1}
        - {f"s4_{each}" for each in NUMBERS_OF_S4}
    ),
)
def test_a_preset_composes_with_every_strategy(preset):
    for found in with_every_strategy(f"+experiment={preset}").values():
        if unfit(found):
            continue
        experiment = assemble(found)
        assert experiment.budget.plan(next((rows for name, rows in POOLS.items() if name in preset), 2000))


@pytest.mark.parametrize("preset", names("experiment"))
def test_a_preset_names_its_paper_and_strategies_that_there_are_and_sets_nothing_of_them(preset):
    text = (CONF / "experiment" / f"{preset}.yaml").read_text()
    assert re.search(r"^# S\d", text, re.MULTILINE)
    assert "Cost:" in text
    assert "strategy" not in OmegaConf.load(CONF / "experiment" / f"{preset}.yaml")
    told = {name for word in re.findall(r"\bstrategy=([\w,]+)", text) for name in word.split(",")}
    assert told | set(re.findall(r"\bwasserstein_\w+", text)) <= set(names("strategy"))


@pytest.mark.parametrize("file", sorted(CONF.glob("[den]*/*.yaml")), ids=lambda file: file.stem)
def test_what_is_set_for_others_to_read_is_read_by_some(file):
    """Experiments, data sets and needs hand numbers on under `preset`; reports read what is `reported`."""
    used = set(re.findall(r"oc\.select:preset\.(\w+)", "".join(f.read_text() for f in CONF.rglob("*.yaml"))))
    assert set(OmegaConf.load(file).get("preset", {})) <= used | {"reported"}


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("s0_checkerboard", (10, 4, 1, "zero", None, 5, "sgd", 1e-3, 1, 100)),
        ("s0_mnist_fc", (10, 5, 1, "zero", None, 20, "adam", 1e-3, 8, 100)),
        ("s0_mnist_cnn", (10, 5, 1, "zero", None, 20, "adam", 1e-3, 8, 100)),
        ("s0_cifar10", (20, 4, 10, "zero", 0.1, 200, "adam", 3e-4, 100, 100)),
        ("s0_svhn", (20, 5, 1, "soft_after_first", 0.1, 200, "sgd", 5e-3, 50, 50)),
    ],
)
def test_the_presets_of_s0_hold_the_values_of_its_appendix(preset, values):
    found = settings(f"+experiment={preset}", "strategy=diffusion")
    strategy, trainer = found["strategy"], found["trainer"]
    assert strategy["clamp"] == "oracle"
    assert values == (
        found["graph"]["k"],
        *(strategy[key] for key in ("steps", "mini_batch", "init", "shrink_below")),
        found["budget"]["per_round"],
        *(trainer[key] for key in ("optimizer", "learning_rate", "batch_size", "epochs")),
    )


SGD, ADAM = ("sgd", 1e-3, 0.9, 5e-4), ("adam", 1e-3, 0.9, 0.0)


@pytest.mark.parametrize(
    ("dataset", "budget", "first_size", "latent", "encoder", "model", "pretrained", "optimizer"),
    [
        ("mnist", (10, 10, 30), 100, 50, "auto", "Lenet", None, SGD),
        ("emnist_letters", (20, 20, 50), 200, 256, "auto", 18, True, ADAM),
        ("svhn", (100, 50, 50), 500, 100, "auto", 50, False, SGD),
        ("cifar10", (100, 200, 20), 5000, 100, "auto", 50, True, ADAM),
        ("cifar100", (100, 200, 20), 5000, 100, "resnet18", "vit_small_patch16_224", True, ADAM),
        ("mini_imagenet", (100, 200, 20), 5000, 100, "resnet18", "vit_small_patch16_224", True, ADAM),
    ],
)
def test_the_presets_of_s1_hold_the_values_of_its_table_and_appendix(
    dataset, budget, first_size, latent, encoder, model, pretrained, optimizer
):
    found = settings(f"+experiment=s1_{dataset}", "strategy=dgal")
    network, trainer, vae = found["model"], found["trainer"], found["featurizer"]
    assert tuple(found["budget"][key] for key in ("initial", "per_round", "rounds")) == budget
    assert found["budget"]["initial_sampling"] == "random"
    assert (found["strategy"]["first_size"], vae["latent"], vae["architecture"]) == (
        first_size,
        latent,
        encoder,
    )
    assert (vae["width"], vae["epochs"], vae["patience"], vae["learning_rate"]) == (128, 300, 20, 5e-4)
    assert (found["graph"]["k"], found["strategy"]["first"]["steps"]) == (20, None)
    assert network.get("depth", network.get("name", network["_target_"].rpartition(".")[2])) == model
    assert (network["hidden"], network.get("pretrained")) == ([50], pretrained)
    assert not network.get("freeze")
    keys = ("optimizer", "learning_rate", "momentum", "weight_decay")
    assert tuple(trainer[key] for key in keys) == optimizer
    assert (trainer["patience"], trainer["validation"], trainer["loss"]) == (10, 0.0, "cross_entropy")
    assert (trainer["crop"], trainer["flip"], trainer["start"]) == (0, False, "fresh")


@pytest.mark.parametrize(
    ("preset", "encoder", "batch", "smallest_crop", "flip", "hours"),
    [
        ("s2_stl10", "resnet18", 128, 0.08, True, 3),
        ("s2_cifar10", "resnet34", 512, 0.08, True, 3),
        ("s2_svhn", "resnet34", 512, 0.5, False, 6),
    ],
)
def test_the_presets_of_s2_hold_the_values_of_its_table_6(preset, encoder, batch, smallest_crop, flip, hours):
    found = settings(f"+experiment={preset}", "strategy=kmedoids")
    features = found["featurizer"]
    assert (features["architecture"], features["batch_size"]) == (encoder, batch)
    assert (features["views"]["smallest_crop"], features["views"]["flip"]) == (smallest_crop, flip)
    assert found["preset"]["seconds"] == 3600 * hours
    assert (found["strategy"]["metric"], found["preset"]["start"]) == ("cosine", "k_centers")
    assert (found["budget"]["initial"], sum(found["budget"]["sizes"])) == (0, 180)
    bought = assemble(found).budget.plan(5000)
    assert [sum(bought[: place + 1]) for place in range(11)] == [0, 10, *range(20, 181, 20)]


@pytest.mark.parametrize(
    ("dataset", "labels", "momentum", "penalty"),
    [("cifar10", 1000, 0.3, 5.0), ("svhn", 500, 0.5, 2.0)],
)
def test_the_classical_presets_of_s2_are_the_setting_of_waal(dataset, labels, momentum, penalty):
    found = settings(f"+experiment=s2_classical_{dataset}", "strategy=waal")
    network, trainer = found["model"], found["trainer"]
    assert (network["hidden"], network["dropout"], network["batch_norm"]) == ([50], 0.5, True)
    assert (network["pretrained"], network["freeze"]) == (False, False)
    keys = ("optimizer", "learning_rate", "momentum", "weight_decay", "batch_size", "epochs", "steps")
    assert [trainer[key] for key in keys] == ["sgd", 1e-2, momentum, 0.0, 64, 80, None]
    assert (trainer["crop"], trainer["flip"], trainer["schedule"]) == (4, True, "constant")
    assert (trainer["alpha"], trainer["penalty"], trainer["critic_hidden"]) == (2e-3, penalty, [50])
    assert (trainer["critic_dropout"], trainer["repo_sign"], found["strategy"]["weight"]) == (0.5, False, 10)
    assert assemble(found).budget.plan(50_000) == [labels] * 6


def test_mini_imagenet_has_the_pool_and_test_set_of_s1():
    found = settings("dataset=mini_imagenet")["dataset"]
    assert (100 * found["train_per_class"], 100 * found["test_per_class"]) == (48_000, 10_000)
    assert (found["image_size"], found["path"]) == (84, None)


def test_mnist_alone_is_sized_for_a_cpu():
    found = settings("dataset=mnist", "strategy=dgal")
    assert (found["featurizer"]["width"], found["featurizer"]["epochs"]) == (16, 20)
    assert (found["model"]["hidden"], found["strategy"]["first_size"]) == ([], None)


def test_a_group_chosen_by_hand_wins_over_what_the_data_set_brings():
    found = settings("dataset=cifar10", "model=vgg16", "trainer=augmented", "budget=low")
    assert (found["model"]["hidden"], found["model"]["pretrained"]) == ([512, 20], False)
    assert (found["trainer"]["flip"], found["budget"]["initial"]) == (True, 50)


def test_an_explicit_override_wins_over_preset_data_set_and_strategy():
    found = settings("+experiment=s0_mnist_fc", "graph.k=7", "model=linear", "budget.per_round=3")
    assert (found["graph"]["k"], found["budget"]["per_round"]) == (7, 3)
    assert found["model"]["_target_"].endswith("Linear")
    assert settings("strategy=bald", "model.dropout=0.1")["model"]["dropout"] == 0.1


def test_stages_nest_on_the_command_line():
    found = settings(
        "strategy=two_stage", "strategy@strategy.first=random", "strategy@strategy.second=two_stage"
    )
    assert found["strategy"]["first"]["_target_"].endswith("Random")
    assert found["strategy"]["second"]["second"]["_target_"].endswith("Margin")


@pytest.mark.parametrize("name", sorted({*names("strategy")} - {*MAKERS}))
def test_every_strategy_can_be_either_stage(name):
    for place in ("first", "second"):
        experiment = assemble(settings("strategy=two_stage", f"strategy@strategy.{place}={name}"))
        assert experiment.strategy.needs >= getattr(experiment.strategy, place).needs


@pytest.mark.parametrize("name", MAKERS)
def test_a_strategy_that_makes_its_own_rows_is_no_stage(name):
    for place in ("first", "second"):
        with pytest.raises(ConfigError, match="use it alone"):
            assemble(settings("strategy=two_stage", f"strategy@strategy.{place}={name}"))


def test_every_group_is_a_field_of_the_experiment():
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert groups - {"experiment", "needs"} <= {field.name for field in fields(Experiment)}
