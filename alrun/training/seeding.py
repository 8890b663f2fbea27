"""Torch's chance, seeded in one place."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(rng: np.random.Generator, device: torch.device) -> Iterator[None]:
    """Torch draws from `rng` inside; its global state is as before afterwards.

    On a GPU convolutions are chosen for repeatability, not for speed.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        torch.manual_seed(int(rng.integers(2**62)))
        yield
