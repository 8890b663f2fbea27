"""Data sets with a labeled source beside the target: Office-31, Office-Caltech-10, arrays; and their runs."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import settings
from scipy.io import savemat
from test_data import arrays, chance, content, small
from test_mini_imagenet import picture
from test_run import Unwatched

from alrun.assembly import assemble
from alrun.config import ConfigError
from alrun.data.data import Items
from alrun.data.office31 import Office31
from alrun.data.office_caltech10 import FILES, OfficeCaltech10
from alrun.data.split import write_split
from alrun.run import run
from alrun.state import RunFolder

REAL = Path(__file__).parents[1] / "data"
SUBSET = {"classes": None, "pool_size": None, "balanced": False}


def office31(path: Path | None, source: str = "amazon", target: str = "dslr", **others) -> Office31:
    given = {"pool_share": 0.7, "image_size": 8, **SUBSET, **others}
    return Office31(source, target, path=None if path is None else str(path), **given)


def archive(
    root: Path, images: str = "images", domains=("amazon", "dslr", "webcam"), classes=("mug", "pen")
) -> Path:
    """Ten images of each class in each domain."""
    for number, (domain, name) in enumerate((domain, name) for domain in domains for name in classes):
        for i in range(10):
            picture(root / domain / images / name / f"frame_{i:04}.jpg", 100 * number + i)
    return root


@pytest.mark.parametrize("images", ["images", ""])
def test_office31_has_the_source_whole_and_divides_the_target_at_random(images, tmp_path):
    root = archive(tmp_path / "office31", images)
    data = office31(None).load(tmp_path, chance())
    assert data.source is not None
    assert (len(data.labels), len(data.test_labels), len(data.source.labels)) == (14, 6, 20)
    assert data.inputs.shape[1:] == data.source.inputs.shape[1:] == (3, 8, 8)
    assert data.class_names == ("mug", "pen")
    assert np.bincount(data.source.labels).tolist() == [10, 10]
    assert len({*data.files.tolist(), *data.test_files.tolist()}) == 20
    for labels, files in ((data.labels, data.files), (data.test_labels, data.test_files)):
        assert [data.class_names[label] for label in labels] == [Path(file).parent.name for file in files]
        assert all(file.startswith("dslr/") for file in files)
    assert data.labels.tolist() != sorted(data.labels.tolist())
    again, other = (office31(root).load(tmp_path, chance(seed)) for seed in (0, 1))
    assert again.fingerprint() == data.fingerprint() != other.fingerprint()
    assert again.source_fingerprint() == other.source_fingerprint()
    write_split(tmp_path / "split.csv", data)
    assert len((tmp_path / "split.csv").read_text().splitlines()) == 21


def test_another_source_is_another_fingerprint_of_the_same_pool(tmp_path):
    archive(tmp_path / "office31")
    one, two = (office31(None, source).load(tmp_path, chance()) for source in ("amazon", "webcam"))
    assert one.fingerprint() == two.fingerprint()
    assert one.source_fingerprint() != two.source_fingerprint()
    named = replace(one, source=one.source._replace(labels=1 - one.source.labels))
    assert named.source_fingerprint() != one.source_fingerprint()


def test_chosen_classes_are_chosen_in_the_source_too(tmp_path):
    archive(tmp_path / "office31", classes=("cup", "mug", "pen"))
    data = office31(None, classes=[2, 0]).load(tmp_path, chance())
    assert data.class_names == ("pen", "cup")
    assert data.source.labels.tolist() == [1] * 10 + [0] * 10


def test_what_office31_lacks_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*office31.amazon; put there .* public archive"):
        office31(None).load(tmp_path, chance())
    root = archive(tmp_path / "office31")
    (root / "dslr/images/pen").rename(root / "dslr/images/pencil")
    with pytest.raises(ValueError, match="class pen is in amazon and not in dslr"):
        office31(None).load(tmp_path, chance())
    (root / "dslr/images/empty").mkdir()
    with pytest.raises(ValueError, match="no image in .*empty"):
        office31(None).load(tmp_path, chance())
    with pytest.raises(ValueError, match="source must be another domain than the target, got dslr"):
        office31(None, "dslr", "dslr")
    with pytest.raises(ValueError, match=r"pool_share=0.01 of 20 target items"):
        office31(None, "amazon", "webcam", pool_share=0.01).load(tmp_path, chance())


def surf(source: str = "amazon", target: str = "dslr", **others) -> OfficeCaltech10:
    given = {"pool_share": 0.7, "standardized_by": "domain", **SUBSET, **others}
    return OfficeCaltech10(source, target, **given)


@pytest.fixture
def histograms(tmp_path) -> Path:
    """Files of twenty rows, two of each class; some words are never seen."""
    (tmp_path / "office_caltech10_surf").mkdir()
    for seed, name in enumerate(FILES.values()):
        counts = np.random.default_rng(seed).integers(0, 5 + seed, (20, 800)).astype(np.uint8)
        counts[:, :7] = 0
        held = {"fts": counts, "labels": np.repeat(np.arange(1, 11), 2)[:, None].astype(np.uint8)}
        savemat(tmp_path / "office_caltech10_surf" / name, held)
    return tmp_path


def test_surf_rows_are_shares_standardized_in_their_own_domain(histograms):
    data = surf().load(histograms, chance())
    assert (len(data.labels), len(data.test_labels), len(data.source.labels)) == (14, 6, 20)
    target = np.concatenate([data.inputs, data.test_inputs])
    for rows in (target, data.source.inputs):
        assert np.allclose(rows.mean(0), 0, atol=1e-5)
        assert np.allclose(rows.std(0)[7:], 1, atol=1e-4)
        assert not rows[:, :7].any()
    by_source = surf(standardized_by="source").load(histograms, chance())
    assert np.array_equal(by_source.source.inputs, data.source.inputs)
    assert not np.allclose(np.concatenate([by_source.inputs, by_source.test_inputs]).std(0)[7:], 1, atol=0.01)
    assert sorted([*data.files, *data.test_files]) == sorted(f"dslr_SURF_L10.mat:{row}" for row in range(20))
    for label, file in zip(data.labels, data.files, strict=True):
        assert int(file.rpartition(":")[2]) // 2 == label


def test_surf_files_that_are_not_there_or_not_surf_are_named(histograms):
    folder = histograms / "office_caltech10_surf"
    (folder / "amazon_SURF_L10.mat").write_bytes(b"no file of MATLAB at all")
    with pytest.raises(ValueError, match=r"amazon_SURF_L10.mat cannot be read as SURF features"):
        surf().load(histograms, chance())
    savemat(folder / "amazon_SURF_L10.mat", {"fts": np.ones((3, 5)), "labels": np.ones((3, 1))})
    with pytest.raises(ValueError, match=r"must hold fts \(n, 800\) and labels \(n, 1\), got \(3, 5\)"):
        surf().load(histograms, chance())
    (folder / "amazon_SURF_L10.mat").unlink()
    with pytest.raises(FileNotFoundError, match="there is no file .*amazon_SURF_L10.mat; put there"):
        surf().load(histograms, chance())


@pytest.mark.skipif(not (REAL / "office_caltech10_surf").exists(), reason="the real files are not here")
def test_the_real_surf_files_make_twelve_pairs():
    sizes = {"amazon": 958, "caltech": 1123, "dslr": 157, "webcam": 295}
    for source, target in permutations(sizes, 2):
        data = surf(source, target).load(REAL, chance())
        assert len(data.source.labels) == sizes[source]
        assert (len(data.labels), len(data.test_labels)) == (
            round(0.7 * sizes[target]),
            sizes[target] - round(0.7 * sizes[target]),
        )


def test_arrays_may_bring_a_source(tmp_path):
    own = content(x_source=np.ones((5, 3), np.float32), y_source=np.array([0, 1, 0, 1, 1]))
    np.savez(tmp_path / "own.npz", **own)
    for name, array in own.items():
        np.save(tmp_path / f"{name}.npy", array)
    packed, folder = arrays(tmp_path / "own.npz"), arrays(tmp_path)
    assert packed.source.labels.tolist() == [0, 1, 0, 1, 1]
    assert packed.source_fingerprint() == folder.source_fingerprint()
    assert isinstance(folder.source.inputs, np.memmap)
    np.savez(tmp_path / "half.npz", **{name: array for name, array in own.items() if name != "y_source"})
    with pytest.raises(ValueError, match="y_source missing"):
        arrays(tmp_path / "half.npz")


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.zeros((2, 4), np.float32), (0, 1), "of the pool and of the source must agree in shape and type"),
        (np.zeros((2, 3), np.uint8), (0, 1), "of the pool and of the source must agree in shape and type"),
        (np.zeros((2, 3), np.float32), (0, 2), "labels of the source must be in 0..1, got 2 in row 1"),
        (np.zeros((2, 3), np.float32), (0,), "the source needs one label an item, got 2 items and 1 labels"),
        (np.full((2, 3), np.nan, np.float32), (0, 1), "row 0 of the source holds NaN"),
    ],
)
def test_a_source_of_another_kind_is_refused(inputs, labels, message):
    with pytest.raises(ValueError, match=message):
        replace(small(), source=Items(inputs, np.array(labels)))


def test_the_pool_carries_its_source_through_purchases():
    items = Items(np.ones((2, 3), np.float32), np.array([0, 1]))
    pool = replace(small(), source=items).pool(np.full(4, -1), torch.device("cpu"))
    bought = pool.reveal(np.array([1]), np.array([1]))
    assert bought.source is pool.source
    assert bought.blank.labels.tolist() == [-1] * 4
    assert small().pool(np.full(4, -1), torch.device("cpu")).source is None


def played(folder: Path, data_dir: Path, *words: str) -> None:
    fast = ("tracker=none", "budget.rounds=1", "trainer.epochs=1", f"cache.dir={folder.parent / 'cache'}")
    tiny = ("featurizer.epochs=1", "featurizer.steps=2", f"data_dir={data_dir}")
    found = settings(*fast, *tiny, "featurizer=fdal", "strategy=coreset", *words)
    found["choices"] = {"dataset": "any", "strategy": "coreset"}
    run(assemble(found), RunFolder(folder), found, Unwatched())


def test_a_run_adapts_and_does_not_go_on_with_another_source(histograms, tmp_path):
    words = ("dataset=office_caltech10", "dataset.target=dslr")
    played(tmp_path / "run", histograms, *words)
    told = json.loads((tmp_path / "run" / "environment.json").read_text())["data"]
    assert told["source"] == surf().load(histograms, chance()).source_fingerprint()
    assert (tmp_path / "run" / "features-fdal.csv").exists()
    amazon = histograms / "office_caltech10_surf" / "amazon_SURF_L10.mat"
    amazon.write_bytes((amazon.parent / "Caltech10_SURF_L10.mat").read_bytes())
    (tmp_path / "run" / "checkpoint" / "finished").unlink()
    with pytest.raises(ConfigError, match="not the data that"):
        played(tmp_path / "run", histograms, *words)


def test_a_data_set_without_a_source_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(
        ConfigError, match="featurizer: adapts from a labeled source .* the data set has no source"
    ):
        played(tmp_path / "run", tmp_path, "dataset=digits")
    assert not (tmp_path / "run").exists()
