"""`alrun picture`: what runs bought, in a space of features or as images; what their fits went through."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from alrun.screen import Bars

ABOUT = """What runs bought:

selection  the pool in the plane, colored by true class, with the rows that a run bought early and late
rounds     the first purchases of several runs side by side, in one map of the pool
images     the bought images, a line a round, with the classes covered so far

What fits went through, of trainers that show their epochs (label_propagation, mean_teacher, ...):

epochs     test error over epochs, and where the semi-supervised stage begins
pseudo     accuracy of the pseudo-labels over epochs, and weights of right and wrong ones
weights    histograms of the weights of right and wrong pseudo-labels, early and late
wrong      images of the wrong pseudo-labels with the largest weights

Runs that share one of the first three pictures must share their pool. A space is pixels, or another choice
of the group featurizer (pca, vae, ...; with the data set's preset), a run folder (its features), or a .npy
file of one vector a pool row. For a selection it may also be penultimate (inputs of the last layer of the
run's last model), features (the run's featurizer) or full (penultimate, trained on all labels of the pool).
"""
PROJECTIONS = {"tsne": "t-SNE", "pca": "principal components"}
BAD_INPUT = 2


def picture(words: list[str]) -> int:
    """Draws the picture and says where it is; 2 for bad input, in one clear line."""
    asked = _parser().parse_args(words)
    asked.kind = asked.kind or ("selection" if len(asked.folders) == 1 else "rounds")
    try:
        print(_drawn(asked))  # noqa: T201
    except (ValueError, OSError) as error:
        print(f"alrun picture: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "alrun picture", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="a run folder")
    parser.add_argument(
        "--kind", choices=KINDS, default=None, help="see above (default selection; of several runs, rounds)"
    )
    parser.add_argument(
        "--space",
        default=None,
        help="see above (default penultimate; for rounds the space that the runs select in)",
    )
    parser.add_argument("--projection", choices=PROJECTIONS, default="tsne", help="default tsne")
    parser.add_argument(
        "--points", type=int, default=4000, help="pool rows to draw; bought ones always are (default 4000)"
    )
    parser.add_argument(
        "--purchases",
        type=int,
        default=None,
        help="how many of each run's first purchases to show (default 2; as images 10)",
    )
    parser.add_argument(
        "--round",
        type=int,
        default=None,
        help="whose fit, of epochs, pseudo, weights, wrong (default the last)",
    )
    parser.add_argument(
        "--epoch", type=int, default=None, help="of wrong: one that was kept (default the last)"
    )
    parser.add_argument("--device", default="auto", help="where networks run: auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help=".png or .pdf (default figures/<kind>[-<space>].png of the first run)",
    )
    return parser


def _drawn(asked: argparse.Namespace) -> Path:
    """Draws the picture that was asked for; its file."""
    from matplotlib.figure import Figure
    from rich.console import Console

    from alrun.files import save_figure
    from alrun.screen import Bars

    if asked.output is not None and asked.output.suffix not in (".png", ".pdf"):
        raise ValueError(f"--output: must end in .png or .pdf, got {asked.output}")
    if asked.points < 2:
        raise ValueError(f"--points: must be at least 2, got {asked.points}")
    if asked.purchases is not None and asked.purchases < 1:
        raise ValueError(f"--purchases: must be at least 1, got {asked.purchases}")
    if asked.kind in OF_ONE and len(asked.folders) > 1:
        raise ValueError(
            f"--kind {asked.kind}: is of one run, got {len(asked.folders)}; choose {OF_ONE[asked.kind]}"
        )
    figure = Figure(layout=None if asked.kind in ("images", "wrong") else "constrained")
    with Bars(Console(stderr=True), "auto") as bars:
        name = KINDS[asked.kind](figure, asked, bars)
    output = asked.output or asked.folders[0] / "figures" / f"{name}.png"
    output.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, output)
    return output


def _selection(figure: "Figure", asked: argparse.Namespace, bars: "Bars") -> str:
    """Where one run bought early and late; the picture's name."""
    from alrun.pool import stream
    from alrun.report.selection_picture import Selection, draw_selection, pictured, projected
    from alrun.spaces import opened, points

    space = asked.space or "penultimate"
    scene = opened(asked.folders[0], asked.device, bars)
    bought = (scene.rounds >= 0).nonzero()[0]
    rows, drawn = pictured(len(scene.rounds), bought, asked.points, stream(0, "picture"))
    vectors = points(scene, space, rows)
    labels, rounds = scene.data.labels[rows], scene.rounds[rows]
    selection = Selection(vectors, labels, rounds, drawn, scene.data.class_names)
    where = f"{scene.title}, in the space {Path(space).stem} ({PROJECTIONS[asked.projection]})"
    draw_selection(figure, selection, projected(vectors, asked.projection), where)
    return f"selection-{Path(space).stem}"


def _rounds(figure: "Figure", asked: argparse.Namespace, bars: "Bars") -> str:
    """The first purchases of several runs in one map; the picture's name."""
    import numpy as np

    from alrun.fixed_spaces import chosen_space, word_of
    from alrun.pool import stream
    from alrun.report.rounds_picture import Map, draw_rounds
    from alrun.report.selection_picture import pictured, projected
    from alrun.spaces import fixed_features, together

    most = asked.purchases or 2
    scene, bought = together(asked.folders, asked.device, bars)
    featurizer = chosen_space(asked.space, asked.folders)
    shown = [each.rows[np.isin(each.rounds, each.numbers[:most])] for each in bought.values()]
    rows, _ = pictured(len(scene.data.labels), np.concatenate(shown), asked.points, stream(0, "picture"))
    places = projected(fixed_features(scene, featurizer)[rows], asked.projection)
    ground = Map(rows, places, scene.data.labels[rows], scene.data.class_names)
    where = f"the space {word_of(featurizer)} ({PROJECTIONS[asked.projection]})"
    draw_rounds(figure, ground, bought, most, f"{scene.settings['choices']['dataset']}, in {where}")
    return f"rounds-{word_of(featurizer)}"


def _images(figure: "Figure", asked: argparse.Namespace, bars: "Bars") -> str:
    """The images that runs bought; the picture's name."""
    from alrun.report.image_grid import draw_images
    from alrun.spaces import together

    scene, bought = together(asked.folders, asked.device, bars)
    draw_images(figure, scene.pool.inputs, scene.data.class_names, bought, asked.purchases or 10)
    return "images"


def _of_fits(figure: "Figure", asked: argparse.Namespace, bars: "Bars") -> str:
    """What fits went through; the picture's name."""
    from alrun.fit_pictures import FITS

    FITS[asked.kind](figure, asked, bars)
    return str(asked.kind)


FITS = ("epochs", "pseudo", "weights", "wrong")
KINDS = {"selection": _selection, "rounds": _rounds, "images": _images, **dict.fromkeys(FITS, _of_fits)}
OF_ONE = {"selection": "rounds or images", "wrong": "weights"}
