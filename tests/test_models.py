from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import part
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from alrun.models.cnn import Lenet, S0Cnn
from alrun.models.linear import Linear
from alrun.models.mlp import Mlp
from alrun.models.network import Adapt, Architecture, Network, tried
from alrun.models.pretrained import load_weights
from alrun.models.resnet import Resnet
from alrun.models.timm_models import Timm
from alrun.models.vgg import Vgg16
from alrun.pool import Inputs, Moments

CONF = Path(__file__).parent.parent / "conf" / "model"
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
    return Resnet(**{**fixed, "freeze": False, "image_size": None, **settings})


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


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def frozen(resnet_file) -> Network:
    return resnet(pretrained=str(resnet_file), freeze=True, dropout=0.5).build((3, 32, 32), COLOR, 4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
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


def test_hidden_layers_of_a_frozen_network_are_trained_with_its_head(resnet_file):
    network = resnet(pretrained=str(resnet_file), freeze=True, hidden=[5]).build((3, 32, 32), COLOR, 4)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained == {"body.0.weight", "body.0.bias", "head.weight", "head.bias"}
    assert network.fixed(items(2, (3, 32, 32))).shape == (2, 512)


def test_the_small_stem_keeps_the_resolution_and_auto_takes_it_up_to_64_pixels():
    def strides(shape: tuple[int, ...], stem: str) -> int:
        stem_part = resnet(stem=stem).build(shape, GRAY, 2).body[0]
        x = torch.zeros(1, 3, 64, 64)
        return 64 // stem_part.maxpool(stem_part.conv1(x)).shape[-1]

    assert [strides((64, 64), stem) for stem in ("small", "auto", "imagenet")] == [1, 1, 4]
    assert strides((65, 65), "auto") == 4


def test_frozen_layers_stay_in_evaluation_mode_and_get_no_gradient(frozen):
    before = {name: value.clone() for name, value in frozen.frozen.state_dict().items()}
    frozen.train()
    assert frozen.is_frozen
    assert not any(part.training for part in frozen.frozen.modules())
    assert frozen.body.training
    frozen(items(4, (3, 32, 32))).sum().backward()
    assert all(value.grad is None for value in frozen.frozen.parameters())
    assert frozen.head.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in frozen.frozen.state_dict().items())
    assert {name for name, value in frozen.named_parameters() if value.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_what_can_be_kept_between_epochs_gives_the_same_logits(frozen):
    x = items(4, (3, 32, 32))
    for network in (frozen, Mlp([5], batch_norm=True, dropout=0.5).build((3, 32, 32), COLOR, 4)):
        network.train()
        kept = network.fixed(x)
        assert not kept.requires_grad
        network.eval()
        assert torch.equal(kept, network.fixed(x))
        assert torch.equal(network.trainable(kept), network(x))


def test_a_resnet_file_is_loaded_and_its_images_are_standardized_as_imagenet(resnet_file, frozen):
    stored = torch.load(resnet_file, weights_only=True)
    loaded = frozen.frozen.state_dict()
    assert set(stored) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(stored[name], loaded[name]) for name in loaded)
    torch.testing.assert_close(frozen.adapt.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(frozen.adapt.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_a_vgg_file_is_loaded_and_its_classifier_ignored(tmp_path):
    convolutions = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True)
    stored = {f"features.{name}": value for name, value in convolutions.state_dict().items()}
    torch.save(stored | {"classifier.0.weight": torch.zeros(3)}, tmp_path / "vgg.pth")
    network = vgg(batch_norm=True, pretrained=str(tmp_path / "vgg.pth")).build((3, 32, 32), COLOR, 3)
    loaded = network.body[0][0].state_dict()
    assert all(torch.equal(stored[f"features.{name}"], loaded[name]) for name in loaded)
    assert not network.is_frozen


def test_the_convolutional_part_of_vgg_computes_what_torchvision_computes():
    with torch.device("meta"):
        whole = torchvision.models.vgg16()
    network = vgg().build((3, 32, 32), COLOR, 3).eval()
    layers = network.body[0][0]
    assert list(layers.state_dict()) == list(whole.features.state_dict())
    assert str(layers) == str(whole.features)


def test_files_from_before_batches_were_counted_are_loaded(resnet_file, tmp_path):
    stored = torch.load(resnet_file, weights_only=True)
    torch.save({k: v for k, v in stored.items() if "num_batches" not in k}, tmp_path / "old.pth")
    network = resnet(pretrained=str(tmp_path / "old.pth")).build((3, 32, 32), COLOR, 3)
    assert torch.equal(network.body[0].conv1.weight, stored["conv1.weight"])


def test_weights_of_another_network_are_refused_by_file_and_entry(resnet_file, tmp_path):
    stored = torch.load(resnet_file, weights_only=True)
    deeper = stored | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}
    narrow = stored | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    less = {name: value for name, value in stored.items() if not name.startswith("layer4")}
    for wrong, says in [
        (deeper, "left over layer1.2.conv1.weight"),
        (narrow, r"conv1.weight is \(64, 1, 7, 7\), not \(64, 3, 7, 7\)"),
        (less, "missing layer4.0.conv1.weight; .* and 22 more"),
    ]:
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match=f"wrong.pth does not fit ResNet18: .*{says}"):
            resnet(pretrained=str(tmp_path / "wrong.pth")).build((3, 32, 32), COLOR, 3)


