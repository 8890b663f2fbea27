"""Every preset and every pair of strategy and data set composes and fits together."""

import re
from dataclasses import fields

import pytest
from conftest import ROOT, settings
from omegaconf import OmegaConf

from alrun.assembly import assemble
from alrun.run import Experiment

CONF = ROOT / "conf"


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("dataset", names("dataset"))
def test_every_strategy_runs_on_the_data_set_with_what_both_bring(dataset, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")
    for strategy in names("strategy"):
        path = [f"dataset.path={tmp_path / 'x.npz'}"] if dataset == "arrays" else []
        experiment = assemble(settings(f"strategy={strategy}", f"dataset={dataset}", *path))
        assert isinstance(experiment, Experiment)


@pytest.mark.parametrize("preset", names("experiment"))
def test_a_preset_composes_with_every_strategy(preset):
    for strategy in names("strategy"):
        words = [f"+experiment={preset}", f"strategy={strategy}", "model.pretrained=false"]
        experiment = assemble(settings(*(words if "cifar10" in preset else words[:2])))
        assert experiment.budget.plan(50000 if "cifar" in preset else 20000 if "svhn" in preset else 2000)


@pytest.mark.parametrize("preset", names("experiment"))
def test_a_preset_names_its_paper_and_sets_nothing_of_a_strategy(preset):
    text = (CONF / "experiment" / f"{preset}.yaml").read_text()
    assert re.search(r"^# S\d", text, re.MULTILINE)
    assert "Cost:" in text
    assert "strategy" not in OmegaConf.load(CONF / "experiment" / f"{preset}.yaml")
    used = set(re.findall(r"oc\.select:preset\.(\w+)", "".join(f.read_text() for f in CONF.rglob("*.yaml"))))
    assert set(OmegaConf.load(CONF / "experiment" / f"{preset}.yaml").get("preset", {})) <= used


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


@pytest.mark.parametrize("name", names("strategy"))
def test_every_strategy_can_be_either_stage(name):
    for place in ("first", "second"):
        experiment = assemble(settings("strategy=two_stage", f"strategy@strategy.{place}={name}"))
        assert experiment.strategy.needs >= getattr(experiment.strategy, place).needs


def test_every_group_is_a_field_of_the_experiment():
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert groups - {"experiment", "needs"} <= {field.name for field in fields(Experiment)}
