"""How uncertain a row of diffused labels is: the smaller the value, the more uncertain.

Source: S0 eq. (8); S1 appendix C (ALGORITHMS 2.5).
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.special import xlogy
from torch import Tensor


def min_abs(chi: Float64[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """min_c |chi_ic|, in [0, 1]."""
    # Class by class: NumPy's minimum over a short last axis takes three times as long.
    return np.abs(chi.T, order="C").min(axis=0)


def norm(chi: Float64[ndarray, "b c"], p: float) -> Float64[ndarray, " b"]:
    """||chi_i||_p for p in [1, inf]."""
    return np.linalg.norm(chi, ord=p, axis=1)


def confidence(shares: Float64[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """The largest entry of rows in the simplex, in [1/C, 1]."""
    return shares.max(axis=1)


def margin(shares: Float64[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """The largest entry less the second largest of rows in the simplex, in [0, 1]."""
    top = np.partition(shares, -2, axis=1)
    return top[:, -1] - top[:, -2]


def negative_entropy(shares: Float64[ndarray, "b c"]) -> Float64[ndarray, " b"]:
    """sum_c p_c log p_c of rows in the simplex, 0 log 0 = 0, in [-log C, 0]."""
    # The incremental update can leave a share of 0 at -1e-17.
    shares = np.maximum(shares, 0.0)
    return xlogy(shares, shares).sum(axis=1)


def resident(values: Float[Tensor, "n c"], name: str, p: float) -> Float[Tensor, " n"]:
    """The criterion of this name for values on a device; p is that of `norm`."""
    if name == "min_abs":
        return values.abs().amin(dim=1)
    if name == "norm":
        return torch.linalg.vector_norm(values, ord=p, dim=1)
    if name == "confidence":
        return values.amax(dim=1)
    if name == "margin":
        top = values.topk(2, dim=1).values
        return top[:, 0] - top[:, 1]
    shares = values.clamp_min(0.0)
    return torch.xlogy(shares, shares).sum(dim=1)
