"""Cost and bound brought together round by round, without a solver."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alrun.wasserstein.ascent import Ascent, Proof, Task, proof
from alrun.wasserstein.coarse import SAMPLE, Sample, guess
from alrun.wasserstein.descent import Choice, choice, improved, rounded, settled
from alrun.wasserstein.medoids import medoids
from alrun.wasserstein.over import Over
from alrun.wasserstein.rules import Rules
from alrun.wasserstein.watching import Progress

STEPS, STEPS_FROM_SAMPLE = 150, 50  # of the ascent in a round; in a large pool they take long
RESTARTS, SWEEPS = 2, 2  # of k-medoids among what was chosen often, in a round
TRIES = 200  # candidates for swaps in a round
LLOYD = 3
LATER_STRIDE = 0.1  # of an ascent that begins at a good guess
PROMISING = 1000  # columns, the cheapest, that swaps are tried with beside those chosen often
SMALL_CHANGE = 1e-3  # of the gap's size; a round that changes less is idle
IDLE_ROUNDS = 3  # at least, and until all candidates were tried


class Refinement:
    """Rounds of ascent, rounding, Lloyd and swaps (ALGORITHMS 3.4), all from both sides of the optimum."""

    def __init__(self, task: Task, rules: Rules, rng: np.random.Generator, search: Progress) -> None:
        self.task, self.rules, self.rng, self.search = task, rules, rng, search
        self.ascent: Ascent | None = None
        self.sample: Sample | None = None
        self.idle, self.late = 0, False
        self.queue = np.empty(0, np.int64)
        self.begun, self.passes = False, 0  # whole passes through all candidates since something changed

    @property
    def goes_on(self) -> bool:
        """Whether there is something to refine by, and the last rounds still changed something."""
        tried = self.passes > 0 or not self.rules.swaps
        return (self.rules.root or self.rules.swaps) and (self.idle < IDLE_ROUNDS or not tried)

    @property
    def proof(self) -> Proof | None:
        """The best bound's prices, once there are some."""
        return None if self.ascent is None or self.ascent.proof.bound == -np.inf else self.ascent.proof

    def round(self) -> float:
        """One round; the cost of the selection that it looked at. In a large pool the first is a sample's."""
        if self.rules.root and self.sample is None and len(self.task.ground) > 2 * SAMPLE:
            return self._begin()
        best, bound = self._stand()
        if self.rules.root:
            self._climb()
        value = self._descend()
        if self.late:
            raise Over
        cost, after = self._stand()
        change = (best - cost) + (after - bound)
        if change > SMALL_CHANGE * (cost - after):
            self.idle = self.passes = 0
        else:
            self.idle += 1
        return value

    def _begin(self) -> float:
        """Refines a sample, early enough that its selection can be priced in the pool."""
        search = self.search
        self.sample = Sample(self.task, self.rng, lambda: search.in_time(search.pricing))
        try:
            self.sample.refine(self.rng, lambda spare=0.0: search.watch(spare + search.pricing))
        finally:
            found = choice(self.task, self.sample.chosen)
            search.offer(found)
        return found.cost

    def _stand(self) -> tuple[float, float]:
        assert self.search.best is not None
        return self.search.best.cost, 0.0 if self.proof is None else self.proof.bound

    def _climb(self) -> None:
        search = self.search
        assert search.best is not None
        if self.ascent is None:
            self.ascent = self._first()
        try:
            steps = STEPS if self.sample is None else STEPS_FROM_SAMPLE
            self.ascent.climb(search.best.cost, steps, search.watch)
        except Over:  # what follows depends on the clock: this round is the last
            self.late = True
        if self.proof is not None:
            search.raise_bound(self.proof.bound)

    def _first(self) -> Ascent:
        task, search = self.task, self.search
        assert search.best is not None
        if self.sample is None:
            settled(task, search.best, LLOYD, search.watch, search.offer)  # a target for the ascent
            first = proof(task, np.zeros(len(task.ground)), watch=search.watch)
            search.raise_bound(first.bound)
            return Ascent(task, first)
        guessed, chances = guess(task, self.sample, search.watch)
        near = np.union1d(task.cheapest(guessed.values), np.flatnonzero(chances))
        first = proof(task, guessed.prices, guessed, near, search.watch)
        search.raise_bound(first.bound)
        return Ascent(task, first, chances, search.best.cells, LATER_STRIDE)

    def _descend(self) -> float:
        task, search = self.task, self.search
        assert search.best is not None
        looked_at = search.best.cost
        if self.ascent is not None:
            near = choice(task, rounded(task, self.ascent.chances, search.watch), search.watch)
            search.offer(near)
            looked_at = near.cost
            if self.rules.swaps:
                settled(task, near, LLOYD, search.watch, search.offer)
                self._restart(self.ascent)
        elif self.idle == 0:
            settled(task, search.best, LLOYD, search.watch, search.offer)
        if self.rules.swaps:
            self.swap(search.best)
        return looked_at

    def _restart(self, ascent: Ascent) -> None:
        """Begins anew with k-medoids, among the columns chosen often; leaves what swaps would not."""
        task, search = self.task, self.search
        options = np.intersect1d(ascent.chosen_often(), task.candidates)
        if len(options) <= task.free:
            return
        few = replace(task, candidates=options)
        for _ in range(RESTARTS):
            search.watch()
            found = choice(task, medoids(few, self.rng, SWEEPS, search.in_time), search.watch)
            search.offer(found)
            settled(task, found, LLOYD, search.watch, search.offer)

    def polish(self, found: Choice) -> None:
        """Improves the master's selection, and the best one further where that is another."""
        found = settled(self.task, found, LLOYD, self.search.watch, self.search.offer)
        self.swap(found)
        assert self.search.best is not None
        if self.search.best.cost < found.cost:
            self.swap(self.search.best)

    def swap(self, found: Choice) -> None:
        """Tries the next of the candidates that may be in a good selection."""
        if len(self.queue) == 0:
            self.queue = self.rng.permutation(self._options())
            self.passes += int(self.begun)
            self.begun = True
        options, self.queue = self.queue[:TRIES], self.queue[TRIES:]
        improved(self.task, found, options, self.search.watch, self.search.offer)

    def _options(self) -> Int64[ndarray, " m"]:
        """What was chosen often, and the cheapest others; all candidates where nothing is known."""
        candidates = self.task.candidates
        if self.ascent is None:
            return candidates
        values = self.ascent.proof.values[candidates]
        cheap = candidates[np.lexsort((candidates, values))[:PROMISING]]
        return np.union1d(np.intersect1d(self.ascent.chosen_often(), candidates), cheap)
