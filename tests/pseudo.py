"""Points to be pseudo-labeled, networks to fall back on, and the paper's settings."""

import numpy as np

from alrun.graph.pseudo_labels import PseudoLabels


def settings(**others):
    """The paper's, but for `others`."""
    paper = {
        "kind": "diffusion",
        "k": 50,
        "gamma": 3.0,
        "min_recall": 0.99,
        "alpha": 0.99,
        "iterations": 20,
        "tolerance": 1e-6,
        "certainty_weights": True,
        "class_weights": True,
        "variant": "paper",
        "y_norm": "none",
    }
    return PseudoLabels(**{**paper, **others})


def network(classes, likes=0):
    """A network that gives every row one class, with a probability of 0.6."""

    def predict(rows):
        found = np.full((len(rows), classes), 0.4 / max(1, classes - 1), np.float32)
        found[:, likes] = 0.6
        return found

    return predict


def no_network(rows):
    raise AssertionError(f"asked the network for rows {rows.tolist()}")


def blobs(n=90, classes=3, d=8, seed=0):
    """Rows around orthogonal directions, their classes, and one label a class."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    points = 3 * np.eye(classes, d)[truth] + 0.3 * np.abs(rng.normal(size=(n, d)))
    labels = np.full(n, -1)
    labels[:classes] = truth[:classes]
    return points.astype(np.float32), truth, labels


def islands():
    """Two pairs of equal rows, orthogonal to each other: a label in one never reaches the other."""
    points = np.repeat(np.eye(2, dtype=np.float32), 2, axis=0)
    return points, np.array([1, -1, -1, -1])


def spread_by_definition(points, labels, k):
    """(I - 0.99 S)^-1 Y in float64, by all cosines: labels are -1 where a row has none."""
    n = len(points)
    unit = points.astype(float) / np.linalg.norm(points.astype(float), axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    A = np.zeros((n, n))
    np.put_along_axis(A, near, np.maximum(np.take_along_axis(cosines, near, 1), 0) ** 3, axis=1)
    W = A + A.T
    S = W / np.sqrt(W.sum(axis=0)) / np.sqrt(W.sum(axis=1))[:, None]
    Y = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, 0.0)
    return np.linalg.solve(np.eye(n) - 0.99 * S, Y)


def certainty_by_definition(Z):
    """1 - entropy / log c of each row's shares, divided by the largest."""
    shares = Z / Z.sum(axis=1, keepdims=True)
    omegas = 1 + (shares * np.log(shares)).sum(axis=1) / np.log(Z.shape[1])
    return omegas / omegas.max()
