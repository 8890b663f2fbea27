"""Torch's chance, seeded in one place."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.backends import cudnn


@contextmanager
def seeded(rng: np.random.Generator, device: torch.device) -> Iterator[None]:
    """Torch draws from `rng` inside, on the CPU and on `device`; all global state is as before afterwards.

    On a GPU convolutions are chosen for repeatability, not for speed; other GPUs' chance is not touched.
    """
    word = int(rng.integers(2**62))
    before = cudnn.deterministic, cudnn.benchmark
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(word)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(word)
        # not cudnn.flags(): its defaults would turn cuDNN off inside
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before
