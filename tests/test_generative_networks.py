"""Generators and critics: the tables of S4, layers that stand for two, and other sizes."""

import numpy as np
import pytest
import torch
from conftest import CPU
from torch import nn
from torch.nn import functional

from alrun.generative.layers import EnlargedConvolution, PooledConvolution, Slope
from alrun.generative.networks import Plain, Residual
from alrun.training.seeding import seeded

PLAIN = Plain(128, None, 0.0)
RESIDUAL = Residual(128, 128, [0.0, 0.0, 0.0])

# (layer, numbers an image) of each layer that has weights; S4 tables 5, 7 and 10 as corrected
GENERATORS = {
    (28, 28): [("Linear", 4096), ("ConvTranspose2d", 128 * 49), ("ConvTranspose2d", 64 * 196)]
    + [("ConvTranspose2d", 784)],
    (3, 32, 32): [("Linear", 8192), ("BatchNorm1d", 8192), ("ConvTranspose2d", 256 * 64)]
    + [("BatchNorm2d", 256 * 64), ("ConvTranspose2d", 128 * 256), ("BatchNorm2d", 128 * 256)]
    + [("ConvTranspose2d", 3 * 1024)],
    (3, 64, 64): [("Linear", 4096), ("BatchNorm1d", 4096), ("ConvTranspose2d", 256 * 64)]
    + [("BatchNorm2d", 256 * 64), ("ConvTranspose2d", 128 * 256), ("BatchNorm2d", 128 * 256)]
    + [("ConvTranspose2d", 64 * 1024), ("BatchNorm2d", 64 * 1024), ("ConvTranspose2d", 3 * 4096)],
}
CRITICS = {
    (28, 28): [("Conv2d", 64 * 196), ("Conv2d", 128 * 49), ("Conv2d", 256 * 16), ("Linear", 1)],
    (3, 32, 32): [("Conv2d", 128 * 256), ("Conv2d", 256 * 64), ("Conv2d", 512 * 16), ("Linear", 1)],
    (3, 64, 64): [("Conv2d", 128 * 1024), ("Conv2d", 256 * 256), ("Conv2d", 512 * 64)]
    + [("Conv2d", 512 * 16), ("Linear", 1)],
}


