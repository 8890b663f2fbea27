"""Methods and data sets told apart by their settings, and pairs of methods compared."""

import csv
from pathlib import Path

import numpy as np
import pytest
from test_report import SEEDS, made, panel_of, run_settings, three_runs

from alrun.report.aggregating import panels
from alrun.report.naming import names
from alrun.report.ratios import ratios
from alrun.report.reading import read
from alrun.report.tables import by_pair, save_tables


@pytest.fixture
def two_methods(tmp_path) -> Path:
    return three_runs(tmp_path)


def test_variants_are_named_by_the_choice_that_tells_them_apart(tmp_path):
    for name in ("vae", "pca"):
        parts = {"featurizer": {"_target_": f"features.{name}", "size": len(name) * 10}}
        settings = run_settings("seals", choices={"featurizer": name}, **parts)
        made(tmp_path / name, [0.1, 0.2, 0.3], settings=settings)
    pca, vae = panel_of(tmp_path).methods
    assert (pca.name, vae.name) == ("seals (featurizer=pca)", "seals (featurizer=vae)")
    made(tmp_path / "other", [0.1, 0.2, 0.3], settings=run_settings("margin"))
    assert [method.name for method in panel_of(tmp_path).methods][0] == "margin"


def test_variants_of_one_class_are_named_by_the_setting_and_listed_with_all(tmp_path):
    for k, depth in ((5, 1), (10, 2)):
        strategy = {"_target_": "strategies.Seals", "k": k, "depth": depth}
        made(tmp_path / f"{k}", [0.1, 0.2, 0.3], settings=run_settings("seals", strategy=strategy))
    methods = panel_of(tmp_path).methods
    assert [method.name for method in methods] == ["seals (strategy.k=10)", "seals (strategy.k=5)"]
    assert [method.settings for method in methods] == [
        "strategy.k=10 strategy.depth=2",
        "strategy.k=5 strategy.depth=1",
    ]


def test_a_setting_that_a_later_one_makes_needless_stays_out_of_the_name():
    variants = [{"choices": {}, "a": a, "b": b} for a, b in ((1, 1), (1, 2), (2, 3))]
    assert names("seals", variants) == ["seals (b=1)", "seals (b=2)", "seals (b=3)"]
    crossed = [{"choices": {}, "a": a, "b": b} for a in (1, 2) for b in (1, 2)]
    assert names("seals", crossed)[1] == "seals (a=1, b=2)"


def test_no_setting_of_a_place_and_no_seed_makes_a_variant(tmp_path):
    made(tmp_path / "a", [0.1, 0.2, 0.3], settings=run_settings(seed=0) | {"device": "cuda"})
    made(tmp_path / "b", [0.1, 0.2, 0.3], settings=run_settings(seed=1) | {"sweep": "x", "data_dir": "/d"})
    assert [method.name for method in panel_of(tmp_path).methods] == ["margin"]
    for weights in (3, 4):
        own = run_settings(seed=0) | {"seeds": SEEDS | {"weights": weights}}
        made(tmp_path / f"w{weights}", [0.1, 0.2, 0.3], settings=own)
    methods = panel_of(tmp_path).methods
    assert {method.name: len(method.runs) for method in methods} == {
        "margin (seeds.weights=own)": 2,
        "margin": 2,
    }


def test_another_version_of_a_data_set_is_another_panel(tmp_path):
    for size in (100, 200):
        settings = run_settings(dataset={"_target_": "data.digits", "pool_size": size})
        made(tmp_path / f"{size}", [0.1, 0.2, 0.3], settings=settings)
    found = panels(read([tmp_path]).runs)
    assert [panel.dataset for panel in found] == [
        "digits (dataset.pool_size=100)",
        "digits (dataset.pool_size=200)",
    ]


def test_files_that_only_differ_by_content_are_told_apart(tmp_path):
    base = run_settings() | {"dataset": {"_target_": "data.arrays", "path": "mine.npz"}}
    versions = [base | {"contents": {"dataset.path": f"sha256:{digit}"}} for digit in "12"]
    first, second = names("arrays", versions)
    assert first != second
    for number, settings in enumerate(versions):
        made(tmp_path / f"{number}", [0.1, 0.2, 0.3], settings=settings)
    assert len(panels(read([tmp_path]).runs)) == 2


