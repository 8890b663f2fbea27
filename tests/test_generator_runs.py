"""Generators in runs: who needs one, what is said of it, what it costs, what is shared."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import settings
from generators import gan, squares

import alrun.generative.gan
from alrun.assembly import assemble
from alrun.config import ConfigError, settings_id
from alrun.forecast import Forecast
from alrun.pool import Inputs

SMALL = [
    *("tracker=none", "budget.initial=10", "budget.rounds=1", "budget.per_round=3", "trainer.epochs=2"),
    *("dataset.pool_size=60", "seeds.split=0", "featurizer=pixels"),
    *("generator.iterations=2", "generator.networks.width=2", "strategy.steps=2"),
]


@pytest.mark.parametrize(
    ("words", "who"),
    [
        (["strategy=asal", "generator=none"], "asal"),
        (["strategy=kmedoids", "featurizer=discriminator", "generator=none"], "featurizer=discriminator"),
    ],
)
def test_what_stands_on_a_generator_says_so_where_there_is_none(words, who):
    with pytest.raises(
        ConfigError, match=f"generator: {who} needs a generator and got none; choose e.g. gen"
    ):
        assemble(settings(*words))


def test_a_consistency_term_without_dropout_is_refused():
    with pytest.raises(ConfigError, match="generator.* compares two passes that differ by dropout"):
        assemble(settings("generator=wgan_gp", "generator.objective.consistency=2.0"))
    assemble(settings("generator=wgan_ct", "generator.networks.dropout=0.1"))


def test_a_generator_is_part_of_what_a_run_is():
    one, other = (
        settings_id(settings("strategy=asal", f"generator={kind}")) for kind in ("dcgan", "wgan_gp")
    )
    assert one != other


def test_iterations_follow_the_experiment_by_the_kind_of_network():
    words = ["++preset.gan_iterations=7", "++preset.dcgan_iterations=5", "++preset.res_gan_iterations=3"]
    kinds = {"wgan_gp": 7, "wgan_ct": 7, "dcgan": 5, "res_wgan_gp": 3, "res_wgan_ct": 3}
    for kind, iterations in kinds.items():
        assert settings(f"generator={kind}", *words)["generator"]["iterations"] == iterations
    assert settings("generator=dcgan", words[0])["generator"]["iterations"] == 7


def test_a_forecast_counts_steps_of_both_networks(monkeypatch):
    ticks = count()
    monkeypatch.setattr(
        alrun.generative.gan, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    )
    ahead = gan("wgan_gp", iterations=1000).seconds(Inputs(squares(3)))
    assert ahead == 1000 * (5 * 1 + 1)
    assert Forecast(1.0, 2.0, 3.0, 4.0).total == 10
    assert "generator" in str(Forecast(0.0, 0.0, 0.0, ahead))


def test_runs_share_a_generator_and_show_what_it_draws(nursery, tmp_path):
    first = nursery.run(tmp_path, "strategy=asal", *SMALL)
    assert first.returncode == 0, first.output
    assert "generator: to be made" in " ".join(first.output.split())
    again = nursery.run(tmp_path, "strategy=asal", "seed=1", *SMALL)
    assert "generator: reused" in " ".join(again.output.split())
    (folder,) = tmp_path.glob("outputs/digits/asal/seed0-*")
    shown = {file.name for file in (folder / "figures").glob("generator-*")}
    assert shown == {f"generator-{name}.png" for name in ("losses", "samples", "stages", "diversity")}
    assert (folder / "generator-losses.csv").read_text().startswith("iteration,")
    table = np.genfromtxt(folder / "rounds.csv", delimiter=",", names=True)
    assert (table["once_generator_seconds"] > 0).all()
    for artifact in tmp_path.glob("outputs/cache/generator/*"):
        if artifact.is_dir():
            (artifact / "generator.pt").write_bytes(b"")
    untouched = nursery.run(tmp_path, "strategy=random", "generator=wgan_gp", *SMALL[:-1])
    assert untouched.returncode == 0, untouched.output
    assert "generator:" not in untouched.output
