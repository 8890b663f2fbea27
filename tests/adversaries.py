"""What tests of trainers with an adversary (VAAL, WAAL) share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_run import Unwatched, rows_of
from torch import nn

from alrun.assembly import assemble
from alrun.pool import Inputs, Pool
from alrun.run import run
from alrun.state import RunFolder, Saved


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def clusters(n: int = 200) -> Pool:
    """Two clusters, of which the first alone has labels."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 4)).astype(np.float32) + np.where(np.arange(n) % 2, 6, -6)[:, None]
    labels = np.where((np.arange(n) % 2 == 0) & (np.arange(n) < n // 2), np.arange(n) // 2 % 2, -1)
    return Pool(Inputs(points.astype(np.float32)), labels, 2)


class Stops(Unwatched):
    """A screen that breaks the run off when a round is whole."""

    def round(self, record):
        if record["round"] == 1:
            raise KeyboardInterrupt


def gone_on(found: dict, folder: Path) -> tuple[Saved, Saved]:
    """A run in one go, and one broken off before its second round was committed.

    There the heads of the first round are restored and choose again.
    """
    whole = run(assemble(found), RunFolder(folder / "whole"), found, Unwatched())
    with pytest.raises(KeyboardInterrupt):
        run(assemble(found), RunFolder(folder / "broken"), found, Stops())
    again = run(assemble(found), RunFolder(folder / "broken"), found, Unwatched())
    assert rows_of(again) == rows_of(whole)
    for one, other in zip(again.records, whole.records, strict=True):
        assert one["accuracy"] == other["accuracy"]
    return whole, again
