"""`alrun picture`: where the rows that a run bought lie in a space of features."""

import argparse
import sys
from pathlib import Path

ABOUT = """The pool in the plane, colored by true class, with the rows that a run bought early and late.

The space is a .npy file of one vector a pool row, or one of: pixels; penultimate (inputs of the last layer of
the run's last model); features (the run's featurizer); full (penultimate, trained on all labels of the pool).
"""
PROJECTIONS = {"tsne": "t-SNE", "pca": "principal components"}
BAD_INPUT = 2


def picture(words: list[str]) -> int:
    """Draws the picture and says where it is; 2 for bad input, in one clear line."""
    parser = argparse.ArgumentParser(
        "alrun picture", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a run folder")
    parser.add_argument(
        "--space", default="penultimate", help="file.npy, or a name above (default penultimate)"
    )
    parser.add_argument("--projection", choices=PROJECTIONS, default="tsne", help="default tsne")
    parser.add_argument(
        "--points", type=int, default=4000, help="pool rows drawn, with all bought (default 4000)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help=".png or .pdf (default figures/selection-<space>.png of the run)",
    )
    asked = parser.parse_args(words)
    try:
        print(_drawn(asked))  # noqa: T201
    except (ValueError, OSError) as error:
        print(f"alrun picture: {error}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT
    return 0


def _drawn(asked: argparse.Namespace) -> Path:
    """Draws the picture that was asked for; its file."""
    from matplotlib.figure import Figure
    from rich.console import Console

    from alrun.files import save_figure
    from alrun.pool import stream
    from alrun.report.selection_picture import Selection, draw_selection, pictured, projected
    from alrun.screen import Bars
    from alrun.spaces import opened, points

    space = Path(asked.space).stem
    output = asked.output or asked.folder / "figures" / f"selection-{space}.png"
    if output.suffix not in (".png", ".pdf"):
        raise ValueError(f"--output: must end in .png or .pdf, got {output}")
    if asked.points < 2:
        raise ValueError(f"--points: must be at least 2, got {asked.points}")
    with Bars(Console(stderr=True), "auto") as bars:
        scene = opened(asked.folder, asked.device, bars)
        bought = (scene.rounds >= 0).nonzero()[0]
        rows, drawn = pictured(len(scene.rounds), bought, asked.points, stream(0, "picture"))
        vectors = points(scene, asked.space, rows)
    labels, rounds = scene.data.labels[rows], scene.rounds[rows]
    selection = Selection(vectors, labels, rounds, drawn, scene.data.class_names)
    figure = Figure(layout="constrained")
    where = f"{scene.title}, in the space {space} ({PROJECTIONS[asked.projection]})"
    draw_selection(figure, selection, projected(vectors, asked.projection), where)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, output)
    return output
