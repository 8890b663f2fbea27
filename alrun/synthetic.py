"""The synthetic items that a run bought, in its folder: as they were labeled, and as images to look at.

`synthetic/round-003.npy` holds the items of round 3 as they are stored, in the order of their rows, and is
the truth: a continued run learns from it, and the checkpoint knows its sha256. Where items are images,
`synthetic/round-003/<row>.png` shows each: without loss where they are stored as uint8, else with 256 levels
of [0, 1].
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image

from alrun.config import ConfigError, content_digest
from alrun.files import atomic
from alrun.models.network import is_image
from alrun.purchase import Purchase

HOME = "synthetic"
DAMAGED = (OSError, ValueError, EOFError)


def keep(folder: Path, number: int, purchase: Purchase) -> dict[str, Any]:
    """Writes what a round added to the pool, if anything; what the checkpoint must know of it."""
    items = purchase.items
    if items is None:
        return {}
    file = items_file(folder, number)
    file.parent.mkdir(exist_ok=True)
    first = int(purchase.new[0])
    if images := is_image(items.shape[1:]):
        _draw(file.with_suffix(""), first, items)
    with atomic(file) as part, part.open("wb") as opened:
        np.save(opened, items, allow_pickle=False)
    return {"first": first, "images": images, "sha256": content_digest(file)}


def kept(folder: Path, number: int, mark: Mapping[str, Any]) -> Shaped[ndarray, "m ..."]:
    """The items that a round added; `mark` is what `keep` said of them.

    Raises:
        ConfigError: the file is not there, or is not as it was written.
    """
    file = items_file(folder, number)
    try:
        if content_digest(file) != mark["sha256"]:
            raise ValueError("not as it was written")
        return np.load(file, allow_pickle=False)
    except DAMAGED as error:
        remedy = f"restore it or delete {folder} to begin anew"
        raise ConfigError([f"{file}: cannot be read ({error}); {remedy}"]) from None


def drop_after(folder: Path, number: int) -> None:
    """Deletes what a round after this one left behind that was broken off."""
    for path in [*(folder / HOME).glob("round-*")]:
        if int(path.stem.removeprefix("round-")) > number:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def items_file(folder: Path, number: int) -> Path:
    """Where a run folder holds the items that a round added."""
    return folder / HOME / f"round-{number:03d}.npy"


def selected(number: int, purchase: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of a round's purchase for `selections.csv`, in order of choice.

    Where items were added, `file` names what shows a row's, from the run folder on; where one annotation may
    label several rows, `annotation` is the number of its own in the round.
    """
    columns = {name: purchase[f"{name}s"] for name in ("row", "label", "score")}
    if "annotations" in purchase:
        columns["annotation"] = purchase["annotations"]
    if "synthetic" in purchase:
        columns["file"] = [_shown(number, row, purchase["synthetic"]) for row in purchase["rows"]]
    for rank, values in enumerate(zip(*columns.values(), strict=True)):
        yield {"round": number, "rank": rank, **dict(zip(columns, values, strict=True))}


def _shown(number: int, row: int, mark: Mapping[str, Any]) -> str:
    if row < mark["first"]:
        return ""
    home = items_file(Path(), number)
    return (home.with_suffix("") / f"{row}.png" if mark["images"] else home).as_posix()


def _draw(home: Path, first: int, items: Shaped[ndarray, "m ..."]) -> None:
    """A PNG an item; not synced, for what they show is held elsewhere."""
    home.mkdir(exist_ok=True)
    levels = items
    if items.dtype != np.uint8:
        levels = np.rint(np.clip(items, 0, 1) * 255).astype(np.uint8)
    if levels.ndim == 4:
        levels = levels[:, 0] if levels.shape[1] == 1 else np.moveaxis(levels, 1, -1)
    for row, each in enumerate(levels, first):
        Image.fromarray(np.ascontiguousarray(each)).save(home / f"{row}.png")
