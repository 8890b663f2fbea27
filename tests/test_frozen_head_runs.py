"""Whole runs with a head on a frozen encoder: their settings, forecasts, kills."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adversaries import Stops
from conftest import settings, unlabeled
from test_run import Unwatched

from alrun.assembly import assemble
from alrun.cache import LISTED, Cache
from alrun.config import ConfigError
from alrun.files import write_text
from alrun.forecast import forecast
from alrun.overrides import mistakes
from alrun.pool import Inputs
from alrun.run import run
from alrun.spaces import opened, points
from alrun.state import RunFolder
from alrun.training import model
from alrun.training.evaluate import evaluate

FAST = ["tracker=none", "budget.initial=20", "budget.rounds=2", "dataset.pool_size=120", "trainer.epochs=4"]
SIMCLR = ["dataset=digits", "featurizer=simclr", "trainer=frozen_head", "strategy=coreset"]
TINY = ["featurizer.width=2", "featurizer.epochs=2", "featurizer.batch_size=32"]


@pytest.mark.parametrize("featurizer", ["none", "pca", "pixels", "penultimate"])
def test_a_featurizer_without_an_encoder_is_told_before_data_are_read(featurizer):
    told = "featurizer: model=frozen_head .* choose featurizer=simclr, fdal, vae, autoencoder or pretrained"
    with pytest.raises(ConfigError, match=told):
        assemble(settings("trainer=frozen_head", "strategy=random", f"featurizer={featurizer}"))


@pytest.mark.parametrize("featurizer", ["simclr", "vae", "autoencoder", "pretrained"])
def test_the_trainer_brings_its_head_whatever_the_data_set_brings(featurizer):
    found = settings("trainer=frozen_head", f"featurizer={featurizer}", "dataset=cifar10", "model.hidden=7")
    assert found["model"] == {
        "_target_": "alrun.models.encoded.FrozenHead",
        "hidden": 7,
        "batch_norm": True,
        "dropout": 0.0,
    }
    trainer = assemble(found).trainer
    assert (trainer.batch_size, trainer.crop, trainer.flip, trainer.schedule) == (128, 4, True, "constant")


def test_another_model_chosen_by_hand_is_a_contradiction():
    words = ["trainer=frozen_head", "featurizer=vae"]
    assert mistakes([*words, "model=frozen_head"], None, False, assemble) == []
    (line,) = mistakes([*words, "model=mlp"], None, False, assemble)
    assert line.startswith("model: another choice brings model=frozen_head, got model=mlp")


def test_what_an_experiment_sets_of_a_model_that_the_trainer_replaces_is_told_once():
    words = ["+experiment=s0_cifar10", "trainer=frozen_head", "featurizer=simclr"]
    told = "model: another choice brings model=frozen_head, and experiment=s0_cifar10 sets model"
    (line,) = mistakes(words, None, False, assemble)
    assert line.startswith(f"{told}.hidden, model.pretrained, model.freeze of its own; drop one of them")
    own, clash = mistakes([*words, "model.hidden=7", "model.dropout=much"], None, False, assemble)
    assert own.startswith("model.dropout: must be a valid number")
    assert clash.startswith(f"{told}.pretrained, model.freeze of its own")
    mine = mistakes(["trainer=frozen_head", "featurizer=vae", "model.freeze=true"], None, False, assemble)
    assert [line.split(";")[0] for line in mine] == ["model.freeze: no such setting"]


def test_settings_of_a_trainer_that_the_strategy_replaces_are_told_once():
    own, clash = mistakes(["strategy=waal", "trainer=mean_teacher", "trainer.speed=3"], None, False, assemble)
    assert own.startswith("trainer.speed: no such setting")
    assert clash.startswith(
        "trainer: another choice makes it a part that does not know trainer.labeled_batch"
    )
    assert clash.endswith("trainer.logit_distance of trainer=mean_teacher; drop one of them")
    (line,) = mistakes(["trainer=supervised", "trainer.speed=3"], None, False, assemble)
    assert line.startswith("trainer.speed: no such setting")


def test_a_forecast_tries_the_head_on_an_encoder_that_is_not_there_yet():
    experiment, pool = assemble(settings(*SIMCLR, *FAST, *TINY)), unlabeled(np.eye(64).reshape(-1, 8, 8), 10)
    ahead = forecast(experiment.trainer, experiment.model, experiment.featurizer, pool, [10, 20], 30)
    assert ahead.training > 0


def results(path: Path) -> tuple[bytes, list[dict[str, str]]]:
    with (path / "rounds.csv").open() as file:
        lines = [
            {key: value for key, value in line.items() if not key.endswith(("_seconds", "_mb"))}
            for line in csv.DictReader(file)
        ]
    return (path / "selections.csv").read_bytes(), lines


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> RunFolder:
    """A whole run on digits, its cache beside it."""
    home = tmp_path_factory.mktemp("played")
    found = settings(*SIMCLR, *FAST, *TINY, f"cache.dir={home / 'cache'}")
    found["choices"] |= {"dataset": "digits", "strategy": "coreset"}
    folder = RunFolder(home / "run")
    run(assemble(found), folder, found, Unwatched())
    return folder


def test_a_run_on_digits_selects_in_the_encoders_space_and_can_be_opened_again(played):
    lines = results(played.path)[1]
    assert [line["labeled"] for line in lines] == ["20", "30", "40"]
    kept = torch.load(played.path / "checkpoint" / "round.pt", weights_only=True)
    assert {name.split(".")[0] for name in kept["weights"]} == {"body", "head"}
    figures = {path.name for path in played.figures.iterdir()}
    assert {"features-simclr.png", "features-views.png", "accuracy.png"} <= figures
    scene = opened(played.path, "cpu", Unwatched())
    again = evaluate(scene.last.on(Inputs(scene.data.test_inputs)), scene.data.test_labels)
    assert again["accuracy"] == float(lines[-1]["accuracy"])
    kinds = [artifact.folder.parent.name for artifact in scene.experiment.cache.artifacts()]
    assert kinds == ["encoded", "features"]


def moved_to_a_gpu(cache: Cache) -> None:
    """Makes the features in a cache those of a GPU."""
    (artifact,) = (each for each in cache.artifacts() if each.folder.parent.name == "features")
    key = {**artifact.listing["key"], "device": "cuda"}
    write_text(artifact.folder / LISTED, json.dumps({**artifact.listing, "key": key}))
    artifact.folder.rename(cache._home("features", key))


def test_a_run_begun_on_a_gpu_goes_on_and_is_opened_elsewhere_with_the_features_it_began_with(
    played, tmp_path
):
    found = settings(*SIMCLR, *FAST, *TINY, f"cache.dir={tmp_path / 'cache'}")
    found["choices"] |= {"dataset": "digits", "strategy": "coreset"}
    with pytest.raises(KeyboardInterrupt):
        run(assemble(found), RunFolder(tmp_path / "run"), found, Stops())
    moved_to_a_gpu(cache := Cache(str(tmp_path / "cache")))
    run(assemble(found), RunFolder(tmp_path / "run"), found, Unwatched())
    assert results(tmp_path / "run") == results(played.path)
    assert points(opened(tmp_path / "run", "cpu", Unwatched()), "features", np.arange(9)).shape == (9, 16)
    listings = [artifact.listing for artifact in cache.artifacts()]
    assert [each["key"]["device"] for each in listings if each["kind"] == "features"] == ["cuda"]


def test_a_watched_fit_is_tested_on_what_the_shelf_has_of_the_test_set(played, tmp_path, monkeypatch):
    original, beside = model._frozen_outputs, []

    def noted(network, inputs):
        beside.append(len(inputs))
        return original(network, inputs)

    monkeypatch.setattr(model, "_frozen_outputs", noted)
    words = ["journal.supervised=true", f"cache.dir={played.path.parent / 'cache'}"]
    found = settings(*SIMCLR, *FAST, *TINY, *words)
    found["choices"] |= {"dataset": "digits", "strategy": "coreset"}
    run(assemble(found), RunFolder(tmp_path / "run"), found, Unwatched())
    assert results(tmp_path / "run") == results(played.path)
    assert (tmp_path / "run" / "epochs.csv").exists()
    assert len(assemble(found).data().test_labels) not in beside  # a forecast has rows of its own


def test_a_run_killed_while_its_head_is_trained_ends_as_if_it_never_was(played, nursery, tmp_path):
    often = """
import functools, alrun.files, alrun.state
alrun.state.RunFolder.progress = functools.partialmethod(alrun.state.RunFolder.progress, every=0.0)
"""
    words = [*SIMCLR, *FAST, *TINY, f"cache.dir={played.path.parent / 'cache'}"]
    kill = "deadly(alrun.files.Progress, 'keep', 6, True)"
    assert nursery.run(tmp_path, *words, code=often + kill).returncode == -9
    assert len(list(tmp_path.rglob("fit.pt"))) == 1
    done = nursery.run(tmp_path, *words, code=often)
    assert done.returncode == 0, done.output
    (path,) = tmp_path.glob("outputs/digits/*/*")
    assert results(path) == results(played.path)
