"""What a step of a long fit costs, from a few steps that are thrown away."""

import time
from collections.abc import Callable

TRIED = 2  # steps
LONG = 3.0  # seconds; no more is tried after a step that took more


def seconds_a_step(fit: Callable[[int], object]) -> float:
    """Seconds of a step, given what fits for so many steps."""
    began = time.perf_counter()
    fit(1)
    first = time.perf_counter() - began
    if first > LONG:
        return first
    began = time.perf_counter()
    fit(1 + TRIED)
    # the difference is free of what does not grow with the steps
    return max(0.0, time.perf_counter() - began - first) / TRIED
