"""The presets of S4 hold the values of its tables and of its appendix A."""

import re
from functools import cache

import pytest
from conftest import ROOT, settings
from test_presets import names

from alrun.assembly import assemble

# Table 1: labels a round, first ones, all, rounds; how the first are drawn. CelebA by appendix A.5.
TABLE_1 = {
    "mnist_two": (10, 50, 500, 45, "random"),
    "cifar10_two": (10, 50, 1000, 95, "random"),
    "mnist": (50, 100, 10_000, 198, "random"),
    "cifar10": (1000, 1000, 30_000, 29, "balanced"),
    "celeba": (10, 100, 2000, 190, "proportional"),
    "svhn": (1000, 1000, 50_000, 49, "proportional"),
    "lsun": (1000, 1000, 30_000, 29, "proportional"),
}
SEEDS = {"cifar10": 3, "svhn": 3, "lsun": 3}
# Rows of each pool: the two classes within the first 50,000 of MNIST and in CIFAR-10; table 1 in thousands.
POOLS = {
    "mnist_two": 9681,
    "cifar10_two": 10_000,
    "mnist": 50_000,
    "cifar10": 50_000,
    "celeba": 162_770,
    "svhn": 604_388,
    "lsun": 9_604_373,
}
# Table 3, in thousands.
ITERATIONS = {
    "mnist_two": {"dcgan": 40, "wgan_gp": 40},
    "cifar10_two": {"dcgan": 100, "wgan_gp": 200, "res_wgan_gp": 100, "res_wgan_ct": 100},
    "mnist": {"dcgan": 100, "wgan_gp": 100},
    "cifar10": {"dcgan": 200, "wgan_gp": 200, "res_wgan_gp": 100, "res_wgan_ct": 100},
    "celeba": {"wgan_gp": 100},
    "svhn": {"wgan_gp": 100},
    "lsun": {"wgan_gp": 100},
}
EACH = pytest.mark.parametrize("row", TABLE_1)


@cache
def chosen(row: str, *words: str) -> dict:
    """The preset's settings with ASAL or what the words say; composing is slow, so each is done once."""
    return settings(f"+experiment=s4_{row}", "strategy=asal", *words)


def test_there_is_a_preset_for_each_row_of_table_1_and_no_other():
    assert [name for name in names("experiment") if name.startswith("s4")] == sorted(
        f"s4_{row}" for row in TABLE_1
    )


@EACH
def test_the_rounds_come_out_as_table_1_says(row):
    new, initial, budget, cycles, sampling = TABLE_1[row]
    found = chosen(row)["budget"]
    assert (found["per_round"], found["initial"], found["initial_sampling"]) == (new, initial, sampling)
    assert found["rounds"] == cycles == (budget - initial) // new
    plan = assemble(chosen(row)).budget.plan(POOLS[row])
    assert (len(plan) - 1, sum(plan)) == (cycles, budget)


@EACH
def test_asal_has_the_generator_features_and_search_of_the_paper(row):
    found = chosen(row)
    generator = "Residual" if row == "cifar10" else "Plain"
    assert found["generator"]["networks"]["_target_"].endswith(generator)
    assert found["generator"]["objective"]["consistency"] == (2.0 if row == "cifar10" else 0.0)
    assert found["featurizer"]["_target_"].endswith("S4Autoencoder")
    strategy = found["strategy"]
    assert (strategy["score"], strategy["steps"], strategy["dims"]) == ("entropy", 100, 50)
    assert (strategy["latents"], strategy["neighbors"], strategy["images"]) == (100, 1, 1)


@EACH
def test_every_generator_is_trained_as_long_as_table_3_says(row):
    preset = chosen(row)["preset"]
    keys = {"dcgan": "dcgan_iterations", "wgan_gp": "gan_iterations"}
    for generator, thousands in ITERATIONS[row].items():
        assert preset[keys.get(generator, "res_gan_iterations")] == 1000 * thousands


@pytest.mark.parametrize("generator", ITERATIONS["cifar10_two"])
def test_a_generator_reads_its_own_iterations(generator):
    found = chosen("cifar10_two", f"generator={generator}")["generator"]
    assert found["iterations"] == 1000 * ITERATIONS["cifar10_two"][generator]


@EACH
def test_generators_of_digits_see_50_images_at_once_and_others_64(row):
    assert chosen(row)["generator"]["batch_size"] == (50 if "mnist" in row else 64)


