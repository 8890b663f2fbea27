"""Runs judged by whether the matches of their synthetic images are of the same class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alrun.cache import Watch
from alrun.config import ConfigError
from alrun.pool import Inputs
from alrun.report.aggregating import Method, panels
from alrun.report.agreements import Agreement, class_averaged
from alrun.report.reading import Run, UnreadableError
from alrun.spaces import opened
from alrun.state import arrays_file, read_arrays, read_records
from alrun.training.evaluate import evaluate

NAME = "asal"  # under which a round keeps its synthetic images


@dataclass(frozen=True, eq=False)
class Synthetic:
    """All synthetic images of a run, as stored items.

    Attributes:
        rounds, numbers: the round of each, and its number in it.
        rows: pool rows that they match.
    """

    items: Shaped[ndarray, " b *shape"]
    rounds: Int64[ndarray, " b"]
    numbers: Int64[ndarray, " b"]
    rows: Int64[ndarray, " b"]


def with_synthetic(runs: Sequence[Run]) -> list[Run]:
    """Those of these runs that keep synthetic images."""
    return [run for run in runs if arrays_file(run.folder, NAME, 0).parent.is_dir()]


def synthetic(run: Run) -> Synthetic:
    """The synthetic images of a run's recorded rounds.

    Raises:
        UnreadableError: none, or files that cannot be read.
    """
    parts = []
    try:
        for number, found in read_arrays(run.folder, NAME, run.done + 1):
            rows = found["rows"].astype(np.int64)
            parts.append((found["images"], np.full(len(rows), number), np.arange(len(rows)), rows))
    except (KeyError, ValueError) as error:
        raise UnreadableError(f"synthetic images cannot be read ({error})") from None
    if not parts:
        raise UnreadableError("holds no synthetic images of a whole round")
    return Synthetic(*(np.concatenate(each) for each in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class Judge:
    """Says of which class synthetic images are, and how often their matches are of it.

    Attributes:
        labels: a CSV file with the classes, in place of a reference classifier.
    """

    device: str
    watch: Watch
    labels: Path | None

    def of(self, run: Run) -> tuple[int, float, float]:
        """Images counted, agreement, and the reference's test accuracy (NaN without one) of a run.

        Raises:
            ConfigError, ValueError, OSError: images, labels or data that cannot be read.
        """
        scene, images = opened(run.folder, self.device, self.watch), synthetic(run)
        if self.labels is not None:
            classes, accuracy = given(self.labels, images, scene.data.class_names), float("nan")
        else:
            model = scene.reference
            probabilities = model.on(Inputs(images.items, scene.device)).predict(np.arange(len(images.rows)))
            classes = probabilities.argmax(axis=1)
            tests = model.on(Inputs(scene.data.test_inputs, scene.device))
            accuracy = evaluate(tests, scene.data.test_labels)["accuracy"]
        named = classes >= 0
        truth = scene.data.labels[images.rows]
        worth = class_averaged(classes[named], truth[named], scene.data.classes)
        return int(named.sum()), worth, accuracy


def judged(runs: Sequence[Run], judge: Judge) -> tuple[list[Agreement], list[str]]:
    """The agreement of each method, and a line for each run that was left out.

    Raises:
        ValueError: none of them can be judged.
    """
    found, problems = [], []
    for panel in panels(runs):
        for method in panel.methods:
            told = []
            for run in method.all:
                try:
                    told.append(judge.of(run))
                except (ConfigError, UnreadableError) as error:
                    problems.append(f"{run.folder}: left out ({'; '.join(str(error).splitlines())})")
            if told:
                found.append(_agreement(panel.dataset, method, told))
    if not found:
        raise ValueError("\n".join(["no run can be judged", *problems]))
    order = ("dataset", "generator", "featurizer", "method")
    return sorted(found, key=lambda each: [getattr(each, name) for name in order]), problems


def given(file: Path, images: Synthetic, class_names: Sequence[str]) -> Int64[ndarray, " b"]:
    """The classes of a run's synthetic images by a CSV file; -1 for those that it does not name.

    Raises:
        ValueError: columns that are missing, an image that there is not or is named twice, or no class.
    """
    classes = np.full(len(images.rows), -1, np.int64)
    keys = zip(images.rounds.tolist(), images.numbers.tolist(), strict=True)
    places = {key: place for place, key in enumerate(keys)}
    for line, (key, label) in enumerate(_labels(file), 2):
        if key not in places or classes[places[key]] >= 0:
            what = "is named twice" if key in places else "is not in the run"
            raise ValueError(f"{file}, line {line}: image {key[1]} of round {key[0]} {what}; name it once")
        classes[places[key]] = _class_of(label, class_names, f"{file}, line {line}")
    if (classes < 0).all():
        raise ValueError(f"{file}: names no image; give a line with round, image and label each")
    return classes


def _labels(file: Path) -> Iterator[tuple[tuple[int, int], str]]:
    for line in read_records(file):
        try:
            yield (int(line["round"]), int(line["image"])), str(line["label"])
        except (KeyError, ValueError, TypeError):
            columns = "the numbers round and image, and the column label"
            raise ValueError(f"{file}: every line needs {columns}, got {line}") from None


def _class_of(label: str, class_names: Sequence[str], where: str) -> int:
    if label in class_names:
        return list(class_names).index(label)
    if label.isdecimal() and int(label) < len(class_names):
        return int(label)
    names = ", ".join(class_names[:12])
    raise ValueError(f"{where}: no class {label!r}; the classes are {names}, or their numbers from 0")


def _agreement(dataset: str, method: Method, told: Sequence[tuple[int, float, float]]) -> Agreement:
    images, values, accuracies = (np.array(each) for each in zip(*told, strict=True))
    choices: Mapping[str, Any] = method.all[0].settings["choices"]
    made_by, seen_by = (str(choices.get(group, "none")) for group in ("generator", "featurizer"))
    reference = float(accuracies.mean())
    return Agreement(dataset, method.name, made_by, seen_by, int(images.sum()), values, reference)
