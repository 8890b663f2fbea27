"""ProbCover: balls of one radius that cover as much of the pool as possible."""

import logging
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from alrun.coverage.ball_cover import Balls, Cover, ball_cover, pure_radius
from alrun.coverage.clusters import k_means
from alrun.coverage.k_center import k_center
from alrun.graph.knn import unit_rows
from alrun.rounds import Batch, Round

MANY = 100_000  # rows; more than that take minutes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probcover:
    """The candidate whose ball covers the most rows that no labeled or chosen row covers yet, one by one.

    All rows of the pool count as covered or not, whoever the candidates are. Once no ball covers a row more,
    the rest is chosen by greedy k-center: the rows farthest from all labeled and chosen ones.

    Attributes:
        delta: radius of the balls, in units of the features; None is the largest radius at which `purity` of
            the balls are pure in k-means clusters, as many as classes. It needs no label: with features that
            are fixed it is found once in a run.
        purity: share of pure balls, where delta is None.
        unit: whether features are divided by their norms first.

    Scores are rows newly covered. Source: Yehuda et al. 2022. Departs: see `ball_cover` and `pure_radius`;
    the authors' code goes on choosing its first row when all is covered.
    """

    delta: Annotated[float, Ge(0)] | None
    purity: Annotated[float, Gt(0), Le(1)]
    unit: bool
    needs = frozenset({"features"})

    def select(self, current: Round, size: int) -> Batch:
        """The largest gains first."""
        balls, cover = self._cover(current)
        rows, gained, cover = ball_cover(balls, cover, current.candidates, size)
        centers, others = np.union1d(current.pool.labeled, rows), np.setdiff1d(current.candidates, rows)
        farthest, _ = k_center(balls.space.points, centers, others, size - len(rows))
        scores = np.append(gained, np.zeros(len(farthest)))
        notes = {"delta": balls.radius, "covered": cover.covered.mean(), "farthest": len(farthest)}
        return Batch(np.append(rows, farthest), scores, {name: float(value) for name, value in notes.items()})

    def _cover(self, current: Round) -> tuple[Balls, Cover]:
        """Balls, and what those of labeled rows cover; with fixed features kept from round to round."""
        if not current.life.fixed:
            balls, nothing = self._start(current, current.rng)
            return balls, balls.covering(nothing, current.pool.labeled)
        radius = f"purity_{self.purity}" if self.delta is None else f"delta_{self.delta}"
        name = f"probcover_{radius}{'_unit' if self.unit else ''}"
        balls, nothing = current.once(name, lambda rng: self._start(current, rng))
        return balls, current.kept(name, lambda: nothing, balls.covering)

    def _start(self, current: Round, rng: np.random.Generator) -> tuple[Balls, Cover]:
        points, radius = unit_rows(current.features) if self.unit else current.features, self.delta
        if len(points) > MANY:
            times = 1 if radius is not None else 2
            log.warning(
                "probcover compares all %d rows with each other before it chooses, %.2g multiplications%s; "
                "a dataset.pool_size of half as many takes a quarter of that",
                *(len(points), times * len(points) ** 2 * points.shape[1]),
                "" if times == 1 else " (strategy.delta=<radius> needs half of them)",
            )
        if radius is None:
            radius = pure_radius(points, k_means(points, current.pool.classes, rng), self.purity)
        balls = Balls.of(points, radius)
        return balls, balls.nothing_covered()