@pytest.mark.parametrize("content", [b"", b"not a file of weights", bytes(range(256)), b"PK\x03\x04"])
def test_a_file_that_is_no_state_dict_is_refused_by_name(content, tmp_path):
    (tmp_path / "odd.pth").write_bytes(content)
    with pytest.raises(ValueError, match="odd.pth must be a state_dict"):
        resnet(pretrained=str(tmp_path / "odd.pth")).build((3, 32, 32), COLOR, 3)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"state_dict": {}}, {3: torch.zeros(2)}], ids=str)
def test_a_file_that_holds_something_else_is_refused_by_name(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="odd.pth must hold a state_dict"):
        vgg(pretrained=str(tmp_path / "odd.pth")).build((3, 32, 32), COLOR, 3)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="module.pth must be a state_dict"):
        resnet(pretrained=str(tmp_path / "module.pth")).build((3, 32, 32), COLOR, 3)


@pytest.mark.parametrize("family", [vgg, resnet, small_vit])
def test_a_missing_file_is_said_before_anything_is_built(family, tmp_path):
    with pytest.raises(FileNotFoundError, match="model.pretrained .*none.pth"):
        family(pretrained=str(tmp_path / "none.pth"))


def test_without_a_network_the_error_says_which_file_to_put_where(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match="needs resnet18-f37072fd.pth .*checkpoints, or give"
    ) as caught:
        resnet(pretrained=True).build((3, 32, 32), COLOR, 3)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "checkpoints") in str(caught.value)


