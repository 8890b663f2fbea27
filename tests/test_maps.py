"""Which layers' outputs are a network's maps, and what is read of them on the way."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, part
from test_cnn13 import built, stored
from test_models import resnet, small_vit, vgg
from torch import nn

from alrun.models.cnn import AllCnn, Lenet, PooledCnn, S0Cnn
from alrun.models.cnn13 import Cnn13, ConvSmall
from alrun.models.linear import Linear
from alrun.models.maps import map_layers, map_widths, mapped
from alrun.models.mlp import Mlp
from alrun.models.network import Network
from alrun.training.seeding import seeded

COLOR = (3, 32, 32)
# channels and sides of each map
MAPS: list[tuple[Any, list[tuple[int, int]]]] = [
    (AllCnn(2, 0.5), [(2, 32), (4, 16), (4, 8), (4, 6)]),
    (ConvSmall(2, 0.5, "small"), [(2, 32), (4, 16), (4, 6)]),
    (ConvSmall(2, 0.5, "large"), [(2, 16), (4, 8), (4, 2)]),
    (Cnn13(2, 0.5, True), [(2, 32), (4, 16), (2, 6)]),
    (PooledCnn([2, 3, 4], 3, [9], 0.5), [(2, 32), (3, 16), (4, 8), (9, 0)]),
    (PooledCnn([2, 3], 5, [9], 0.5), [(2, 32), (3, 16), (9, 0)]),
    (PooledCnn([2, 3, 4, 5, 6], 3, [9], 0.5), [(3, 16), (4, 8), (5, 4), (6, 2)]),
    (Lenet([7], 0.5), [(6, 32), (16, 12), (120, 0), (84, 0)]),
    (S0Cnn(0.5), [(16, 32), (20, 0), (20, 0)]),
    (Mlp([5, 6], True, 0.5), [(5, 0), (6, 0)]),
    (Mlp([5, 6, 7, 8, 9], False, 0.0), [(5, 0), (6, 0), (7, 0), (8, 0)]),
]
LARGE = [
    (resnet(stem="small", hidden=[9]), [(64, 32), (128, 16), (256, 8), (512, 4)]),
    (resnet(depth=34, stem="imagenet"), [(64, 8), (128, 4), (256, 2), (512, 1)]),
    (vgg(batch_norm=True), [(128, 16), (256, 8), (512, 4), (512, 2)]),
    (vgg(), [(128, 16), (256, 8), (512, 4), (512, 2)]),
]


def outputs(network: Network, f: torch.Tensor) -> list[torch.Tensor]:
    """Copies of what the maps' layers give, from hooks of the test's own."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda *call: seen.append(call[2].clone()))
        for layer in map_layers(network)
    ]
    with torch.no_grad():
        network.body(f)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("architecture", "wanted"), MAPS + LARGE, ids=lambda each: type(each).__name__)
def test_the_maps_are_the_ends_of_a_networks_stages_and_then_hidden_layers(architecture, wanted):
    network = built(architecture, COLOR).eval()
    f = network.fixed(stored(2, COLOR))
    seen = outputs(network, f)
    assert [(each.shape[1], each.shape[2] if each.ndim == 4 else 0) for each in seen] == wanted
    assert map_widths(network, f) == [channels for channels, _ in wanted]
    with torch.no_grad():
        embeddings, averages = mapped(network, f)
        torch.testing.assert_close(embeddings, network.body(f), rtol=0, atol=0)
    by_hand = [each.mean((2, 3)) if each.ndim == 4 else each for each in seen]
    torch.testing.assert_close(averages, torch.cat(by_hand, 1), atol=1e-6, rtol=1e-5)
    assert all(not each._forward_hooks for each in network.modules())
    # the last layer of a stage: what it gives has gone through its activation
    assert float(averages.min()) >= (0 if "LeakyReLU" not in str(network) else -10)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_of_timms_networks_the_stages_inside_are_read(name):
    network = built(small_vit(name=name), COLOR).eval()
    f = network.fixed(stored(2, COLOR))
    seen = outputs(network, f)
    blocks = network.body[0].blocks if name == "test_vit" else None
    if blocks is not None:
        assert len(seen) == min(4, len(blocks))
        assert map_layers(network)[-1] is blocks[-1]
        averages = [each.mean(1) for each in seen]
    else:
        assert len(seen) == 4
        averages = [each.mean((2, 3)) for each in seen]
    with torch.no_grad():
        torch.testing.assert_close(mapped(network, f)[1], torch.cat(averages, 1))


@pytest.mark.parametrize("architecture", [Linear(0.0), resnet(freeze=True)], ids=["linear", "frozen"])
def test_a_network_without_trained_hidden_layers_has_no_maps(architecture):
    network = built(architecture, COLOR)
    f = network.fixed(stored(2, COLOR))
    for read in (mapped, map_widths):
        with pytest.raises(ValueError, match="this network has none; choose e.g. model=all_cnn"):
            read(network, f)


def test_of_a_frozen_network_its_hidden_layers_are_the_maps():
    network = built(resnet(freeze=True, hidden=[9, 5]), COLOR)
    assert map_widths(network, network.fixed(stored(2, COLOR))) == [9, 5]


def test_gradients_go_through_averages_to_the_layers_before_a_map_and_no_further():
    network = built(AllCnn(2, 0.0), COLOR)
    with seeded(np.random.default_rng(0), CPU):
        mapped(network, network.fixed(stored(2, COLOR)))[1][:, :2].sum().backward()
    convolutions = [layer for layer in network.body if isinstance(layer, nn.Conv2d)]
    assert [bool((layer.weight.grad != 0).any()) for layer in convolutions] == [True] * 2 + [False] * 6


def test_a_convolution_that_keeps_the_sides_ends_no_stage():
    same = nn.Conv2d(3, 2, 3, padding="same")
    valid = nn.Conv2d(2, 4, 3, padding="valid")
    body = nn.Sequential(same, nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1)), valid, nn.Flatten())
    network = Network(built(AllCnn(2, 0.0), COLOR).adapt, nn.Identity(), body, nn.Linear(4 * 900, 2))
    assert map_layers(network) == [body[1][1], valid]


def test_the_papers_network_is_read_at_its_four_stages():
    network = built(part("model", "model=resnet18"), COLOR, 10)
    assert map_widths(network, network.fixed(stored(1, COLOR))) == [64, 128, 256, 512]
