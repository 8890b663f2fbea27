"""Kernels that numba compiles once and keeps on disk, and how their rows are shared among threads.

Each kernel has a plain NumPy, torch or POT path beside it that gives the same results, several times slower.
The plain paths are taken where numba cannot be imported, or is told not to compile by its own switch
NUMBA_DISABLE_JIT=1; `COMPILED` says which, and so does a run's environment.json.
"""

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

try:
    import numba
    from numba.core import config, event
except ImportError:  # no wheel for this Python or platform
    numba = config = event = None

COMPILED = config is not None and not config.DISABLE_JIT  # pyright: ignore[reportAttributeAccessIssue]


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled for its argument types on the first call, kept on disk, free of the GIL.

    Floating-point operations stay in the order written (no fastmath, no fused multiply-add), so that the
    plain path can give the same bits. A kernel is serial; `threads` shares its rows out.
    """
    return _compile(function, fastmath=False)


def loose_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel`, but sums may be reordered and fused: for filters and bounds that allow for rounding."""
    return _compile(function, fastmath=True)


@contextmanager
def threads() -> Iterator[Callable[[Callable[[int, int], Any], int], None]]:
    """`share(work, n)` calls work(start, stop) for parts of 0..n at once, in as many threads as torch has."""
    count = torch.get_num_threads()
    with ThreadPoolExecutor(count) as pool:

        def share(work: Callable[[int, int], Any], n: int) -> None:
            cuts = [n * i // count for i in range(count + 1)]
            if count == 1:
                work(0, n)
            else:
                list(pool.map(lambda part: work(*part), pairwise(cuts)))

        yield share


@contextmanager
def compiling() -> Iterator[Callable[[], float]]:
    """A function that tells the seconds spent on compiling kernels inside, loading them aside."""
    if event is None:
        yield lambda: 0.0
        return
    with event.install_timer("numba:compile", lambda _: None) as timer:
        yield lambda: timer.duration if timer.done else 0.0


@contextmanager
def whole_float32() -> Iterator[None]:
    """Products in float32 proper: with fewer digits (a GPU's TF32) no bound on their rounding would hold."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def described() -> str:
    """What computes the hot loops: numba's version, or that the plain paths do."""
    if numba is None:
        return "plain (numba cannot be imported)"
    return f"numba {numba.__version__}" if COMPILED else "plain (NUMBA_DISABLE_JIT is set)"


def _compile(function: Callable[..., Any], fastmath: bool) -> Callable[..., Any]:
    if numba is None or not COMPILED:
        return function
    # Type checkers wrap functions in tests; numba compiles the function itself.
    own = inspect.unwrap(function)
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=fastmath)(own)
