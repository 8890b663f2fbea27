"""Image sets read by torchvision, from real files, made files, and failing downloads."""

import bz2
import io
import pickle
import socket
import tarfile
import urllib.error
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from test_data import REAL, chance, load
from torchvision import datasets

from alrun.data import download
from alrun.data.torchvision_sets import STL10_NAMES, Svhn, _LabeledStl10


def rng_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def idx(array):
    """The bytes of an idx file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def written(path, content):
    """Writes the bytes and gives their md5 sum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5(content, usedforsecurity=False).hexdigest()


def usps_lines(labels):
    return bz2.compress(
        "".join(f"{y} {' '.join(f'{i + 1}:-1' for i in range(256))}\n" for y in labels).encode()
    )


def mat(labels, images):
    file = io.BytesIO()
    savemat(file, {"X": images, "y": np.array(labels, np.uint8)[:, None]})
    return file.getvalue()


@pytest.fixture
def no_network(monkeypatch):
    def refused(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refused)


@pytest.mark.parametrize(
    ("name", "counts", "tested", "shape"),
    [
        ("mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 10000, (28, 28)),
        ("fashion_mnist", [6000] * 10, 10000, (28, 28)),
        ("usps", [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644], 2007, (16, 16)),
        ("cifar10", [5000] * 10, 10000, (3, 32, 32)),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_real_files_have_their_published_counts(name, counts, tested, shape):
    if not REAL.is_dir():
        pytest.skip("the real files are not in data/")
    real = load(name, REAL)
    assert np.bincount(real.labels).tolist() == counts
    assert real.inputs.shape == (sum(counts), *shape)
    assert real.test_inputs.shape == (tested, *shape)
    assert real.inputs.dtype == np.uint8
    assert real.inputs.flags.c_contiguous


@pytest.mark.usefixtures("no_network")
def test_mnist_files_of_another_size_are_read_as_they_are(tmp_path):
    images, labels = rng_images(6, 28, 28), np.arange(6) % 3
    for part in ("train", "t10k"):
        written(tmp_path / f"MNIST/raw/{part}-images-idx3-ubyte", idx(images))
        written(tmp_path / f"MNIST/raw/{part}-labels-idx1-ubyte", idx(labels))
    mnist = load("mnist", tmp_path)
    assert (mnist.inputs == images).all()
    assert mnist.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert load("mnist", tmp_path, classes=[2, 1], pool_size=2, balanced=True).class_names == ("2", "1")


@pytest.mark.usefixtures("no_network")
def test_emnist_letters_are_turned_upright_and_counted_from_zero(tmp_path):
    upright, labels = rng_images(4, 28, 28), np.array([1, 26, 13, 1])
    for part in ("train", "test"):
        file = tmp_path / f"EMNIST/raw/emnist-letters-{part}"
        written(Path(f"{file}-images-idx3-ubyte"), idx(upright.transpose(0, 2, 1)))
        written(Path(f"{file}-labels-idx1-ubyte"), idx(labels))
    letters = load("emnist_letters", tmp_path)
    assert (letters.inputs == upright).all()
    assert letters.inputs.flags.c_contiguous
    assert [letters.class_names[label] for label in letters.labels] == ["a", "z", "m", "a"]


@pytest.mark.usefixtures("no_network")
def test_svhn_puts_the_extra_images_after_the_training_ones_and_reads_ten_as_zero(tmp_path, monkeypatch):
    images = {part: rng_images(32, 32, 3, size) for part, size in (("train", 4), ("test", 2), ("extra", 3))}
    labels = {"train": [10, 1, 2, 9], "test": [1, 10], "extra": [5, 10, 5]}
    for part, (url, file, _) in datasets.SVHN.split_list.items():
        known = written(tmp_path / "SVHN" / file, mat(labels[part], images[part]))
        monkeypatch.setitem(datasets.SVHN.split_list, part, [url, file, known])
    plain, more = (Svhn(extra, None, None, False).load(tmp_path, chance()) for extra in (False, True))
    assert plain.labels.tolist() == [0, 1, 2, 9]
    assert more.labels.tolist() == [0, 1, 2, 9, 5, 0, 5]
    assert (more.inputs[:4] == plain.inputs).all()
    assert (more.inputs[4:] == images["extra"].transpose(3, 2, 0, 1)).all()
    assert more.inputs.flags.c_contiguous
    assert more.test_inputs.flags.c_contiguous


@pytest.mark.usefixtures("no_network")
def test_stl10_is_read_without_its_unlabeled_images(tmp_path, monkeypatch):
    upright = rng_images(3, 3, 96, 96)
    content = {"X": upright.transpose(0, 1, 3, 2).tobytes(), "y": bytes([1, 10, 2])}
    lists = {
        part: [
            [f"{part}_{k}.bin", written(tmp_path / f"stl10_binary/{part}_{k}.bin", content[k])] for k in "Xy"
        ]
        for part in ("train", "test")
    }
    monkeypatch.setattr(_LabeledStl10, "train_list", lists["train"])
    monkeypatch.setattr(_LabeledStl10, "test_list", lists["test"])
    stl10 = load("stl10", tmp_path)
    assert (stl10.inputs == upright).all()
    assert stl10.inputs.flags.c_contiguous
    assert [stl10.class_names[label] for label in stl10.labels] == ["airplane", "truck", "bird"]
    assert stl10.class_names == STL10_NAMES


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """The archive of a tiny CIFAR-100, as torchvision knows it, and its images."""
    images = rng_images(4, 3, 32, 32)
    batch = {"data": images.reshape(4, -1), "fine_labels": [0, 99, 5, 0], "coarse_labels": [1] * 4}
    names = {"fine_label_names": [f"thing {number}" for number in range(100)]}
    content = {"train": batch, "test": batch, "meta": names}
    sums = {
        file: written(tmp_path / "made/cifar-100-python" / file, pickle.dumps(what))
        for file, what in content.items()
    }
    with tarfile.open(tmp_path / "made/cifar-100-python.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "made/cifar-100-python", "cifar-100-python")
    known = md5((tmp_path / "made/cifar-100-python.tar.gz").read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", datasets.CIFAR100.meta | {"md5": sums["meta"]})
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", known)
    return tmp_path / "made", images


@pytest.mark.usefixtures("no_network")
def test_cifar100_is_read_from_its_files_or_from_its_archive(tmp_path, cifar100):
    made, images = cifar100
    (tmp_path / "packed").mkdir()
    (made / "cifar-100-python.tar.gz").rename(tmp_path / "packed/cifar-100-python.tar.gz")
    for folder in (made, tmp_path / "packed", tmp_path / "packed"):
        read = load("cifar100", folder)
        assert (read.inputs == images).all()
        assert [read.class_names[label] for label in read.labels] == [
            "thing 0",
            "thing 99",
            "thing 5",
            "thing 0",
        ]
    left = sorted(path.name for path in (tmp_path / "packed").iterdir())
    assert left == ["cifar-100-python", "cifar-100-python.tar.gz"]


@pytest.mark.usefixtures("no_network")
def test_damaged_files_say_so_and_are_left_in_place(cifar100):
    made, _ = cifar100
    (made / "cifar-100-python/train").write_bytes(b"cut")
    with pytest.raises(
        ValueError, match="data set cifar100: damaged files in /.*cifar-100-python .*delete them"
    ):
        load("cifar100", made)
    assert (made / "cifar-100-python/train").read_bytes() == b"cut"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "put train-images-idx3-ubyte, .*t10k-labels-idx1-ubyte in /.*/new/MNIST/raw "),
        ("emnist_letters", "put emnist-letters-train-images-idx3-ubyte, .* in /.*/new/EMNIST/raw "),
        ("usps", "put usps.bz2, usps.t.bz2 in /.*/new/USPS "),
        ("cifar10", "put data_batch_1, .*, batches.meta in /.*/new/cifar-10-batches-py "),
        ("stl10", "put train_X.bin, train_y.bin, test_X.bin, test_y.bin in /.*/new/stl10_binary "),
    ],
)
def test_without_a_network_the_error_says_which_files_go_where(tmp_path, name, message):
    with pytest.raises(FileNotFoundError, match=message) as raised:
        load(name, tmp_path / "new")
    assert raised.value.__suppress_context__
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


class Response(io.BytesIO):
    """What urlopen gives for these bytes."""

    def __init__(self, url, content):
        super().__init__(content)
        self.url, self.length = url, len(content)


@pytest.mark.parametrize("whole", [True, False])
def test_a_download_leaves_all_files_or_none(tmp_path, monkeypatch, whole):
    served = {part: usps_lines([1, 2, 10]) for part in ("usps.bz2", "usps.t.bz2")}
    for part, (url, file, _) in dict(datasets.USPS.split_list).items():
        known = md5(served[file], usedforsecurity=False).hexdigest()
        monkeypatch.setitem(datasets.USPS.split_list, part, [url, file, known])
    if not whole:
        served["usps.t.bz2"] = served["usps.t.bz2"][:40]
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda asked: Response(asked.full_url, served[Path(asked.full_url).name])
    )
    if whole:
        assert load("usps", tmp_path).labels.tolist() == [0, 1, 9]
        assert [path.name for path in tmp_path.iterdir()] == ["USPS"]
        monkeypatch.setattr("urllib.request.urlopen", None)
        assert load("usps", tmp_path).inputs.shape == (3, 16, 16)
    else:
        with pytest.raises(FileNotFoundError, match=r"cannot be downloaded \(File not found or corrupted"):
            load("usps", tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/usps.bz2"
        monkeypatch.setitem(datasets.USPS.split_list, "train", [url, "usps.bz2", "0"])
        with pytest.raises(FileNotFoundError, match="timed out"):
            load("usps", tmp_path)
    assert socket.getdefaulttimeout() == before


@pytest.mark.usefixtures("no_network")
def test_the_first_training_images_are_the_pool_before_classes_are_chosen():
    """S4's MNIST: 50,000 of ten digits, 9,681 of the digits 5 and 7."""
    if not REAL.is_dir():
        pytest.skip("the real files are not in data/")
    whole, part = load("mnist", REAL), load("mnist", REAL, first=50_000, classes=[5, 7])
    of_both = np.flatnonzero(np.isin(whole.labels[:50_000], [5, 7]))
    assert np.array_equal(part.inputs, whole.inputs[of_both])
    assert np.array_equal(part.labels, whole.labels[of_both] == 7)
    assert (len(part.labels), len(part.test_labels), part.class_names) == (9681, 1920, ("5", "7"))
    with pytest.raises(ValueError, match="first wants 60001 images but there are 60000"):
        load("mnist", REAL, first=60_001)
