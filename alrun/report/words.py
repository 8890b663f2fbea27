"""What the verbs that read many runs are told on the command line."""

import argparse
from pathlib import Path


def parser_of_runs(verb: str, about: str, into: str) -> argparse.ArgumentParser:
    """A parser of `folders`, and of `output`, by default the folder `into` in the first of them."""
    parser = argparse.ArgumentParser(
        f"alrun {verb}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="folder",
        help="a run folder, or one above run folders (outputs/mnist)",
    )
    parser.add_argument(
        "--output", type=Path, default=None, help=f"where files go (default: {into}/ in the first folder)"
    )
    return parser
