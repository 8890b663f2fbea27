"""Linear lower bounds on what selections cost: what the master program knows of the transport."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from alrun.transport.c_transform import c_transform
from alrun.transport.distances import Metric
from alrun.wasserstein.ascent import Proof, Task
from alrun.wasserstein.descent import Choice
from alrun.wasserstein.lift import lifted
from alrun.wasserstein.over import Watch

STRETCHES = (0.5, 1.0, 2.0)  # the s of (7r)


@dataclass(frozen=True, eq=False)
class Cut:
    """Every selection of a task costs at least `constant` and its columns' coefficients.

    Rows that are none of the task's columns may have any.
    Source: ALGORITHMS 3.3, where each kind is proven.
    """

    kind: str
    constant: float
    coefficients: Float64[ndarray, " n"]

    def at(self, rows: Int64[ndarray, " b"]) -> float:
        """What this selection costs at least."""
        return self.constant + float(self.coefficients[rows].sum())


def benders(task: Task, found: Choice, watch: Watch) -> Cut:
    """(B): a selection's transport duals, c-transformed to all of the task's columns; tight at the selection.

    Source: S2 (5), corrected: with the constant term.
    """
    points, columns = torch.from_numpy(task.ground.points), task.columns
    values = np.zeros(len(points))
    values[columns] = c_transform(points, found.plan.row_duals, task.ground.metric, watch, columns)
    return _dual_cut("benders", task, found, values)


def capacitated(task: Task, found: Choice, watch: Watch) -> Cut:
    """(B+): as (B), where a row fills a column by its own mass at most; nowhere below (B), and as tight."""
    return _dual_cut("capacitated", task, found, _filled(task, found.plan.row_duals, watch))


def _dual_cut(kind: str, task: Task, found: Choice, values: Float64[ndarray, " n"]) -> Cut:
    # For its own columns the plan's duals are exact, where `lifted` may have rounded them down.
    values[found.rows] = np.maximum(values[found.rows], found.plan.column_duals)
    return Cut(kind, float(found.plan.row_duals.mean()), values / task.size)


def proven(task: Task, found: Proof) -> Cut:
    """The cut of a Lagrangian bound's prices, a (B+) that is tight nowhere by design."""
    values = np.zeros(len(task.ground))
    values[task.columns] = found.values[task.columns]
    return Cut("lagrangian", float(found.prices.mean()), values / task.size)


def filling(task: Task, watch: Watch) -> Cut:
    """(6*): what filling each column costs by itself; (B+) at prices of zero."""
    return Cut("filling", 0.0, _filled(task, np.zeros(len(task.ground)), watch) / task.size)


def _filled(task: Task, prices: Float64[ndarray, " n"], watch: Watch) -> Float64[ndarray, " n"]:
    """`lifted` values of the task's columns, zero for other rows."""
    values = np.zeros(len(task.ground))
    values[task.columns], _ = lifted(task.ground, prices, task.size, task.columns, watch=watch)
    return values


def nearest(task: Task, watch: Watch) -> Cut:
    """(6'): mass that does not stay at a column, or at its duplicates, comes from the nearest other row.

    Source: S2 (6). Departs: the coefficient quoted there, 1 / B, is no bound (all distances equal to 1 cost
    1 - B / N); max(0, 1 / B - z / N) is, with z rows at distance zero.
    """
    ground, n = task.ground, len(task.ground)
    _, twins, counts = np.unique(ground.points, axis=0, return_inverse=True, return_counts=True)
    twins = twins.reshape(-1)
    least = np.zeros(n)
    for part in ground.tiles(task.columns):
        watch()
        tile = ground.floor(part)
        tile[twins[part][:, None] == twins] = np.inf
        least[part] = tile.min(axis=1)
    least[np.isinf(least)] = 0
    stays = counts[twins] / n
    return Cut("nearest", 0.0, np.maximum(0, 1 / task.size - stays) * least)


def triangle(task: Task, found: Choice) -> list[Cut]:
    """(7), or (7r) where the metric is a squared one: who is far from a good selection is far from the pool.

    Source: S2 (7). Departs: cosine distances break the triangle inequality; (7r) with s = 0.5, 1, 2 for them.
    """
    gaps = found.costs.min(axis=1) / task.size
    if task.ground.metric == "euclidean":
        return [Cut("triangle", -found.cost, gaps)]
    return [Cut("triangle", -found.cost / s, gaps / (1 + s)) for s in STRETCHES]


def dual_inequality(task: Task, found: Choice) -> Cut:
    """(8) in the second reading of its lost formula: new columns cost what they may save at the most.

    Raises:
        ValueError: the metric is none, and the inequality false.
    Source: S2 (8); ALGORITHMS 3.3, R2, where (B) of the same selection is shown to imply it.
    """
    check_dual(task.ground.metric)
    saved = found.costs.max(axis=1) / task.size
    saved[found.rows] = 0
    return Cut("dual", found.cost, -saved)


def check_dual(metric: Metric) -> None:
    """Refuses the dual inequality where it does not hold.

    Raises:
        ValueError: cosine distances.
    """
    if metric != "euclidean":
        raise ValueError(
            f"dual: holds for metrics only, got strategy.metric={metric}; use strategy.metric=euclidean "
            "or strategy.dual=false"
        )
