"""From settings to parts: every mistake that can be known before data are read, all at once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from alrun.config import ConfigError, check, contents
from alrun.experiment import Experiment
from alrun.features.featurizer import Encoding
from alrun.features.gan_inversion import GanInversion
from alrun.features.on_generator import OnGenerator
from alrun.features.unit_images import takes_images
from alrun.models.encoded import FrozenHead
from alrun.purchase import SYNTHETIC
from alrun.rounds import OF_FEATURES, name_of, needed_heads, needs_model

NOTES = ("choices", "contents", "preset")
OPTIONAL = ("featurizer", "generator", "graph", "tracker", "journal")

# The trainer of `conf/trainer` that fits a head.
FITTED_BY = {"discriminator": "vaal", "critic": "waal", "learning_loss": "learning_loss"}

Parts = Mapping[str, Any]


def assemble(settings: Mapping[str, Any]) -> Experiment:
    """The experiment that settings describe.

    Raises:
        ConfigError: every unknown, missing, mistyped or ill-fitting setting, one line each, by its full key.
    """
    known = dict.fromkeys(OPTIONAL) | {key: value for key, value in settings.items() if key not in NOTES}
    problems = check(known, Experiment)
    wrong = {line.split(":")[0].split(".")[0] for line in problems}
    parts: dict[str, Any] = {}
    for each in fields(Experiment):
        node = known.get(each.name)
        if each.name not in wrong:
            try:
                parts[each.name] = _built(node)
            except InstantiationException as error:
                problems.append(_constructor_problem(each.name, error))
    for rule in RULES:
        problems += rule(parts)
    try:
        contents(settings)
    except ConfigError as error:
        told = {line.split(":")[0] for line in problems}
        problems += [line for line in error.problems if line.split(":")[0] not in told]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Experiment(**parts)


def _built(node: Any) -> Any:
    if isinstance(node, Mapping):
        return instantiate(dict(node), _convert_="all") if "_target_" in node else None
    return node


def _constructor_problem(key: str, error: InstantiationException) -> str:
    """The part's own message under its key; `name: rule` there is about the setting `name`.

    Raises:
        InstantiationException: the error is no bad value, but a fault.
    """
    cause: BaseException | None = error
    while isinstance(cause, InstantiationException):
        cause = cause.__cause__
    if not isinstance(cause, ValueError | OSError):
        raise error
    first, _, rest = str(cause).partition(" ")
    name = first.rstrip(":").removeprefix(f"{key}.")
    if name != first and name.isidentifier():
        return f"{key}.{name}: {rest}"
    return f"{key}: {cause}"


def _needs_are_met(parts: Parts) -> Iterator[str]:
    strategy = parts.get("strategy")
    if strategy is None:
        return
    name = name_of(strategy)
    if "graph" in strategy.needs and "graph" in parts and parts["graph"] is None:
        yield f"graph: {name} needs a neighbor graph and got none; choose graph=knn"
    if strategy.needs & OF_FEATURES and "featurizer" in parts and parts["featurizer"] is None:
        yield f"featurizer: {name} needs features and got none; choose e.g. featurizer=penultimate"
    if "dropout" in strategy.needs and "model" in parts and not parts["model"].has_dropout:
        yield f"model.dropout: {name} needs a model with dropout and got none; use e.g. model.dropout=0.5"


def _metric_fits(parts: Parts) -> Iterator[str]:
    strategy, graph = parts.get("strategy"), parts.get("graph")
    cosine = strategy is not None and "graph.cosine" in strategy.needs
    if cosine and graph is not None and graph.metric != "cosine":
        yield f"graph.metric: {name_of(strategy)} needs cosine, got {graph.metric}; choose graph=cosine"


def _heads_are_fitted(parts: Parts) -> Iterator[str]:
    strategy, trainer = parts.get("strategy"), parts.get("trainer")
    if strategy is None or trainer is None:
        return
    for head in sorted(needed_heads(strategy) - trainer.heads):
        yield (
            f"trainer: {name_of(strategy)} needs a trainer with the head '{head}' and got "
            f"{name_of(trainer)}; choose trainer={FITTED_BY.get(head, '<one that fits it>')}"
        )


def _first_needs_no_model(parts: Parts) -> Iterator[str]:
    budget = parts.get("budget")
    if budget is not None and needs_model(budget.first, parts.get("featurizer")):
        first = name_of(budget.first)
        yield (
            f"budget.first: chooses before there is a model, which {first} needs; "
            "use strategy@budget.first=random"
        )


def _batch_fits_the_first_stage(parts: Parts) -> Iterator[str]:
    strategy, budget = parts.get("strategy"), parts.get("budget")
    first_size = getattr(strategy, "first_size", None)
    if first_size is not None and budget is not None and budget.batches and first_size < max(budget.batches):
        yield f"strategy.first_size: must be at least the batch of {max(budget.batches)}, got {first_size}"


def _synthetic_images_have_features(parts: Parts) -> Iterator[str]:
    strategy, featurizer = parts.get("strategy"), parts.get("featurizer")
    if strategy is None or featurizer is None or "encoded" not in strategy.needs:
        return
    if not takes_images(featurizer):
        yield (
            f"featurizer: {name_of(strategy)} needs features of synthetic images, and {name_of(featurizer)} "
            "has none; choose featurizer=pixels, penultimate, s4_autoencoder or discriminator"
        )


def _frozen_head_has_an_encoder(parts: Parts) -> Iterator[str]:
    featurizer = parts.get("featurizer")
    if not isinstance(parts.get("model"), FrozenHead) or "featurizer" not in parts:
        return
    if not isinstance(featurizer, Encoding):
        got = "none" if featurizer is None else name_of(featurizer)
        yield (
            f"featurizer: model=frozen_head stands on a featurizer's encoder, and {got} has none; choose "
            "featurizer=simclr, fdal, vae, autoencoder or pretrained"
        )


def _generator_is_there(parts: Parts) -> Iterator[str]:
    strategy, featurizer = parts.get("strategy"), parts.get("featurizer")
    if "generator" not in parts or parts["generator"] is not None:
        return
    asking = [name_of(strategy)] if strategy is not None and "generator" in strategy.needs else []
    asking += [f"featurizer={name_of(featurizer)}"] if isinstance(featurizer, OnGenerator) else []
    for who in asking:
        yield f"generator: {who} needs a generator and got none; choose e.g. generator=wgan_gp"


def _somebody_labels_images(parts: Parts) -> Iterator[str]:
    strategy, oracle = parts.get("strategy"), parts.get("oracle")
    if strategy is None or oracle is None or SYNTHETIC not in strategy.needs:
        return
    if not oracle.labels_images:
        yield (
            f"oracle: {name_of(strategy)} makes images, for which {name_of(oracle)} has no labels; choose "
            "oracle=reference"
        )
    elif isinstance(oracle.model, FrozenHead) and not isinstance(parts.get("featurizer"), Encoding):
        yield "oracle.model: frozen_head stands on a featurizer's encoder and got none; choose another model"


def _classifier_is_linear_in_latents(parts: Parts) -> Iterator[str]:
    strategy = parts.get("strategy")
    if strategy is None or "latent" not in strategy.needs or not {"model", "featurizer"} <= set(parts):
        return
    model, name = parts["model"], name_of(strategy)
    if not isinstance(model, FrozenHead) or model.hidden is not None:
        yield f"model: {name} needs a classifier that is linear in latents; choose model=linear_head"
    if not isinstance(parts["featurizer"], GanInversion):
        yield f"featurizer: {name} needs latents of the generator; choose featurizer=gan_inversion"


RULES: tuple[Callable[[Parts], Iterator[str]], ...] = (
    _needs_are_met,
    _metric_fits,
    _heads_are_fitted,
    _first_needs_no_model,
    _batch_fits_the_first_stage,
    _synthetic_images_have_features,
    _frozen_head_has_an_encoder,
    _generator_is_there,
    _somebody_labels_images,
    _classifier_is_linear_in_latents,
)