@pytest.mark.parametrize("featurizer", ["pixels", "s4_autoencoder", "discriminator", "penultimate"])
def test_the_other_score_goes_with_every_feature_map(featurizer):
    words = ("strategy.score=min_distance", "trainer.loss=hinge", "strategy.dims=10")
    experiment = assemble(chosen("mnist_two", f"featurizer={featurizer}", *words))
    assert experiment.featurizer is not None
    assert (experiment.strategy.score, experiment.trainer.loss) == ("min_distance", "hinge")


@pytest.mark.parametrize(
    ("row", "model", "expected"),
    [
        ("mnist_two", "Linear", (10, 10, "adam", 1e-3, 0.0)),
        ("cifar10_two", "Linear", (10, 50, "adam", 1e-3, 0.0)),
        ("mnist", "PooledCnn", (10, 50, "adam", 1e-3, 0.0)),
        ("cifar10", "AllCnn", (150, 128, "sgd", 1e-2, 1e-3)),
        ("celeba", "PooledCnn", (30, 50, "adam", 1e-3, 0.0)),
        ("svhn", "ConvSmall", (120, 128, "adam", 1e-3, 0.0)),
        ("lsun", "ConvSmall", (120, 128, "adam", 1e-3, 0.0)),
    ],
)
def test_classifiers_are_trained_as_appendix_a_says(row, model, expected):
    found = chosen(row)
    trainer = found["trainer"]
    keys = ("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay")
    assert tuple(trainer[key] for key in keys) == expected
    assert found["model"]["_target_"].endswith(model)
    assert (trainer["loss"], trainer["start"], trainer["patience"]) == ("cross_entropy", "fresh", None)
    assert (trainer["crop"], trainer["flip"]) == ((4, True) if row == "lsun" else (0, False))
    if row == "cifar10":
        assert (trainer["momentum"], trainer["schedule"]) == (0.9, "milestones")
        assert (trainer["milestones"], trainer["decay"]) == ([130, 140], 0.1)
    elif row in ("mnist", "celeba"):
        assert found["model"]["channels"] == ([32, 64] if row == "mnist" else [16, 32, 64])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("mnist_two", ([1, 2, 4], 40, None, 100, 1e-3)),
        ("cifar10_two", (None, 100, None, 128, 1e-3)),
        ("mnist", (None, 40, None, 100, 1e-3)),
        ("celeba", (None, 100, None, 64, 1e-4)),
        ("svhn", (None, 100, 1000, 64, 1e-4)),
        ("lsun", (None, 100, 1000, 64, 1e-4)),
    ],
)
def test_autoencoders_are_trained_as_appendix_a_says(row, expected):
    found = chosen(row)["featurizer"]
    assert (
        tuple(found[key] for key in ("channels", "epochs", "steps", "batch_size", "learning_rate"))
        == expected
    )


def test_the_data_are_those_of_section_4_1():
    assert chosen("mnist_two")["dataset"]["classes"] == [5, 7]
    assert chosen("cifar10_two")["dataset"]["classes"] == [1, 7]
    for row in ("mnist_two", "mnist"):
        assert chosen(row)["dataset"]["first"] == 50_000
    assert chosen("svhn")["dataset"]["extra"] is True
    for row in ("celeba", "lsun"):
        assert chosen(row)["dataset"]["image_size"] == 64
    assert chosen("lsun")["dataset"]["test_size"] == 9_895_373 - POOLS["lsun"]


def test_the_header_of_celeba_sweeps_the_four_attributes():
    text = (ROOT / "conf" / "experiment" / "s4_celeba.yaml").read_text()
    assert "dataset.attribute=Blond_Hair,Wearing_Hat,Bangs,Eyeglasses" in text[: text.index("defaults:")]


@EACH
def test_the_header_says_how_many_seeds_and_each_generator_that_table_3_has(row):
    text = (ROOT / "conf" / "experiment" / f"s4_{row}.yaml").read_text()
    assert f"Seeds: {SEEDS.get(row, 5)}." in " ".join(text.replace("#", " ").split())
    assert len(ITERATIONS[row]) == 1 or f"generator={','.join(ITERATIONS[row])}" in text


def test_the_header_of_mnist_has_the_subsets_of_figure_16_and_their_commands_make_experiments():
    text = (ROOT / "conf" / "experiment" / "s4_mnist.yaml").read_text()
    for words in re.findall(r"\+experiment=s4_mnist (.*(?:images|neighbors|first_size)=.*)", text):
        *plain, last = words.split()
        key, sizes = last.split("=")
        found = assemble(settings("+experiment=s4_mnist", *plain, f"{key}={sizes.split(',')[0]}"))
        each = 1 if key.endswith("first_size") else found.budget.per_round
        assert [each * int(size) for size in sizes.split(",")] == [100, 200, 400, 800]
    assert text.count("2,4,8,16") == 2
    assert text.count("100,200,400,800") == 1
