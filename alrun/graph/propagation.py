"""Label propagation: labels spread over a symmetric graph until they settle."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from alrun.graph.diffusion import CACHED_BYTES
from alrun.graph.walk import Walk
from alrun.pool import NOT_BOUGHT


@dataclass(frozen=True, eq=False)
class Propagated:
    """Z, and how each class's solve ended.

    Attributes:
        iterations: products with S a column took; 0 for a class without labels.
        residuals: ||Y_c - (I - alpha S) Z_c|| / ||Y_c|| as the iteration carries it; 0 for an empty class.
        converged: whether all residuals came below the tolerance.
    """

    values: Float[ndarray, "n c"]
    iterations: Int64[ndarray, " c"]
    residuals: Float64[ndarray, " c"]
    converged: bool


@dataclass(frozen=True)
class Solve:
    """Settings of the solve: alpha in (0, 1), at most how many iterations, and the relative residual."""

    alpha: float
    iterations: int
    tolerance: float

    def __post_init__(self) -> None:
        """Refuses what has no solution.

        Raises:
            ValueError: alpha outside (0, 1), fewer than one iteration, a tolerance below 0.
        """
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {self.alpha}; the paper's is 0.99")
        if self.iterations < 1 or self.tolerance < 0:
            raise ValueError(
                f"iterations must be at least 1 and tolerance at least 0, got {self.iterations} and "
                f"{self.tolerance}"
            )


def label_matrix(labels: Int64[ndarray, " n"], classes: int, *, by_class: bool) -> Float32[ndarray, "n c"]:
    """Y of (5): one-hot where a label was bought, else zero; by class, columns that have labels sum to one.

    Source: S3 eq. (5); by class as in the reference code (ALGORITHMS 4.3, item 1).
    """
    start = np.zeros((len(labels), classes), np.float32)
    bought = np.flatnonzero(labels != NOT_BOUGHT)
    counts = np.bincount(labels[bought], minlength=classes)
    start[bought, labels[bought]] = 1 / counts[labels[bought]] if by_class else 1.0
    return start


def propagate(
    similarity: csr_array,
    labels: Float[ndarray, "n c"],
    solve: Solve,
    start: Float[ndarray, "n c"] | None = None,
    device: torch.device | None = None,
) -> Propagated:
    """Z with (I - alpha S) Z = Y, by conjugate gradients for all columns at once, each with its own steps.

    S is symmetric with eigenvalues in [-1, 1] (`kernels.similarity`), so that the system is positive
    definite. A column that has converged leaves the block; a zero column of Y stays zero. Negative weights
    may make the system indefinite: a column that meets this stops where it is. `start` is a first guess of
    the same type. Solved in the type of Y: in float32 relative errors are near 1e-6. Truncated solves may
    hold small negative numbers.

    Raises:
        ValueError: labels that are no finite numbers, or of another length than S.
    Source: S3 eq. (10) (ALGORITHMS 4.1). Departs: one product with S serves all classes.
    """
    n = len(similarity.indptr) - 1
    if len(labels) != n or not np.isfinite(labels).all():
        raise ValueError(
            f"labels must be finite, one row for each of the graph's {n}, got shape "
            f"{labels.shape}{'' if np.isfinite(labels).all() else ' with NaN or inf'}"
        )
    device = device or torch.device("cpu")
    own = torch.from_numpy(labels)
    walk = Walk(similarity, own.dtype, device, ordered=labels.nbytes > CACHED_BYTES)
    order = slice(None) if walk.row_of is None else walk.row_of
    found = np.empty_like(labels)
    block = _Block(walk, own[order].to(device), solve)
    values = block.run(None if start is None else torch.from_numpy(start[order]).to(device))
    found[order] = values.cpu().numpy()
    converged = bool((block.residuals <= solve.tolerance).all())
    return Propagated(found, block.iterations, block.residuals, converged)


class _Block:
    """Conjugate gradients on a block of columns that shrinks as they converge."""

    def __init__(self, walk: Walk, labels: Float[Tensor, "n c"], solve: Solve) -> None:
        self.walk, self.labels, self.solve = walk, labels, solve
        self.iterations = np.zeros(labels.shape[1], np.int64)
        self.stuck = np.zeros(labels.shape[1], bool)
        self.residuals = np.zeros(labels.shape[1])
        self.sizes = np.sqrt(_squares(labels))

    def run(self, start: Float[Tensor, "n c"] | None) -> Float[Tensor, "n c"]:
        """Z, with `iterations` and `residuals` filled in."""
        found = torch.zeros_like(self.labels) if start is None else start.clone()
        found[:, torch.from_numpy(self.sizes == 0).to(found.device)] = 0.0
        active = np.flatnonzero(self.sizes > 0)
        x, y = _columns(found, active), _columns(self.labels, active)
        r = y.clone() if start is None else y - self._times(x)
        p, squares = r.clone(), _squares(r)
        for _ in range(self.solve.iterations):
            self.residuals[active] = np.sqrt(squares) / self.sizes[active]
            going = (self.residuals[active] > self.solve.tolerance) & ~self.stuck[active]
            if not going.all():
                found[:, torch.from_numpy(active).to(found.device)] = x
                active, kept, squares = active[going], np.flatnonzero(going), squares[going]
                x, r, p = (_columns(each, kept) for each in (x, r, p))
            if not len(active):
                break
            q = self._times(p)
            steps = _on(self._lengths(squares, _products(p, q), active), p)
            x.addcmul_(p, steps)
            r.addcmul_(q, -steps)
            before, squares = squares, _squares(r)
            p = torch.addcmul(r, p, _on(squares / before, p))
            self.iterations[active] += 1
        found[:, torch.from_numpy(active).to(found.device)] = x
        self.residuals[active] = np.sqrt(squares) / self.sizes[active]
        return found

    def _lengths(
        self, squares: Float64[ndarray, " b"], bends: Float64[ndarray, " b"], active: Int64[ndarray, " b"]
    ) -> Float64[ndarray, " b"]:
        """How far to go along p: |r|^2 / p.Ap, and no step in columns where A is found not to be definite.

        There p.Ap >= (1 - alpha) |p|^2 >= (1 - alpha) |r|^2 does not hold, by more than rounding explains.
        """
        definite = bends > 0.01 * (1 - self.solve.alpha) * squares
        self.stuck[active[~definite]] = True
        return np.divide(squares, bends, out=np.zeros_like(squares), where=definite)

    def _times(self, x: Float[Tensor, "n b"]) -> Float[Tensor, "n b"]:
        """(I - alpha S) x."""
        return torch.sub(x, self.walk.step(x), alpha=self.solve.alpha)


def _columns(block: Tensor, columns: ndarray) -> Tensor:
    own = torch.from_numpy(columns).to(block.device)
    return block.index_select(1, own) if len(columns) < block.shape[1] else block.clone()


def _squares(block: Tensor) -> Float64[ndarray, " c"]:
    return _products(block, block)


def _products(a: Tensor, b: Tensor) -> Float64[ndarray, " c"]:
    """Inner products of columns, float32 sums."""
    return (a * b).sum(dim=0).double().cpu().numpy()


def _on(factors: Float64[ndarray, " c"], block: Tensor) -> Tensor:
    return torch.from_numpy(factors).to(block.device, block.dtype)
