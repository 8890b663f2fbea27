"""k-means++ sampling on the gradients of the last layer, as BADGE does it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from alrun.compiled import COMPILED, kernel, loose_kernel
from alrun.coverage.distances import CHUNK, check_finite, fold, folded

SPAN = 256  # candidates whose squared distances are summed before the sums are


def gradient_sampling(
    probabilities: Float32[ndarray, "m c"],
    embeddings: Float32[ndarray, "m d"],
    size: int,
    rng: np.random.Generator,
) -> tuple[Int64[ndarray, " b"], Float64[ndarray, " b"]]:
    """Positions drawn by k-means++ on gradient embeddings, and their squared distances when chosen.

    Candidate i has the gradient a_i h_i' of its cross entropy in the last layer's weights, were its likeliest
    class the true one: a_i = p_i - onehot(argmax p_i), h_i its embedding. The first choice is the longest
    gradient (the first among equals, at distance inf); each other one takes one `rng.random()` and falls on i
    with probability D_i / sum D, where D_i is the squared distance to the nearest choice. Once all D are
    0, each of the rest is as likely. There are at most m choices, none twice.

    Gradients are never made: D_ij = |a_i|^2 |h_i|^2 + |a_j|^2 |h_j|^2 - 2 (a_i.a_j)(h_i.h_j), at least 0. All
    of it is float64; inner products are added up as `folded` does, D from the first candidate to the last
    of a span of 256, then over spans. So the compiled way, which skips most distances, draws the same as
    the plain one.

    Raises:
        ValueError: a probability or an embedding that is no finite number.
    Source: Ash et al. 2020, algorithm 1 (ALGORITHMS 6.2). Departs: the first choice is not random but the
    longest gradient, as in the authors' code.
    """
    check_finite(probabilities, "probabilities")
    check_finite(embeddings, "embeddings")
    size = min(size, len(embeddings))
    gradients = _factors(probabilities, np.ascontiguousarray(embeddings))
    nearest = _nearest(len(embeddings), size)
    picks, squared = np.empty(size, np.int64), np.empty(size)
    for step in range(size):
        drawn = _drawn(nearest, picks[:step], rng.random()) if step else gradients.squares.argmax()
        picks[step], squared[step] = drawn, nearest.gaps[drawn]
        (_approach if COMPILED else _approach_plainly)(gradients, nearest, picks, step)
    return picks, squared


class _Gradients(NamedTuple):
    """Factors of the gradients, their squared lengths, lengths of the embeddings.

    `slack` is at least four times what rounding does to a squared distance however its inner products are
    added up: of c and d float64 products, and a few operations on what is no larger than 4 max squares.
    """

    weights: ndarray
    embeddings: ndarray
    squares: ndarray
    lengths: ndarray
    slack: float


class _Nearest(NamedTuple):
    """Squared distances to the nearest choice, which one that is, and the sums of spans of them.

    `quarters` are no more than a quarter of the squared distances of the choices from the latest one.
    """

    gaps: ndarray
    own: ndarray
    sums: ndarray
    quarters: ndarray


def _nearest(count: int, size: int) -> _Nearest:
    spans = -(-count // SPAN)
    return _Nearest(
        np.full(count, np.inf), np.zeros(count, np.int64), np.zeros(spans), np.full(size, -np.inf)
    )


def _factors(probabilities: ndarray, embeddings: ndarray) -> _Gradients:
    weights = probabilities.copy(order="C")
    weights[np.arange(len(weights)), weights.argmax(axis=1)] -= 1
    own = _own_products if COMPILED else _products
    squares = own(embeddings, embeddings)
    lengths = np.sqrt(squares)
    squares = own(weights, weights) * squares
    features = weights.shape[1] + embeddings.shape[1]
    slack = 16 * (features + 16) * 2.0**-53 * float(squares.max(initial=0))
    return _Gradients(weights, embeddings, squares, lengths, slack)


def _drawn(nearest: _Nearest, picks: Int64[ndarray, " s"], uniform: float) -> int:
    """The position where the running sum of squared distances first exceeds its share `uniform`."""
    totals = np.cumsum(nearest.sums)
    if totals[-1] == 0:
        rest = np.delete(np.arange(len(nearest.gaps)), picks)
        return int(rest[int(uniform * len(rest))])
    target = uniform * totals[-1]
    # Rounding may leave the target at the very end, past all that can be drawn.
    span = min(np.searchsorted(totals, target, side="right"), np.flatnonzero(nearest.sums)[-1])
    gaps = nearest.gaps[span * SPAN : (span + 1) * SPAN]
    running = np.cumsum(np.append(totals[span - 1] if span else 0.0, gaps))[1:]
    return int(span * SPAN + min(np.searchsorted(running, target, side="right"), np.flatnonzero(gaps)[-1]))


def _approach_plainly(
    gradients: _Gradients, nearest: _Nearest, picks: Int64[ndarray, " b"], step: int
) -> None:
    """Makes the latest choice the nearest one of whom it is nearest to; each distance is taken."""
    new, squares = picks[step], gradients.squares
    products = _products(gradients.weights, gradients.weights[new : new + 1])
    products *= _products(gradients.embeddings, gradients.embeddings[new : new + 1])
    squared = np.maximum(squares + squares[new] - 2 * products, 0)
    np.minimum(nearest.gaps, squared, out=nearest.gaps)
    spans = np.zeros((len(nearest.sums), SPAN))
    spans.ravel()[: len(nearest.gaps)] = nearest.gaps
    nearest.sums[:] = np.cumsum(spans, axis=1)[:, -1]


def _products(rows: Float32[ndarray, "m w"], others: Float32[ndarray, "o w"]) -> Float64[ndarray, " m"]:
    """Inner products of rows with the others one by one, or with the only one."""
    products = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        other = others if len(others) == 1 else others[start : start + CHUNK]
        terms = np.multiply(rows[start : start + CHUNK], other, dtype=np.float64)
        products[start : start + CHUNK] = folded(terms)
    return products


@kernel
def _own_products(rows, others):
    """As `_products`, one by one."""
    products, terms = np.empty(len(rows)), np.empty(rows.shape[1])
    for one in range(len(rows)):
        products[one] = _product(rows[one], others[one], terms)
    return products


@kernel
def _approach(gradients, nearest, picks, step):
    """As `_approach_plainly`; a distance is not taken where a bound says that it changes nothing."""
    weights, embeddings, squares, lengths, slack = gradients
    gaps, own, sums, quarters = nearest
    new = picks[step]
    weight, embedding = weights[new], embeddings[new]
    terms = np.empty(max(len(weight), len(embedding)))
    for at in range(step):
        one = picks[at]
        product = _rough(weights[one], weight) * _rough(embeddings[one], embedding)
        quarters[at] = (squares[one] + squares[new] - 2 * product) / 4 - slack
    for span in range(len(sums)):
        total = 0.0
        for one in range(span * SPAN, min((span + 1) * SPAN, len(gaps))):
            # Whoever is no farther from its choice than half way to the new one is no nearer to that.
            if gaps[one] > quarters[own[one]]:
                both, part = squares[one] + squares[new] - slack, 2 * _rough(weights[one], weight)
                if (
                    both - abs(part) * lengths[one] * lengths[new] < gaps[one]  # Cauchy and Schwarz
                    and both - part * _rough(embeddings[one], embedding) < gaps[one]
                ):
                    product = _product(weights[one], weight, terms) * _product(
                        embeddings[one], embedding, terms
                    )
                    squared = max(squares[one] + squares[new] - 2 * product, 0.0)
                    if squared < gaps[one]:
                        gaps[one], own[one] = squared, step
            total += gaps[one]
        sums[span] = total


@kernel
def _product(row, other, terms):
    """An inner product with the bits of `_products`, given room for its terms."""
    for at in range(len(row)):
        terms[at] = np.float64(row[at]) * np.float64(other[at])
    return fold(terms[: len(row)])


@loose_kernel
def _rough(row, other):
    """An inner product, its sum in any order."""
    total = 0.0
    for at in range(len(row)):
        total += np.float64(row[at]) * np.float64(other[at])
    return total
