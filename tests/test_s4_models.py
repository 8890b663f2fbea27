"""The classifiers of S4 (ASAL): their layers, numbers of weights, and the images that they take."""

import numpy as np
import pytest
import torch
from conftest import CPU, part
from test_cnn13 import built, sizes_after_each_convolution, stored
from torch import nn

from alrun.models.cnn import AllCnn, PooledCnn
from alrun.models.cnn13 import ConvSmall
from alrun.models.network import Network
from alrun.training.seeding import seeded


def named(name: str, *words: str):
    return part("model", f"model={name}", *(f"model.{word}" for word in words))


def weights(network: Network) -> int:
    return sum(each.numel() for each in network.parameters())


def kernels(*sizes: tuple[int, int, int]) -> int:
    """Weights and biases of convolutions of so many channels before, after, and pixels of a side."""
    return sum(before * after * side**2 + after for before, after, side in sizes)


def test_all_cnn_has_the_sides_channels_and_weights_of_its_table():
    network = built(named("all_cnn"), (3, 32, 32), 10)
    wanted = [(96, 32), (96, 32), (96, 16), (192, 16), (192, 16), (192, 8), (192, 6), (192, 6)]
    sizes = sizes_after_each_convolution(network, stored(1, (3, 32, 32)))
    assert sizes == [(channels, side, side) for channels, side in wanted]
    threes = [(3, 96, 3), (96, 96, 3), (96, 96, 3), (96, 192, 3), *[(192, 192, 3)] * 3]
    assert weights(network) == kernels(*threes, (192, 192, 1), (192, 10, 1)) == 1_369_738
    assert [layer.p for layer in network.body if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_the_linear_layer_after_the_average_is_a_convolution_to_the_classes_before_it():
    network = built(AllCnn(4, 0.0), (3, 16, 16), 5).eval()
    convolution = nn.Conv2d(8, 5, 1)
    with torch.no_grad():
        convolution.weight.copy_(network.head.weight[:, :, None, None])
        convolution.bias.copy_(network.head.bias)
        x = stored(6, (3, 16, 16))
        before_average = network.body[:-2](network.fixed(x))
        torch.testing.assert_close(convolution(before_average).mean((2, 3)), network(x))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "flat", "wanted"),
    [
        ("s4_cnn", (28, 28), 10, 3136, kernels((1, 32, 5), (32, 64, 5), (3136, 1024, 1), (1024, 10, 1))),
        (
            "celeba_cnn",
            (3, 64, 64),
            2,
            4096,
            kernels((3, 16, 3), (16, 32, 3), (32, 64, 3), (4096, 1024, 1), (1024, 2, 1)),
        ),
    ],
)
def test_the_networks_for_mnist_and_celeba_have_the_weights_of_their_tables(
    name, shape, classes, flat, wanted
):
    network = built(named(name), shape, classes)
    assert weights(network) == wanted
    linear = [layer for layer in network.body if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(flat, 1024)]
    kinds = [type(layer) for layer in network.body]
    one = [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    many = 2 if name == "s4_cnn" else 3
    assert kinds == [*one * many, nn.Flatten, nn.Linear, nn.ReLU, nn.Dropout]


@pytest.mark.parametrize(("shape", "sides"), [((3, 32, 32), (32, 16, 6)), ((3, 64, 64), (32, 16, 6))])
def test_conv_small_has_its_channels_and_begins_with_a_larger_step_on_larger_images(shape, sides):
    network = built(named("conv_small"), shape, 10)
    first, second, last = sides
    wanted = [(64, first)] * 3 + [(128, second)] * 3 + [(128, last)] * 3
    sizes = sizes_after_each_convolution(network, stored(1, shape))
    assert sizes == [(channels, side, side) for channels, side in wanted]
    stem = (3, 64, 3 if shape[1] == 32 else 5)
    threes = [stem, (64, 64, 3), (64, 64, 3), (64, 128, 3), *[(128, 128, 3)] * 3]
    norms = 2 * (3 * 64 + 6 * 128)
    assert weights(network) == kernels(*threes, *[(128, 128, 1)] * 2, (128, 10, 1)) + norms
    assert {layer.negative_slope for layer in network.body if isinstance(layer, nn.LeakyReLU)} == {0.1}
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.body) == 9


@pytest.mark.parametrize("side", [5, 9, 12, 13, 23, 33, 40])
@pytest.mark.parametrize(
    "architecture",
    [
        AllCnn(2, 0.0),
        PooledCnn([2, 3], 5, [7], 0.0),
        PooledCnn([2, 3, 4], 3, [], 0.0),
        ConvSmall(2, 0.0, "auto"),
        ConvSmall(2, 0.0, "small"),
        ConvSmall(2, 0.0, "large"),
    ],
    ids=str,
)
def test_images_of_any_size_are_taken(architecture, side):
    for shape in ((side, side), (3, side, 2 * side)):
        network = built(architecture, shape).eval()
        found = network(stored(3, shape))
        assert found.shape == (3, 4)
        assert found.isfinite().all()


def test_they_learn_what_can_be_told_apart():
    x = stored(12, (12, 12)) // 8 + 80 * (torch.arange(12) % 3)[:, None, None].to(torch.uint8)
    y = torch.arange(12) % 3
    for architecture in (AllCnn(8, 0.0), PooledCnn([4, 4], 3, [8], 0.0), ConvSmall(4, 0.0, "auto")):
        network = built(architecture, (12, 12), 3)
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        with seeded(np.random.default_rng(0), CPU):
            for _ in range(40):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x), y).backward()
                optimizer.step()
        assert (network(x).argmax(1) == y).all()