def test_weights_in_the_cache_of_torch_are_used_without_a_network(resnet_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").symlink_to(resnet_file)
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()
    load_weights(network, True, torchvision.models.ResNet18_Weights.DEFAULT, prefix="")
    assert torch.equal(network.conv1.weight, torch.load(resnet_file, weights_only=True)["conv1.weight"])


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory) -> Path:
    """Weights of the small ViT as timm's hub has them."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


def test_a_timm_network_computes_what_timm_computes(vit_file):
    whole = timm.create_model("test_vit").eval()
    whole.load_state_dict(load_file(vit_file))
    network = small_vit(pretrained=str(vit_file)).build((3, 32, 32), COLOR, 4).eval()
    x = items(2, (3, 32, 32))
    seen = functional.interpolate(x / 255, size=(160, 160), mode="bilinear", antialias=True)
    seen = (seen - 0.5) / 0.5  # the mean and std of timm's ViTs
    with torch.no_grad():
        torch.testing.assert_close(network.embed(x), whole.forward_head(whole.forward_features(seen), True))


@pytest.mark.parametrize("name", ["test_resnet", "test_mambaout", "mobilenetv3_small_050", "hgnetv2_b0"])
def test_the_width_of_any_timm_family_is_known(name):
    network = small_vit(name=name, image_size=64).build((3, 8, 8), COLOR, 4).eval()
    assert network.adapt.out == (3, 64, 64)
    assert network(items(2, (3, 8, 8))).shape == (2, 4)


def test_position_embeddings_follow_another_image_size_and_keep_the_weights(vit_file):
    network = small_vit(pretrained=str(vit_file), image_size=32).build((3, 32, 32), COLOR, 4)
    state, stored = network.state_dict(), load_file(vit_file)
    before, after = stored["pos_embed"], state["body.0.pos_embed"]
    assert before.shape[1] - after.shape[1] == 10 * 10 - 2 * 2
    assert torch.equal(state["body.0.patch_embed.proj.weight"], stored["patch_embed.proj.weight"])
    assert network(items(2, (3, 32, 32))).isfinite().all()


def test_a_timm_file_needs_no_classifier_and_may_be_saved_by_torch(vit_file, tmp_path):
    stored = {name: value for name, value in load_file(vit_file).items() if not name.startswith("head.")}
    torch.save(stored, tmp_path / "vit.pth")
    network = small_vit(pretrained=str(tmp_path / "vit.pth"), freeze=True).build((3, 32, 32), COLOR, 4)
    assert torch.equal(network.frozen.cls_token, stored["cls_token"])
    assert {name for name, value in network.named_parameters() if value.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_timm_weights_of_another_network_are_refused_by_file_and_entry(vit_file, tmp_path):
    stored = load_file(vit_file)
    patches = stored | {"patch_embed.proj.weight": torch.zeros(64, 3, 32, 32)}  # timm would stretch these
    less = {name: value for name, value in stored.items() if not name.startswith("blocks.0")}
    for wrong, says in [
        (patches, r"patch_embed.proj.weight is \(64, 3, 32, 32\), not \(64, 3, 16, 16\)"),
        (less, "missing blocks.0.norm1.weight; .* and 9 more"),
        (stored | {"blocks.77.norm1.weight": torch.zeros(64)}, "left over blocks.77.norm1.weight"),
    ]:
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match=f"wrong.safetensors does not fit test_vit: .*{says}"):
            small_vit(pretrained=str(tmp_path / "wrong.safetensors")).build((3, 32, 32), COLOR, 3)
    (tmp_path / "odd.safetensors").write_bytes(b"odd")
    with pytest.raises(ValueError, match="odd.safetensors must be a state_dict"):
        small_vit(pretrained=str(tmp_path / "odd.safetensors")).build((3, 32, 32), COLOR, 3)


def test_timm_weights_in_the_cache_of_the_hub_are_used_without_a_network(vit_file, monkeypatch):
    asked = []

    def cached(repository, name, revision=None):
        asked.append((repository, name))
        return str(vit_file) if name == "model.safetensors" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("downloaded"))
    network = small_vit(pretrained=True).build((3, 32, 32), COLOR, 4)
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]
    assert torch.equal(network.body[0].cls_token, load_file(vit_file)["cls_token"])


def test_without_a_network_the_error_says_which_timm_file_to_fetch(monkeypatch):
    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(
        FileNotFoundError, match="needs model.safetensors of timm/test_vit.r160_in1k"
    ) as caught:
        small_vit(pretrained=True).build((3, 32, 32), COLOR, 3)
    told = str(caught.value)
    assert "\n" not in told
    assert "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors" in told
    assert "model.pretrained=<file>" in told


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
        (lambda: small_vit(name="vit_smal_patch16_224"), "model.name .* did you mean vit_small_patch16_224"),
        (lambda: small_vit(name="qqqq"), "model.name is no model of timm .* timm.list_models"),
        (lambda: small_vit(name="test_vit.none"), "model.name .* got test_vit.none; test_vit has r160_in1k"),
        (
            lambda: small_vit(name="coatnet_0_224", pretrained=True),
            "model.pretrained=true .* none of coatnet_0",
        ),
        (
            lambda: small_vit(name="mixer_s32_224", image_size=64).build((3, 8, 8), COLOR, 3),
            "model.image_size: mixer_s32_224 cannot take images of 64 pixels .*image_size=null",
        ),
        (lambda: small_vit().build((4, 32, 32), GRAY, 3), r"3 channels, got items of shape \(4, 32, 32\)"),
        (lambda: small_vit().build((5,), GRAY, 3), r"items of shape \(5,\)"),
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
