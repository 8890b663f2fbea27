"""Layers of generators and critics, with the initial weights of the reference code of WGAN-GP."""

import math
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Slope(nn.Module):
    """Numbers below zero times `below`: LeakyReLU, or ReLU at 0.

    Its second derivative is left out and not computed as zeros: a gradient penalty would else carry zeros
    back through the whole critic.
    """

    def __init__(self, below: float) -> None:
        super().__init__()
        self.below = below

    def forward(self, x: Float[Tensor, " b *item"]) -> Float[Tensor, " b *item"]:
        """The same shape."""
        return _Sloped.apply(x, self.below)  # type: ignore[no-any-return]


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, below: float) -> Tensor:  # noqa: ANN001
        y = functional.leaky_relu(x, below)
        ctx.save_for_backward(y)
        ctx.below = below
        return y

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        (y,) = ctx.saved_tensors
        return _Steep.apply(gradients[0], y.detach(), ctx.below), None  # type: ignore[return-value]


class _Steep(torch.autograd.Function):
    """A gradient times the slopes; linear in the gradient, so its own gradient is the same."""

    @staticmethod
    def forward(ctx, gradient: Tensor, y: Tensor, below: float) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(y)
        ctx.below = below
        return torch.ops.aten.leaky_relu_backward(gradient, y, below, True)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN001
        (y,) = ctx.saved_tensors
        return _Steep.apply(gradients[0], y, ctx.below), None, None  # type: ignore[return-value]


class PooledConvolution(nn.Module):
    """A 3x3 convolution and the mean of each 2x2 square, as one 4x4 convolution of stride 2.

    The same function for 16 instead of 36 products a number.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = convolution(inputs, outputs, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Half the sides."""
        kernel = _shifted_sum(self.convolution.weight) / 4
        return functional.conv2d(x, kernel, self.convolution.bias, stride=2, padding=1)


class EnlargedConvolution(nn.Module):
    """Each number in a 2x2 square of its own and a 3x3 convolution, as one 4x4 transposed convolution.

    The same function for 16 instead of 36 products a number.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # drawn for the strides of the convolution that it stands for
        self.convolution = convolution(inputs, outputs, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Twice the sides."""
        kernel = _shifted_sum(self.convolution.weight.flip(2, 3).transpose(0, 1))
        return functional.conv_transpose2d(x, kernel, self.convolution.bias, stride=2, padding=1)


def _shifted_sum(kernel: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 4 4"]:
    """The sum of the kernel at each of four places in a 4x4 one."""
    places = ((0, 1, 0, 1), (1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 1, 0))
    return torch.stack([functional.pad(kernel, place) for place in places]).sum(0)


def convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps h x w, or leaves ceil(h / 2) x ceil(w / 2) of it at stride 2 (SAME)."""
    layer = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2)
    return _drawn(layer, inputs * side**2, outputs * side**2 / stride**2)


def transposed(inputs: int, outputs: int, before: tuple[int, int], after: tuple[int, int]) -> nn.Module:
    """A transposed 5x5 convolution of stride 2 from `before` to `after`, sides of 2n - 1 (cropped) or 2n."""
    extra = [big - (2 * small - 1) for small, big in zip(before, after, strict=True)]
    layer = nn.ConvTranspose2d(inputs, outputs, 5, 2, padding=2, output_padding=(extra[0], extra[1]))
    return _drawn(layer, inputs * 25 / 4, outputs * 25)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer."""
    return _drawn(nn.Linear(inputs, outputs), inputs, outputs, gain=2.0)


def skip(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution beside a residual block."""
    return _drawn(nn.Conv2d(inputs, outputs, 1), inputs, outputs, gain=2.0)


def _drawn(layer: Layer, inputs: int | float, outputs: int | float, gain: float = 4.0) -> Layer:
    """The layer with even weights of variance gain / (inputs + outputs) and biases of 0.

    Source: igul222/improved_wgan_training, tflib.ops.
    """
    bound = math.sqrt(3 * gain / (inputs + outputs))
    nn.init.uniform_(layer.weight, -bound, bound)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
