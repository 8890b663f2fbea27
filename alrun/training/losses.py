"""Losses of class labels."""

from typing import Literal

from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional


class Hinge(nn.Module):
    """Hinge loss of logits z: the mean over all other classes j of max(0, 1 - (z_y - z_j)).

    Of two classes it is max(0, 1 - s (z_1 - z_0)), with s = 1 for class 1 and s = -1 for class 0: that of a
    linear classifier w.x + b, with w = w_1 - w_0 and b = b_1 - b_0.
    Source: Weston and Watkins 1999. Departs: a mean where they have a sum, so that it does not grow with the
    number of classes.
    """

    def __init__(self, reduction: Literal["mean", "none"]) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: Float32[Tensor, "b c"], y: Int64[Tensor, " b"]) -> Float32[Tensor, " ..."]:
        """One loss a row, or their mean."""
        classes = logits.shape[1]
        # torch divides by all classes, the row's own included
        return functional.multi_margin_loss(logits, y, reduction=self.reduction) * (classes / (classes - 1))


def criterion_of(loss: Literal["cross_entropy", "hinge"], reduction: Literal["mean", "none"]) -> nn.Module:
    """The loss of this name: one a row, or the mean over rows."""
    return nn.CrossEntropyLoss(reduction=reduction) if loss == "cross_entropy" else Hinge(reduction)