def sizes(network: nn.Module, x: torch.Tensor) -> list[tuple[str, int]]:
    """Name and numbers an image of what each layer with weights of its own gives, in order."""
    found: list[tuple[str, int]] = []

    def note(layer, given, out):
        found.append((type(layer).__name__, out.numel() // len(out)))

    hooks = [
        each.register_forward_hook(note)
        for each in network.modules()
        if list(each.parameters(recurse=False)) and not list(each.children())
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def weights(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("shape", list(GENERATORS))
def test_plain_networks_are_layer_by_layer_those_of_the_tables(shape):
    pair = PLAIN.build(shape)
    z = torch.randn(2, 128)
    assert sizes(pair.generator, z) == GENERATORS[shape]
    images = pair.generator(z)
    assert sizes(pair.critic, images) == CRITICS[shape]
    assert pair.critic(images).shape == (2,)
    assert pair.critic.hidden(images).shape == (2, pair.critic.width)


@pytest.mark.parametrize(
    ("shape", "generator", "critic"),
    [
        # 128*4096+4096 + 25*(256*128+128*64+64*1) + 128+64+1; 25*(64+64*128+128*256) + 64+128+256 + 4097
        ((28, 28), 1_554_177, 1_030_145),
        ((3, 32, 32), 5_179_907, 4_114_689),
        ((3, 64, 64), 3_205_123, 10_668_801),
    ],
)
def test_plain_networks_have_as_many_weights_as_the_tables_say(shape, generator, critic):
    pair = PLAIN.build(shape)
    assert (weights(pair.generator), weights(pair.critic)) == (generator, critic)


def test_residual_networks_are_those_of_table_8():
    pair = RESIDUAL.build((3, 32, 32))
    kernel, skip, norm = 128 * 128 * 9 + 128, 128 * 128 + 128, 2 * 128
    up = 2 * kernel + skip + 2 * norm
    assert weights(pair.generator) == 129 * 2048 + 3 * up + norm + 128 * 27 + 3
    first = (3 * 9 * 128 + 128) + kernel + (3 * 128 + 128)
    assert weights(pair.critic) == first + (2 * kernel + skip) + 2 * (2 * kernel) + 129
    z = torch.randn(2, 128)
    assert pair.generator(z).shape == (2, 3, 32, 32)
    assert pair.critic.hidden(pair.generator(z)).shape == (2, 128)


def test_gray_images_lie_in_0_to_1_and_color_images_in_minus_1_to_1():
    for networks, shape, darkest in (
        (PLAIN, (28, 28), 0.0),
        (PLAIN, (3, 32, 32), -1.0),
        (RESIDUAL, (32, 32), -1.0),
    ):
        pair = networks.build(shape)
        images = pair.generator(20 * torch.randn(8, 128)).detach()
        assert pair.darkest == darkest
        assert darkest <= float(images.min()) < darkest + 0.4
        assert 0.6 < float(images.max()) <= 1


@pytest.mark.parametrize("shape", [(8, 8), (1, 20, 12), (3, 84, 84), (3, 33, 50)])
def test_other_sizes_are_drawn_and_judged_by_the_same_rule(shape):
    pair = Plain(16, 2, 0.5).build(shape)
    images = pair.generator(torch.randn(2, 16))
    assert images[0].numel() == int(np.prod(shape))
    assert pair.critic(images).shape == (2,)
    assert max(images.shape[2:]) > 4


@pytest.mark.parametrize(
    ("networks", "shape", "told"),
    [
        (PLAIN, (64,), "got items of shape \\(64,\\); prepare smaller images, or use a strategy without one"),
        (PLAIN, (2, 28, 28), "with c in \\(1, 3\\)"),
        (PLAIN, (4, 4), "sides from 8 to 128"),
        (PLAIN, (3, 224, 224), "sides from 8 to 128"),
        (RESIDUAL, (28, 28), "8 must divide them, got items of shape \\(28, 28\\); use generator=wgan_gp"),
    ],
)
def test_items_that_cannot_be_drawn_are_refused(networks, shape, told):
    with pytest.raises(ValueError, match=told):
        networks.build(shape)


def test_one_convolution_stands_for_a_convolution_and_the_mean_of_squares():
    layer, x = PooledConvolution(3, 5), torch.randn(2, 3, 8, 6)
    expected = functional.avg_pool2d(layer.convolution(x), 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_one_transposed_convolution_stands_for_larger_pixels_and_a_convolution():
    layer, x = EnlargedConvolution(3, 5), torch.randn(2, 3, 4, 6)
    expected = layer.convolution(functional.interpolate(x, scale_factor=2.0))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_stride_of_two_gives_what_same_padding_gives_mirrored():
    """TensorFlow pads 28 by 1 before and 2 after; here it is 2 before and 1 after."""
    critic = PLAIN.build((28, 28)).critic
    first = critic.layers[0]
    x = torch.randn(2, 1, 28, 28)
    same = functional.conv2d(
        functional.pad(x.flip(2, 3), (1, 2, 1, 2)), first.weight.flip(2, 3), first.bias, stride=2
    )
    torch.testing.assert_close(first(x), same.flip(2, 3), rtol=1e-4, atol=1e-5)


def test_the_first_transposed_convolution_is_that_to_8_cropped_to_7():
    layer = PLAIN.build((28, 28)).generator[3]
    x = torch.randn(2, 256, 4, 4)
    whole = functional.conv_transpose2d(x, layer.weight, layer.bias, 2, 2, 1)
    assert whole.shape[2:] == (8, 8)
    torch.testing.assert_close(layer(x), whole[:, :, :7, :7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("below", [0.0, 0.2])
def test_a_slope_has_the_gradients_of_torch_s_own(below):
    x = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(4, 4, requires_grad=True)

    def penalty(slope) -> tuple[torch.Tensor, ...]:
        (gradient,) = torch.autograd.grad((slope(x @ weight) ** 2).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (weight, x))

    own, theirs = penalty(Slope(below)), penalty(lambda y: functional.leaky_relu(y, below))
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_initial_weights_have_the_variance_of_the_reference_code():
    with seeded(np.random.default_rng(0), CPU):
        pair = PLAIN.build((3, 32, 32))
    second = pair.critic.layers[2].weight
    assert float(second.std()) == pytest.approx((4 / (128 * 25 + 256 * 25 / 4)) ** 0.5, rel=0.01)
    back = pair.generator[4].weight
    assert float(back.std()) == pytest.approx((4 / (512 * 25 / 4 + 256 * 25)) ** 0.5, rel=0.01)
    assert float(pair.generator[0].weight.std()) == pytest.approx((2 / (128 + 8192)) ** 0.5, rel=0.01)
    assert float(pair.critic.layers[0].bias.abs().max()) == 0
