"""LSUN from real databases and folders of JPEG files: the order of its images, and what is read again."""

import builtins
import io

import numpy as np
import pytest
from PIL import Image
from test_data import chance
from test_prepared import Told

from alrun.data import lsun
from alrun.data.data import Preparing
from alrun.data.lsun import SCENES, Lsun

SIDE = 4
COUNTS = {"bedroom": 14, "bridge": 6, "tower": 10}
CHOSEN = [SCENES.index(name) for name in COUNTS]
SHADES = {name: 40 + 70 * place for place, name in enumerate(COUNTS)}


def encoded(name: str, place: int) -> bytes:
    """A JPEG of one shade, from which its class and its place there can be read again."""
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (SHADES[name] + 4 * place,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def databases(root):
    """Each class as a database; keys are in the order of the places, as hashes would be in some order."""
    store = pytest.importorskip("lmdb")
    for name, count in COUNTS.items():
        folder = root / f"{name}_train_lmdb"
        folder.mkdir(parents=True)
        with store.open(str(folder), map_size=2**22) as made, made.begin(write=True) as writing:
            for place in range(count):
                writing.put(f"{place:040x}".encode(), encoded(name, place))
    return root


def folders(root):
    """Each class as a folder, its images in folders below."""
    for name, count in COUNTS.items():
        for place in range(count):
            file = root / name / str(place % 2) / f"{place}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(name, place))
    return root


BOTH = pytest.mark.parametrize("make", [databases, folders])


def scenes(**settings) -> Lsun:
    given = {"path": None, "image_size": SIDE, "crop": None, "test_size": 5, "split_seed": 0}
    return Lsun(**{**given, "classes": CHOSEN, "pool_size": None, **settings})


def shades(images) -> np.ndarray:
    """What tells the images apart, up to what JPEG loses."""
    return np.round((images.reshape(len(images), -1).mean(axis=1) - 40) / 2).astype(int)


def all_shades() -> list[int]:
    return sorted((SHADES[name] - 40) // 2 + 2 * place for name in COUNTS for place in range(COUNTS[name]))


@BOTH
def test_every_image_is_once_in_pool_or_test_set_under_its_class_and_stays_on_disk(make, tmp_path):
    make(tmp_path / "lsun")
    data = scenes().load(tmp_path, chance())
    assert isinstance(data.inputs, np.memmap)
    assert data.class_names == tuple(COUNTS)
    assert (data.inputs.shape, data.test_inputs.shape) == ((25, 3, SIDE, SIDE), (5, 3, SIDE, SIDE))
    assert sorted([*shades(data.inputs), *shades(data.test_inputs)]) == all_shades()
    for images, labels in ((data.inputs, data.labels), (data.test_inputs, data.test_labels)):
        assert labels.dtype == np.int64
        assert np.array_equal(np.searchsorted([35, 70], shades(images), "right"), labels)
    assert (np.diff(data.labels) < 0).any()  # classes are mixed


@BOTH
def test_a_larger_pool_begins_with_a_smaller_one_and_only_the_rest_is_read(make, tmp_path, monkeypatch):
    make(tmp_path / "lsun")
    monkeypatch.setattr(lsun, "BLOCK", 3)
    seen = []
    square = lsun.square
    monkeypatch.setattr(lsun, "square", lambda *given: (seen.append(given[1]), square(*given))[1])
    small = scenes(pool_size=7)
    small.prepare(tmp_path, Told())
    assert len(seen) == len(set(seen)) == 12
    told = Told()
    whole = scenes().load(tmp_path, chance())
    assert len(seen) == len(set(seen)) == 30
    part = small.load(tmp_path, chance())
    assert np.array_equal(part.inputs, whole.inputs[:7])
    assert np.array_equal(part.labels, whole.labels[:7])
    assert np.array_equal(part.test_inputs, whole.test_inputs)
    scenes().prepare(tmp_path, told)
    assert told.news == []


def test_the_split_follows_its_own_seed_and_not_the_runs(tmp_path):
    folders(tmp_path / "lsun")
    one, again = (scenes().load(tmp_path, chance(seed)) for seed in (0, 1))
    other = scenes(split_seed=1).load(tmp_path, chance())
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert sorted(shades(one.test_inputs)) != sorted(shades(other.test_inputs))


def test_images_of_a_database_come_in_the_order_of_its_keys(tmp_path):
    (part,) = scenes(classes=[SCENES.index("tower")])._parts(databases(tmp_path / "lsun").parent)
    assert len(part) == 10
    for start in (0, 3, 10):
        names = [name for name, _ in part.images(start)]
        assert names == [f"tower_train_lmdb {place:040x}" for place in range(start, 10)]


def test_classes_that_are_not_there_are_named_with_where_they_go_and_come_from(tmp_path):
    folders(tmp_path / "lsun")
    assert isinstance(scenes(), Preparing)
    with pytest.raises(FileNotFoundError, match=r"church_outdoor, .*, restaurant missing in .*/lsun; put"):
        scenes(classes=None).load(tmp_path, chance())


@pytest.mark.parametrize("classes", [[0, 0], [0, 10]])
def test_classes_that_lsun_has_not_are_refused(classes, tmp_path):
    with pytest.raises(ValueError, match="classes must name some of 0, .*, 9, each once, got"):
        scenes(classes=classes).load(tmp_path, chance())


def test_sizes_beyond_what_is_there_are_refused(tmp_path):
    folders(tmp_path / "lsun")
    for settings in ({"pool_size": 26}, {"test_size": 30}):
        with pytest.raises(ValueError, match=r"want \d+ images but there are 30; lower them"):
            scenes(**settings).load(tmp_path, chance())


def test_databases_without_their_package_and_damaged_ones_are_told(tmp_path, monkeypatch):
    databases(tmp_path / "lsun")
    (tmp_path / "lsun" / "bridge_train_lmdb" / "data.mdb").write_bytes(b"no database at all" * 1000)
    with pytest.raises(ValueError, match="bridge_train_lmdb is no whole database"):
        scenes().load(tmp_path, chance())
    ours = builtins.__import__

    def without(name, *rest, **more):
        if name == "lmdb":
            raise ModuleNotFoundError(name)
        return ours(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="needs the package lmdb; install it"):
        scenes().load(tmp_path, chance())


def test_a_damaged_image_is_named(tmp_path):
    root = folders(tmp_path / "lsun")
    (root / "bridge" / "0" / "2.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="bridge/0/2.jpg is no readable image"):
        scenes().load(tmp_path, chance())
