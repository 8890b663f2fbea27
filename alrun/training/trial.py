"""What a step of a long fit costs, from a few steps that are thrown away."""

import time
from collections.abc import Callable

TRIED = 2  # steps
LONG = 3.0  # seconds; after a step that took more, only one further is tried


def seconds_a_step(fit: Callable[[int], object]) -> float:
    """Seconds of a step, given what fits for so many steps."""
    fit(1)  # not timed: it bears what is done once in a process
    first = _seconds(fit, 1)
    further = 1 if first > LONG else TRIED
    # the difference is free of what does not grow with the steps
    return max(0.0, _seconds(fit, 1 + further) - first) / further


def _seconds(fit: Callable[[int], object], steps: int) -> float:
    began = time.perf_counter()
    fit(steps)
    return time.perf_counter() - began
