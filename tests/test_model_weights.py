"""Networks that begin with weights from a file, and those whose layers are frozen."""

from pathlib import Path

import pytest
import torch
import torchvision
from test_models import COLOR, items, resnet, small_vit, vgg
from torch import nn

from alrun.models.mlp import Mlp
from alrun.models.network import Network
from alrun.models.pretrained import load_weights


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def frozen(resnet_file) -> Network:
    return resnet(pretrained=str(resnet_file), freeze=True, dropout=0.5).build((3, 32, 32), COLOR, 4)


def test_hidden_layers_of_a_frozen_network_are_trained_with_its_head(resnet_file):
    network = resnet(pretrained=str(resnet_file), freeze=True, hidden=[5]).build((3, 32, 32), COLOR, 4)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained == {"body.0.weight", "body.0.bias", "head.weight", "head.bias"}
    assert network.fixed(items(2, (3, 32, 32))).shape == (2, 512)


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
