"""The presets of S3 hold the paper's values, whichever of its trainers is chosen."""

import pytest
from conftest import settings
from omegaconf import OmegaConf
from test_presets import CONF, names

TRAINERS_OF_S3 = ("supervised", "label_propagation", "mean_teacher", "mean_teacher_label_propagation")


@pytest.mark.parametrize("trainer", TRAINERS_OF_S3)
@pytest.mark.parametrize(
    ("dataset", "batch", "labeled", "rate", "moved", "turned"),
    [
        ("cifar10", 100, 50, 5e-2, (4, "reflection"), 0.0),
        ("cifar100", 128, 31, 2e-1, (4, "reflection"), 0.0),
        ("mini_imagenet", 128, 31, 2e-1, (0, "zeros"), 10.0),
    ],
)
def test_the_presets_of_s3_hold_the_values_of_its_section_5_for_each_trainer(
    dataset, batch, labeled, rate, moved, turned, trainer
):
    found = settings(f"+experiment=s3_{dataset}", f"trainer={trainer}", "strategy=random")
    recipe, network = found["trainer"], found["model"]
    keys = ("optimizer", "momentum", "nesterov", "weight_decay", "schedule", "horizon", "renewed")
    assert [recipe[key] for key in keys] == ["sgd", 0.9, True, 2e-4, "cosine", 210, "step"]
    assert (recipe["learning_rate"], recipe["batch_size"], recipe["epochs"]) == (rate, batch, 180)
    assert ((recipe["crop"], recipe["border"]), recipe["rotation"], recipe["flip"]) == (moved, turned, True)
    if trainer != "supervised":
        assert (recipe["labeled_batch_size"], recipe["variant"]) == (labeled, "paper")
    if "propagation" in trainer:
        assert recipe["propagation_epochs"] == 180
    assert network["normalize"] is ("teacher" not in trainer)
    if dataset == "mini_imagenet":
        assert (network["depth"], network["stem"], network["hidden"]) == (18, "imagenet", [])
        assert (network["pretrained"], network["freeze"]) == (False, False)
        assert (found["dataset"]["train_per_class"], found["dataset"]["test_per_class"]) == (500, 100)
    else:
        assert (network["width"], network["dropout"]) == (128, 0.5)
    assert (found["budget"]["initial_sampling"], found["budget"]["rounds"]) == ("balanced", 0)


def test_the_crop_of_s3s_mini_imagenet_comes_with_its_code_alone_however_that_is_chosen():
    for trainer, word in (("supervised", "preset"), ("mean_teacher", "preset"), ("mean_teacher", "trainer")):
        found = settings("+experiment=s3_mini_imagenet", f"trainer={trainer}", f"{word}.variant=repo")
        assert (found["trainer"]["crop"], found["trainer"]["border"]) == (8, "zeros")


@pytest.mark.parametrize("preset", [name for name in names("experiment") if name.startswith("s3")])
def test_what_s3_reports_stands_by_numbers_of_labels_and_in_the_header(preset):
    text = (CONF / "experiment" / f"{preset}.yaml").read_text()
    header = text[: text.index("defaults:")]
    for errors in settings(f"+experiment={preset}")["preset"].get("reported", {}).values():
        assert all(isinstance(labels, int) and 0 < error < 100 for labels, error in errors.items())
    ours = OmegaConf.load(CONF / "experiment" / f"{preset}.yaml").preset.get("reported", {})
    told = [error for name, errors in ours.items() if "S3" in name for error in errors.values()]
    assert all(f"{error:.2f}" in header for error in told if "al_" not in preset)


def test_the_small_preset_of_s3_reaches_each_trainer_and_no_fit_of_it_is_as_long_as_the_papers():
    lengths = {}
    for trainer in TRAINERS_OF_S3:
        found = settings("+experiment=s3_mnist", f"trainer={trainer}", "strategy=random")
        recipe = found["trainer"]
        lengths[trainer] = (recipe["epochs"], recipe.get("propagation_epochs"))
        assert (recipe["batch_size"], recipe["learning_rate"], recipe["horizon"]) == (64, 0.2, None)
        assert (found["model"]["width"], found["dataset"]["pool_size"]) == (8, 5000)
    short = lengths["mean_teacher"][0]
    assert short < 60
    assert list(lengths.values()) == [(180, None), (180, short), (short, None), (short, short)]
