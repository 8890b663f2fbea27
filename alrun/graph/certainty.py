"""How certain class shares are, and how much each class then counts.

Source: S3 eqs. (11) and (12) (ALGORITHMS 4.2).
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

# Shares in float32 that are all alike but for rounding give certainties up to 1e-13, never more.
ROUNDING = 1e-12


def certainties(values: Float32[Tensor, "n c"]) -> tuple[Float64[Tensor, " n"], Bool[Tensor, " n"]]:
    """omega_i = 1 - H(zhat_i) / log c over its largest value, in [0, 1], and which rows have no value.

    Negative values count as 0; zhat are the rows divided by their sums. A row without a value has omega 0,
    and so have all where no row prefers a class. With one class, omega is 1 wherever there is a value.
    """
    shares = values.double().clamp_min(0.0)
    sums = shares.sum(dim=1, keepdim=True)
    zero = sums[:, 0] == 0
    if values.shape[1] == 1:
        return (~zero).double(), zero
    shares /= torch.where(sums == 0, 1.0, sums)
    omegas = 1.0 - torch.special.entr(shares).sum(dim=1) / np.log(values.shape[1])
    omegas = torch.where(zero | (omegas < ROUNDING), 0.0, omegas)
    largest = omegas.max() if len(omegas) else omegas.new_zeros(())
    return omegas / torch.where(largest == 0, 1.0, largest), zero


def class_weights(
    labels: Int64[ndarray, " n"], classes: int, mean_over: Literal["classes", "examples"]
) -> Float32[ndarray, " c"]:
    """zeta_c in proportion to 1 / (rows of class c), 0 for a class without rows.

    A class of few rows takes most of it: with a mean of 1 over ten classes, one of a single row and nine of
    999 weigh 9.92 and 0.0099.

    Args:
        labels: of all rows, bought or not.
        classes: C.
        mean_over: whether the mean of zeta over classes that have rows is 1, or n / C rows weigh 1 (the
            reference code; then the mean over rows is 1 where every class has rows).
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    weights = np.divide(1.0, counts, out=np.zeros(classes), where=counts > 0)
    if mean_over == "examples":
        weights *= len(labels) / classes
    elif (counts > 0).any():
        weights /= weights[counts > 0].mean()
    return weights.astype(np.float32)
