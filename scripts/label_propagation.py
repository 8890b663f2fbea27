"""Label propagation seen in the plane (S3, figure 3), and what it costs.

    python scripts/label_propagation.py --toy propagation.png
    python scripts/label_propagation.py --bench

The toy has 300 points on three spiral arms and 1, 3 or 10 labels an arm. Descriptors are compared by their
cosine, which in the plane would see angles only; these are random Fourier features, whose cosine is about
exp(-|x - y|^2 / 2 w^2). Above, the graph and the labels (triangles); below, the pseudo-labels: size and
opacity are the weight omega, and wrong ones have a black edge.

The benchmark prints CPU seconds of one thread: the parts of an epoch's pseudo-labels for 50,000 rows, and the
solve for all classes at once against SciPy's conjugate gradients class by class.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benches.measure import mixture
from jaxtyping import Float32, Int64
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.lines import Line2D
from numpy import ndarray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import cg

from alrun.files import save_figure
from alrun.graph.certainty import certainties, class_weights
from alrun.graph.kernels import cosine_affinity, normalized
from alrun.graph.knn import Graph, Knn
from alrun.graph.propagation import Solve, label_matrix, propagate
from alrun.graph.pseudo_labels import STEPS, Pseudo, PseudoLabels
from alrun.graph.replicator import replicate
from alrun.report.looks import QUIET, grid, titled

CPU = torch.device("cpu")
COLORS = ("#0072b2", "#d55e00", "#009e73")
ARM = 100  # points an arm
WIDTH = 0.2  # of the toy's kernel, in units of the picture, whose arms are 0.35 apart
PAPER = Solve(0.99, 20, 1e-6)


def main() -> None:
    """Draws, measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", type=Path, help="where the picture goes")
    parser.add_argument("--bench", action="store_true", help="measure")
    parser.add_argument("--rows", type=int, default=50_000, help="of the benchmark")
    asked = parser.parse_args()
    if asked.toy:
        draw_toy(asked.toy)
    if asked.bench:
        bench(asked.rows)


