"""Features by backbones whose weights come from a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import unlabeled
from torchvision import models

from alrun.cache import scratch
from alrun.features.pretrained import Pretrained, without_end

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return models.get_model(NAME, weights=None).eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture
def make(tmp_path):
    def make(featurizer, points):
        rng = np.random.default_rng(0)
        return featurizer.make(unlabeled(points), lambda rows: 1 / 0, rng, scratch(tmp_path / "folder"))

    return make


def photos(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_features_are_the_averaged_maps_of_resized_and_standardized_images(make, network, weights):
    stored = photos(5, 3, 32, 32)
    x = torch.from_numpy(stored) / 255
    x = torch.nn.functional.interpolate(x, size=(64, 64), mode="bilinear", antialias=True)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    x = (x - mean) / std
    with torch.no_grad():
        expected = network.features(x).mean((2, 3)).numpy()
    features = make(Pretrained(NAME, weights, 64), stored)
    assert features.dtype == np.float32
    assert features.shape == (5, 512)
    assert np.allclose(features, expected, atol=1e-5)


def test_bytes_and_shares_of_one_are_the_same_images(make, weights):
    stored = photos(3, 3, 32, 32)
    featurizer = Pretrained(NAME, weights, 64)
    assert np.array_equal(make(featurizer, stored), make(featurizer, stored / np.float32(255)))


def test_gray_images_are_repeated_in_three_channels(make, weights):
    gray = photos(3, 28, 28)
    featurizer = Pretrained(NAME, weights, 64)
    colored = np.repeat(gray[:, None], 3, axis=1)
    assert np.allclose(make(featurizer, gray), make(featurizer, colored), atol=1e-5)


def test_blocks_do_not_show(make, weights, monkeypatch):
    stored, featurizer = photos(5, 3, 32, 32), Pretrained(NAME, weights, 64)
    whole = make(featurizer, stored)
    monkeypatch.setattr("alrun.training.parts.CPU_ITEMS", 2)
    assert np.allclose(make(featurizer, stored), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("alexnet", 256),
        ("convnext_tiny", 768),
        ("densenet121", 1024),
        ("mobilenet_v3_small", 576),
        ("resnet50", 2048),
        ("swin_t", 768),
        ("vgg16", 512),
        ("vit_b_16", 768),
    ],
)
def test_every_family_loses_its_classifying_end_alone(name, width):
    with torch.device("meta"):
        network = models.get_model(name, weights=None).eval()
        assert without_end(network)(torch.empty(2, 3, 224, 224)).shape == (2, width)


def test_weights_count_by_what_is_in_them(weights, network, tmp_path):
    copied, other = tmp_path / "copy.pth", tmp_path / "other.pth"
    copied.write_bytes(Path(weights).read_bytes())
    torch.save({name: value + 1 for name, value in network.state_dict().items()}, other)
    own = Pretrained(NAME, weights, 64).identity
    assert Pretrained(NAME, str(copied), 64).identity == own
    assert Pretrained(NAME, str(other), 64).identity != own
    assert Pretrained(NAME, weights, 96).identity != own
    assert str(tmp_path) not in str(own)


def test_weights_of_another_network_are_refused(make, weights):
    with pytest.raises(ValueError, match=r"does not fit squeezenet1_0: .*featurizer.name"):
        make(Pretrained("squeezenet1_0", weights, 64), photos(2, 3, 32, 32))


def test_a_file_without_the_classifying_end_is_enough(make, weights, network, tmp_path):
    short = {name: value for name, value in network.state_dict().items() if "classifier" not in name}
    torch.save(short, tmp_path / "short.pth")
    stored = photos(2, 3, 32, 32)
    features = make(Pretrained(NAME, str(tmp_path / "short.pth"), 64), stored)
    assert np.array_equal(features, make(Pretrained(NAME, weights, 64), stored))


def test_settings_that_cannot_work_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="no backbone of torchvision: resnet81; try resnet"):
        Pretrained("resnet81", True, None)
    with pytest.raises(ValueError, match="random network"):
        Pretrained(NAME, False, None)
    with pytest.raises(FileNotFoundError, match="featurizer.weights names a file that does not exist"):
        Pretrained(NAME, str(tmp_path / "absent.pth"), None)


def test_weights_that_cannot_be_had_are_said_to_be_missing(make, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match=r"downloaded \(no network\); give featurizer.weights=<file>"):
        make(Pretrained(NAME, True, 64), photos(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("points", "told"),
    [
        (np.zeros((3, 20), np.float32), "needs images"),
        (np.full((3, 28, 28), 7, np.float32), r"pixels in \[0, 1\]"),
        (np.full((3, 28, 28), np.nan, np.float32), "row 0"),
    ],
    ids=["vectors", "scale", "nan"],
)
def test_items_that_no_weights_know_are_refused(make, weights, points, told):
    with pytest.raises(ValueError, match=told):
        make(Pretrained(NAME, weights, 64), points)


def test_a_transformer_takes_images_of_its_own_size_alone(make, tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="takes images of 224 pixels"):
        make(Pretrained("vit_b_32", str(tmp_path / "empty.pth"), 64), photos(2, 3, 32, 32))
