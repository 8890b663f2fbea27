from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import part
from torch import nn

from alrun.models.cnn import Lenet, S0Cnn
from alrun.models.linear import Linear
from alrun.models.mlp import Mlp
from alrun.models.network import Adapt, Architecture, Network, tried
from alrun.models.resnet import Resnet
from alrun.models.timm_models import Timm
from alrun.models.vgg import Vgg16
from alrun.pool import Inputs, Moments

CONF = Path(__file__).parent.parent / "conf" / "model"
HEADS_ALONE = {"frozen_head", "linear_head"}  # become networks on a featurizer's encoder
SHAPES = [(8, 8), (28, 28), (3, 32, 32)]
GRAY = Moments(np.array([0.4], np.float32), np.array([0.2], np.float32))
COLOR = Moments(np.repeat(GRAY.mean, 3), np.repeat(GRAY.std, 3))


def moments(shape: tuple[int, ...]) -> Moments:
    channels = 1 if len(shape) == 2 else shape[0]
    return Moments(np.linspace(0.3, 0.6, channels, dtype=np.float32), np.full(channels, 0.25, np.float32))


def items(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def seeded(make: Callable[[], Network], seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def resnet(**settings) -> Resnet:
    fixed = {"depth": 18, "stem": "imagenet", "hidden": [], "dropout": 0.0, "pretrained": False}
    return Resnet(**{**fixed, "normalize": False, "freeze": False, "image_size": None, **settings})


def vgg(**settings) -> Vgg16:
    fixed = {"batch_norm": False, "hidden": [20], "dropout": 0.0, "pretrained": False, "freeze": False}
    return Vgg16(**{**fixed, "image_size": None, **settings})


def small_vit(**settings) -> Timm:
    """timm's own test network: 160 pixels, 64 features, some 0.3 million weights."""
    fixed = {"name": "test_vit", "hidden": [], "dropout": 0.0, "pretrained": False, "freeze": False}
    return Timm(**{**fixed, "image_size": None, **settings})


def lenet(**settings) -> Lenet:
    return Lenet(**{"hidden": [], "dropout": 0.0, **settings})


def preset(name: str) -> Architecture:
    """The network as its YAML makes it; `timm` alone names none."""
    named = ["model.name=test_vit"] if name == "timm" else []
    return part("model", f"model={name}", *named)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", sorted({path.stem for path in CONF.glob("*.yaml")} - HEADS_ALONE))
def test_every_preset_builds_a_network_whose_head_reads_its_embedding(name, shape):
    architecture = preset(name)
    assert isinstance(architecture, Architecture)
    network = architecture.build(shape, moments(shape), 7)
    dropouts = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]
    assert architecture.has_dropout == bool(dropouts)
    assert not network.is_frozen
    network.eval()
    with torch.no_grad():
        embedded = network.embed(items(2, shape))
        assert embedded.shape == (2, network.head.in_features)
        assert torch.equal(network.head(embedded), network(items(2, shape)))
        assert network.head.out_features == 7


@pytest.mark.parametrize(
    "architecture",
    [
        Mlp([6, 5], batch_norm=False, dropout=0.2),
        S0Cnn(0.2),
        lenet(dropout=0.2),
        vgg(dropout=0.2),
        resnet(dropout=0.2),
        small_vit(dropout=0.2),
        lenet(dropout=0.2, hidden=[7]),
        resnet(dropout=0.2, hidden=[7]),
    ],
    ids=lambda architecture: type(architecture).__name__,
)
def test_dropout_that_is_asked_for_makes_training_passes_differ_and_evaluation_passes_agree(architecture):
    network = architecture.build((8, 8), GRAY, 3)
    assert architecture.has_dropout
    torch.manual_seed(0)
    for layer in network.modules():  # so that only dropout can tell two passes apart
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 0.0
    x = items(16, (8, 8))
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize(
    "architecture", [Linear(0.0), Mlp([6], batch_norm=False, dropout=0.0), S0Cnn(0.0), lenet()]
)
def test_the_same_torch_seed_gives_the_same_weights_and_another_gives_others(architecture):
    first, same, other = (
        seeded(lambda: architecture.build((12, 12), GRAY, 3), seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_weights_come_from_the_current_torch_generator_also_for_the_imagenet_families():
    for architecture in (vgg(), resnet(hidden=[9]), small_vit(hidden=[9])):
        first, same = (seeded(lambda a=architecture: a.build((3, 32, 32), COLOR, 3)) for _ in range(2))
        assert all(map(torch.equal, first.parameters(), same.parameters()))


@pytest.mark.parametrize("shape", [(9, 9), (3, 9, 7), (5,)], ids=str)
def test_moments_of_the_pool_standardize_what_the_network_sees(shape):
    array = (
        items(200, shape).numpy() if len(shape) > 1 else np.random.default_rng(1).normal(3, 5, (200, *shape))
    )
    inputs = Inputs(array)
    out = shape if len(shape) == 3 else (int(np.prod(shape)),)
    seen = Adapt(shape, inputs.moments, out)(inputs.take(np.arange(200)))
    seen = seen.reshape(200, len(inputs.moments.mean), -1).double()
    torch.testing.assert_close(seen.mean((0, 2)), torch.zeros(seen.shape[1]).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        seen.std((0, 2), unbiased=False), torch.ones(seen.shape[1]).double(), atol=1e-5, rtol=0
    )


def test_bytes_and_the_same_images_as_floats_in_zero_to_one_give_the_same_logits():
    network = lenet().build((8, 8), GRAY, 3).eval()
    x = items(4, (8, 8))
    assert torch.equal(network(x), network(x.float() / 255))


@pytest.mark.parametrize("family", [vgg, resnet, small_vit])
def test_a_gray_image_counts_as_a_color_image_of_three_equal_channels(family):
    x = items(2, (32, 32))
    gray_net = seeded(lambda: family().build((32, 32), GRAY, 3)).eval()
    color_net = seeded(lambda: family().build((3, 32, 32), COLOR, 3)).eval()
    repeated = x[:, None].repeat(1, 3, 1, 1)
    torch.testing.assert_close(gray_net(x), color_net(repeated))


def test_resizing_keeps_a_constant_image_constant_and_gives_the_side_asked_for():
    adapt = resnet(image_size=40).build((3, 32, 20), COLOR, 2).adapt
    seen = adapt(torch.full((1, 3, 32, 20), 0.5))
    assert seen.shape == (1, 3, 40, 40)
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5))


def test_small_images_are_raised_to_the_smallest_side_a_network_takes_with_their_ratio_kept():
    assert lenet().build((8, 8), GRAY, 2).adapt.out == (1, 12, 12)
    assert resnet().build((8, 16), GRAY, 2).adapt.out == (3, 32, 64)
    assert resnet().build((3, 40, 33), COLOR, 2).adapt.out == (3, 40, 33)


@pytest.mark.parametrize("side", [8, 11, 12, 13, 16, 28, 32])
@pytest.mark.parametrize("family", [lambda: S0Cnn(0.0), lenet], ids=["s0_cnn", "lenet"])
def test_small_convolutional_networks_take_any_side(family, side):
    for shape in [(side, side), (1, side, side + 3), (3, side, side)]:
        assert family().build(shape, moments(shape), 3)(items(4, shape)).isfinite().all()


def test_s0_networks_have_the_printed_widths_and_batch_norm_before_each_hidden_layer():
    def layers(name: str) -> list[tuple[str, int]]:
        parts = preset(name).build((28, 28), GRAY, 10).modules()
        return [
            (
                type(part).__name__,
                part.num_features if isinstance(part, nn.BatchNorm1d) else part.out_features,
            )
            for part in parts
            if isinstance(part, nn.BatchNorm1d | nn.Linear)
        ]

    norm, full = "BatchNorm1d", "Linear"
    assert layers("s0_fc") == [(norm, 784), (full, 100), (norm, 100), (full, 50), (full, 10)]
    assert layers("s0_cnn") == [(norm, 3136), (full, 20), (norm, 20), (full, 20), (full, 10)]


def test_dropout_follows_each_hidden_layer_of_an_mlp():
    body = (
        Mlp([6, 5], batch_norm=True, dropout=0.3).build((4,), Moments(*np.ones((2, 4), np.float32)), 3).body
    )
    one = [nn.BatchNorm1d, nn.Linear, nn.ReLU, nn.Dropout]
    assert [type(part) for part in body.modules()][1:] == one * 2


@pytest.mark.parametrize("family", [lenet, resnet, small_vit], ids=lambda family: family.__name__)
def test_a_hidden_layer_before_the_output_is_the_embedding(family):
    plain = family().build((3, 32, 32), COLOR, 4)
    network = family(hidden=[9, 5], dropout=0.5).build((3, 32, 32), COLOR, 4).eval()
    x = items(3, (3, 32, 32))
    embedded = network.embed(x)
    assert embedded.shape == (3, 5)
    assert (embedded >= 0).all()
    assert torch.equal(network(x), network.head(embedded))
    last = [layer for layer in network.body.modules() if isinstance(layer, nn.Linear)][-2:]
    assert [(each.in_features, each.out_features) for each in last] == [(plain.head.in_features, 9), (9, 5)]


def test_the_small_stem_keeps_the_resolution_and_auto_takes_it_up_to_64_pixels():
    def strides(shape: tuple[int, ...], stem: str) -> int:
        stem_part = resnet(stem=stem).build(shape, GRAY, 2).body[0]
        x = torch.zeros(1, 3, 64, 64)
        return 64 // stem_part.maxpool(stem_part.conv1(x)).shape[-1]

    assert [strides((64, 64), stem) for stem in ("small", "auto", "imagenet")] == [1, 1, 4]
    assert strides((65, 65), "auto") == 4


def test_the_convolutional_part_of_vgg_computes_what_torchvision_computes():
    with torch.device("meta"):
        whole = torchvision.models.vgg16()
    network = vgg().build((3, 32, 32), COLOR, 3).eval()
    layers = network.body[0][0]
    assert list(layers.state_dict()) == list(whole.features.state_dict())
    assert str(layers) == str(whole.features)


def test_a_network_is_tried_without_a_trace():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    tried(lenet(), (3, 32, 32), COLOR, 4)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="needs images"):
        tried(lenet(), (7,), GRAY, 4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Linear(0.5), "model.dropout needs a hidden layer"),
        (lambda: Mlp([], batch_norm=False, dropout=0.0), "model.hidden needs at least one"),
        (lambda: vgg(hidden=[], dropout=0.5), "model.dropout follows hidden layers"),
        (lambda: vgg(image_size=16), "model.image_size must be at least 32"),
        (lambda: resnet(stem="small", pretrained=True), "model.stem=small .* model.pretrained=false"),
        (lambda: lenet().build((64,), GRAY, 3), r"needs images .* got items of shape \(64,\)"),
        (lambda: resnet().build((4, 32, 32), GRAY, 3), r"3 channels, got items of shape \(4, 32, 32\)"),
        (lambda: Linear(0.0).build((3, 4, 4), Moments(*np.ones((2, 2), np.float32)), 3), "need 3 means"),
    ],
)
def test_settings_and_data_that_do_not_fit_are_refused_with_a_remedy(make, says):
    with pytest.raises(ValueError, match=says):
        make()