def spirals(rng: np.random.Generator) -> tuple[Float32[ndarray, "300 2"], Int64[ndarray, " 300"]]:
    """Points on three arms, and the arm of each."""
    arms = np.repeat(np.arange(3), ARM)
    along = np.tile(np.linspace(0.25, 1.0, ARM), 3)
    turn = 2 * np.pi * (arms / 3 + 0.9 * along)
    points = along[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return (points + 0.06 * rng.normal(size=points.shape)).astype(np.float32), arms


def descriptors(points: Float32[ndarray, "n 2"], rng: np.random.Generator) -> Float32[ndarray, "n d"]:
    """Random Fourier features (Rahimi and Recht 2007)."""
    angles = points @ rng.normal(size=(2, 2048)) / WIDTH
    return np.hstack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def draw_toy(path: Path) -> None:
    """Two panels for each number of labels."""
    rng = np.random.default_rng(0)
    points, arms = spirals(rng)
    features = descriptors(points, rng)
    graph = Knn(8, "cosine", "none", "exact", 0.99).build(features)
    order = np.concatenate([rng.permutation(ARM) + ARM * arm for arm in range(3)]).reshape(3, ARM)
    settings = PseudoLabels(
        **{"k": 8, "gamma": 3.0, "min_recall": 0.99, "alpha": 0.99, "iterations": 20, "tolerance": 1e-6},
        **{"certainty_weights": True, "class_weights": True, "variant": "paper", "y_norm": "none"},
        kind="diffusion",
    )
    figure, axes = grid(6, height=4.4)
    for column, count in enumerate((1, 3, 10)):
        bought = order[:, :count].ravel()
        labels = np.full(len(points), -1)
        labels[bought] = arms[bought]
        found = settings.of(features, labels, 3, lambda rows: np.zeros((len(rows), 3), np.float32), CPU)
        draw_labels(axes[column], points, graph, labels)
        draw_pseudo_labels(axes[3 + column], points, labels, found, arms)
        right = (found.labels == arms)[labels < 0]
        weighted = np.average(right, weights=found.weights[labels < 0] + 1e-12)
        titled(axes[column], f"{count} {'label' if count == 1 else 'labels'} an arm", "kNN graph and labels")
        told = f"{100 * right.mean():.0f} % right, {100 * weighted:.0f} % by weight"
        unreached = int(found.zero.sum())
        titled(axes[3 + column], "pseudo-labels", told + (f"; {unreached} not reached" if unreached else ""))
    figure.legend(handles=legend(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save_figure(figure, path)
    print(f"figure: {path}")


def draw_labels(axes: Axes, points: ndarray, graph: Graph, labels: ndarray) -> None:
    """The graph, rows without a label in gray, and the labels."""
    ends = np.stack([np.repeat(np.arange(len(points)), graph.k), graph.neighbors.ravel()], axis=1)
    axes.add_collection(LineCollection(list(points[ends]), colors="#c8c8c8", linewidths=0.4, zorder=1))
    axes.scatter(*points[labels < 0].T, s=14, c="#9a9a9a", edgecolors="white", linewidths=0.3, zorder=2)
    draw_triangles(axes, points, labels)


def draw_pseudo_labels(axes: Axes, points: ndarray, labels: ndarray, found: Pseudo, truth: ndarray) -> None:
    """Rows in the color of their pseudo-label, as large and opaque as sure."""
    rows = np.flatnonzero(labels < 0)
    sure = found.weights[rows]
    wrong = found.labels[rows] != truth[rows]
    colors = to_rgba_array(list(np.array(COLORS)[found.labels[rows]]), 0.3 + 0.6 * sure)
    axes.scatter(*points[rows].T, s=6 + 60 * sure, c=colors, edgecolors="none")
    axes.scatter(
        *points[rows[wrong]].T, s=6 + 60 * sure[wrong], facecolors="none", edgecolors="black", linewidths=0.8
    )
    draw_triangles(axes, points, labels)


def draw_triangles(axes: Axes, points: ndarray, labels: ndarray) -> None:
    """The labels that were bought; both panels show the same part of the plane."""
    bought = np.flatnonzero(labels >= 0)
    colors = np.array(COLORS)[labels[bought]]
    axes.scatter(*points[bought].T, marker="^", s=90, c=list(colors), edgecolors="black", lw=0.9, zorder=3)
    axes.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.12, 1.12), ylim=(-1.12, 1.12))
    axes.spines[:].set_visible(False)


def legend() -> list[Line2D]:
    """What triangles, circles, sizes and edges say."""

    def mark(label: str, marker: str, size: float, **others: object) -> Line2D:
        return Line2D([], [], ls="", marker=marker, ms=size, label=label, **others)  # type: ignore[arg-type]

    return [
        mark("label", "^", 8, mfc="white", mec="black"),
        mark("certain pseudo-label", "o", 8, color=QUIET),
        mark("uncertain", "o", 3, color=QUIET, alpha=0.4),
        mark("wrong", "o", 7, mfc="none", mec="black"),
    ]


def bench(n: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    points, truth = mixture(n, 128, np.random.default_rng(0))
    knn = Knn(50, "cosine", "none", "auto", 0.99)
    knn.build(points[:2000])  # compiles
    graph, seconds = timed(lambda: knn.build(points), 1)
    print(f"{n} rows x 128, k=50, CPU seconds of one thread\n")
    print(f"graph (exact up to 100,000 rows)        {seconds:8.3f}")
    weights, seconds = timed(lambda: cosine_affinity(graph, 3.0, signed=False), 3)
    similar, more = timed(lambda: normalized(weights), 3)
    print(f"kernel ({weights.nnz / n:.0f} weights a row)               {seconds + more:8.3f}")
    rows = np.random.default_rng(1).choice(n, 500, replace=False)
    for classes in (10, 100):
        labels = np.full(n, -1)
        labels[rows] = truth[rows] if classes == 10 else np.arange(500) % 100
        contest(similar, labels, classes)
    labels[rows] = truth[rows]
    played, seconds = timed(lambda: replicate(weights, labels, 10, most=STEPS, tolerance=1e-6, device=CPU), 1)
    print(f"\ngame (gtg), 10 classes, {played.steps} steps       {seconds:8.3f}")


def contest(similar: csr_array, labels: Int64[ndarray, " n"], classes: int) -> None:
    """The solve for all classes at once, and SciPy's class by class."""
    n = len(labels)
    start = label_matrix(labels, classes, by_class=False)
    found, seconds = timed(lambda: propagate(similar, start, PAPER), 3)
    (omegas, _), weighing = timed(lambda: certainties(torch.from_numpy(found.values)), 3)
    _, counting = timed(lambda: class_weights(found.values.argmax(axis=1), classes, "classes"), 3)
    system, wide = csr_array(eye_array(n) - PAPER.alpha * similar), start.astype(float)

    def by_scipy() -> ndarray:
        solved = [cg(system, wide[:, c], rtol=1e-6, maxiter=20)[0] for c in range(classes)]
        return np.stack(solved, axis=1)

    theirs, long = timed(by_scipy, 1)
    apart = np.abs(found.values - theirs).max() / np.abs(theirs).max()
    same = (found.values.argmax(axis=1) == theirs.argmax(axis=1)).mean()
    weight = np.abs(omegas.numpy() - certainties(torch.from_numpy(theirs.astype(np.float32)))[0].numpy())
    print(f"\n{classes} classes, {found.iterations.max()} iterations")
    print(f"  solve, all classes at once            {seconds:8.3f}")
    print(f"  SciPy's, class by class               {long:8.3f}   {long / seconds:.1f} times as long")
    print(f"  omega, labels and zeta                {weighing + counting:8.3f}")
    print(f"  largest difference of Z               {apart:8.1e}   of its largest value")
    print(f"  largest difference of omega           {weight.max():8.1e}")
    print(f"  the same pseudo-labels                {100 * same:8.3f} %")


def timed(work: Callable[[], Any], turns: int) -> tuple[Any, float]:
    """What the work gives, and the least of its CPU seconds."""
    least, found = np.inf, work() if turns > 1 else None
    for _ in range(turns):
        begun = time.process_time()
        found = work()
        least = min(least, time.process_time() - begun)
    return found, least


if __name__ == "__main__":
    main()
