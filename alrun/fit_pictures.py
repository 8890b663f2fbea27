"""Pictures of what fits went through: errors and pseudo-labels over epochs, their weights, the wrong ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from alrun.report.aggregating import Method
from alrun.report.epochs import FILE, Epochs, by_trainer, read_epochs, read_kept, titles
from alrun.report.epochs_picture import draw_epochs, draw_pseudo_accuracy
from alrun.report.pseudo_picture import draw_weights, draw_wrong
from alrun.report.reading import read_run
from alrun.screen import Bars
from alrun.spaces import opened


def _epochs(figure: Figure, asked: argparse.Namespace, bars: Bars) -> None:
    """Test error over the epochs of fits."""
    methods = _methods(asked.folders)
    shown = [each for each in methods if all((run.folder / FILE).exists() for run in each.runs)]
    if not shown:
        _watched(methods, asked.round)  # says what is missing
    finals = {each: _final_error(each, asked.round) for each in methods if each not in shown}
    draw_epochs(figure, _watched(shown, asked.round), finals, _where(asked, methods))


def _pseudo(figure: Figure, asked: argparse.Namespace, bars: Bars) -> None:
    """Pseudo-labels over the epochs of fits."""
    methods = _methods(asked.folders)
    draw_pseudo_accuracy(figure, _watched(methods, asked.round), _where(asked, methods))


def _weights(figure: Figure, asked: argparse.Namespace, bars: Bars) -> None:
    """Weights of right and of wrong pseudo-labels."""
    runs = [read_run(folder) for folder in dict.fromkeys(asked.folders)]
    named = zip(titles([run.settings for run in runs]), runs, strict=True)
    kept = {name: read_kept(run.folder, asked.round) for name, run in named}
    draw_weights(figure, kept, _where(asked, _methods(asked.folders)))


def _wrong(figure: Figure, asked: argparse.Namespace, bars: Bars) -> None:
    """Images of wrong pseudo-labels."""
    kept = {each.epoch: each for each in read_kept(asked.folders[0], asked.round)}
    epoch = max(kept) if asked.epoch is None else asked.epoch
    if epoch not in kept:
        raise ValueError(f"--epoch: {', '.join(map(str, kept))} were kept, got {epoch}")
    scene = opened(asked.folders[0], asked.device, bars)
    title = f"{_where(asked, _methods(asked.folders))}: wrong pseudo-labels after epoch {epoch}"
    draw_wrong(figure, scene.pool.inputs, kept[epoch], scene.data.class_names, title)


def _methods(folders: Sequence[Path]) -> tuple[Method, ...]:
    """The runs in these folders by trainer.

    Raises:
        ValueError: runs on several data sets.
    """
    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    if len(named := sorted({run.dataset for run in runs})) > 1:
        raise ValueError(f"trainers to be compared must be on one data set, got {', '.join(named)}")
    return by_trainer(runs)


def _watched(methods: Sequence[Method], number: int | None) -> dict[Method, list[Epochs]]:
    """The epochs of each run."""
    return {each: [read_epochs(run.folder, number) for run in each.runs] for each in methods}


def _final_error(method: Method, number: int | None) -> float:
    """Mean test error (%) of a round, of the last one by default.

    Raises:
        ValueError: a run without this round.
    """
    errors = []
    for run in method.runs:
        rounds = run.columns["round"].astype(int).tolist()
        if number is not None and number not in rounds:
            raise ValueError(f"--round: {run.folder} holds no round {number}")
        place = -1 if number is None else rounds.index(number)
        errors.append(100 * (1 - float(run.columns["accuracy"][place])))
    return sum(errors) / len(errors)


def _where(asked: argparse.Namespace, methods: Sequence[Method]) -> str:
    """Data set, labels and round in words."""
    runs = [run for method in methods for run in method.runs]
    counts = set()
    for run in runs:
        rounds = run.columns["round"].astype(int).tolist()
        place = rounds.index(asked.round) if asked.round in rounds else -1
        counts.add(int(run.columns["labeled"][place]))
    labels = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    return f"{runs[0].dataset}, {labels} labels"


FITS = {"epochs": _epochs, "pseudo": _pseudo, "weights": _weights, "wrong": _wrong}
