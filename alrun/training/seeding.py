"""Torch's chance, seeded in one place."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def seeded(rng: np.random.Generator, device: torch.device) -> Iterator[None]:
    """Torch draws from `rng` inside, on the CPU and on `device`; all global state is as before afterwards.

    On a GPU convolutions and attention are chosen for repeatability, not for speed; other GPUs' chance is not
    touched.
    """
    word = int(rng.integers(2**62))
    before = cudnn.deterministic, cudnn.benchmark
    with torch.random.fork_rng([device] if device.type == "cuda" else []), repeatable_attention(device):
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


def precision(device: torch.device, mixed: bool) -> AbstractContextManager[object]:
    """Inside, a GPU computes in bfloat16 where that is enough, if `mixed`; other devices as always."""
    return torch.autocast("cuda", torch.bfloat16) if mixed and device.type == "cuda" else nullcontext()


def repeatable_attention(device: torch.device) -> AbstractContextManager[object]:
    """The plain kernel: gradients of the others add in an order that differs from run to run."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()
