"""Label propagation: the rows about whose propagated labels least is certain."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt

from alrun.graph.certainty import certainties
from alrun.graph.kernels import cosine_affinity, normalized, without_zeros
from alrun.graph.propagation import Solve, label_matrix, propagate
from alrun.rounds import Batch, Round
from alrun.strategies.uncertainty import largest

# Certainties that are equal in these decimals tie: the solve's float32 says no more.
TIED = 6


@dataclass(frozen=True)
class Propagation:
    """The rows with the largest 1 - omega, where omega is the certainty of labels propagated on the graph.

    Scores are 1 - omega, in [0, 1] over the pool, to six decimals. Rows that no label has reached score 1, as
    rows do between which all classes are equal. The graph holds the whole pool, whoever the candidates are.
    Before the first label nothing is known of any row, so another strategy chooses.

    Attributes:
        gamma: exponent of cosines in the weights of edges.
        alpha, iterations, tolerance: of the solve. At 0.99 a label spreads widely, and few rows are certain.
        y_norm: `class` divides a label by how many its class has, so that purchases are no prior.

    Source: S3 eqs. (9) to (11), of which (11) weighs a loss there; here it chooses.
    """

    gamma: Annotated[float, Gt(0)]
    alpha: Annotated[float, Gt(0), Lt(1)]
    iterations: Annotated[int, Ge(1)]
    tolerance: Annotated[float, Ge(0)]
    y_norm: Literal["none", "class"]
    needs = frozenset({"graph", "graph.cosine", "labels"})

    def select(self, current: Round, size: int) -> Batch:
        """The least certain candidates, least certain first.

        Raises:
            ValueError: the graph's distances are no cosine distances.
        """
        knn = current.life.knn
        if knn is not None and knn.metric != "cosine":
            raise ValueError(
                f"propagation needs a graph with graph.metric=cosine, got {knn.metric}; choose graph=cosine"
            )
        graph, pool = without_zeros(current.graph, current.features), current.pool
        weights = cosine_affinity(graph, self.gamma, signed=False)
        start = label_matrix(pool.labels, pool.classes, by_class=self.y_norm == "class")
        solve = Solve(self.alpha, self.iterations, self.tolerance)
        found = propagate(normalized(weights), start, solve, device=current.life.device)
        omegas, zero = (each.numpy() for each in certainties(torch.from_numpy(found.values)))
        notes = {
            "iterations": found.iterations.max(),
            "unconverged": (found.residuals > self.tolerance).sum(),
            "unreached": zero.sum(),
            "isolated": (np.diff(weights.indptr) == 0).sum(),
        }
        chosen = largest(current.candidates, np.round(1.0 - omegas[current.candidates], TIED), size)
        return Batch(chosen.rows, chosen.scores, {name: float(value) for name, value in notes.items()})