def test_training_that_differs_between_methods_is_said(two_methods):
    longer = run_settings("bald") | {"trainer": {"_target_": "training.Supervised", "epochs": 9}}
    made(two_methods / "d", [0.1, 0.2, 0.3], settings=longer)
    assert list(panel_of(two_methods).unlike) == [
        "digits: methods differ in trainer.epochs: 9 for bald; 3 for margin, random"
    ]


def test_what_a_name_tells_or_one_choice_alone_has_is_not_said_again(tmp_path):
    taught = {"_target_": "training.MeanTeacher", "epochs": 9, "ramp_up": 5}
    made(tmp_path / "a", [0.1, 0.2, 0.3], settings=run_settings())
    made(tmp_path / "b", [0.1, 0.2, 0.3], settings=run_settings() | {"trainer": taught})
    panel = panel_of(tmp_path)
    assert all("trainer=" in method.name for method in panel.methods)
    assert [line.partition(":")[2].partition(":")[0] for line in panel.unlike] == [
        " methods differ in trainer.epochs"
    ]


def test_the_ratio_is_taken_at_the_highest_accuracy_that_both_reach(tmp_path):
    # slow reaches 0.6 in round 2 (20 s), falls, and ends at 0.55; fast passes 0.6 in round 3 (3 s)
    made(tmp_path / "a", [0.2, 0.4, 0.6, 0.55], 10.0, run_settings("slow", rounds=3))
    made(tmp_path / "b", [0.2, 0.3, 0.5, 0.7], 1.0, run_settings("fast", rounds=3))
    found = {(pair.first, pair.second): pair for pair in ratios(panel_of(tmp_path))}
    pair = found["slow", "fast"]
    assert pair.accuracy == 0.6
    assert [(each.labels, each.query_seconds) for each in pair.at] == [(30, 20.0), (40, 3.0)]
    assert pair.ratio == pytest.approx(20 / 3)
    assert found["fast", "slow"].ratio == pytest.approx(3 / 20)


def pair_of(folder: Path, first: str):
    return next(pair for pair in ratios(panel_of(folder)) if pair.first == first)


def test_the_ratio_is_of_means_over_seeds_not_a_mean_of_ratios(two_methods):
    # means: margin .2 .4 .7 at 0, 3, 6 s; random .2 .5 .4 at 0, .5, 1 s: both reach .5
    made(two_methods / "d", [0.2, 0.5, 0.5], 0.75, run_settings("random", seed=1))
    pair = pair_of(two_methods, "margin")
    assert (pair.seeds, pair.accuracy) == (2, 0.5)
    assert pair.ratio == pytest.approx(6 / 0.5)


def test_only_seeds_that_both_methods_have_are_compared(two_methods):
    # of seed 0 alone: margin .1 .4 .6 at 0, 2, 4 s; random .2 .5 .3 at 0, .25, .5 s
    made(two_methods / "d", [0.9, 0.9, 0.9], 9.0, run_settings("random", seed=2))
    assert pair_of(two_methods, "margin").ratio == pytest.approx(4 / 0.25)
    assert pair_of(two_methods, "random").ratio == pytest.approx(0.25 / 4)
    assert [line["seeds"] for line in by_pair(panel_of(two_methods))] == [1, 1]


def test_methods_without_a_common_seed_make_no_pair(two_methods):
    made(two_methods / "d", [0.1, 0.2, 0.3], settings=run_settings("coreset", seed=1))
    pairs = {(pair.first, pair.second) for pair in ratios(panel_of(two_methods))}
    assert pairs == {
        ("coreset", "margin"),
        ("margin", "coreset"),
        ("margin", "random"),
        ("random", "margin"),
    }


def test_there_is_no_ratio_where_the_first_set_is_enough(tmp_path):
    made(tmp_path / "a", [0.5, 0.4, 0.3], 10.0, run_settings("worse"))
    made(tmp_path / "b", [0.5, 0.6, 0.7], 1.0, run_settings("better"))
    assert all(np.isnan(pair.ratio) for pair in ratios(panel_of(tmp_path)))
    save_tables(panels(read([tmp_path]).runs), tmp_path)
    lines = list(csv.DictReader((tmp_path / "ratios.csv").open()))
    assert [(line["a"], line["b"], line["ratio"]) for line in lines] == [
        ("better", "worse", ""),
        ("worse", "better", ""),
    ]
