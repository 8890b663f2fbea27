"""What a round costs."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from alrun.compiled import compiling


class Clock:
    """Wall seconds by part; a nested part's seconds are taken out of the part around it.

    So is compiling kernels, which happens once on a machine: it is charged to `compile`.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {"compile": 0.0}
        self._device = device
        self._open: list[str] = []
        self._since = 0.0
        self._compiled: Callable[[], float] = lambda: 0.0
        self._counted = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charges what happens inside to `name`; on a GPU the device is waited for at both ends."""
        with ExitStack() as stack:
            if not self._open:
                self._compiled, self._counted = stack.enter_context(compiling()), 0.0
            self._charge()
            self._open.append(name)
            self.seconds.setdefault(name, 0.0)
            try:
                yield
            finally:
                self._charge()
                self._open.pop()

    def _charge(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._open:
            compiled = self._compiled()
            self.seconds["compile"] += compiled - self._counted
            self.seconds[self._open[-1]] += now - self._since - (compiled - self._counted)
            self._counted = compiled
        self._since = now
