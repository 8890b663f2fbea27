import tracemalloc

import numpy as np
import pytest
from numpy import ndarray
from sklearn.decomposition import PCA

from alrun.retrieval import spectrum
from alrun.retrieval.projection import Projection
from alrun.retrieval.spectrum import Rows


def spread(n: int, d: int, seed: int = 0) -> ndarray:
    """Rows whose variances fall from direction to direction, far from the origin."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * 0.8 ** np.arange(d) @ turn + 30).astype(np.float32)


def by_sklearn(points: ndarray, dims: int) -> ndarray:
    fitted = PCA(dims, svd_solver="full").fit(points.astype(np.float64))
    components = np.asarray(fitted.components_)
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(dims), largest])
    return fitted.transform(points.astype(np.float64)) * signs


@pytest.fixture(params=["covariance", "subspace"])
def way(request, monkeypatch) -> None:
    """Both ways for rows that would go the first."""
    if request.param == "subspace":
        monkeypatch.setattr(spectrum, "WIDEST", 4)


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(spectrum, "BLOCK_BYTES", 4 * 8 * 20 * 7)  # seven rows of 20 features


@pytest.mark.usefixtures("way")
def test_components_are_those_of_scikit_learn():
    points = spread(300, 20)
    projection = Projection.of(points, 6)
    assert projection.apply(points) == pytest.approx(by_sklearn(points, 6), abs=2e-5)
    assert projection.mean == pytest.approx(points.mean(axis=0, dtype=np.float64), abs=1e-9)
    assert projection.directions.T @ projection.directions == pytest.approx(np.eye(6), abs=1e-12)


@pytest.mark.usefixtures("way", "small_blocks")
def test_blocks_files_and_callables_give_what_the_array_gives(tmp_path):
    points = spread(100, 20)
    np.save(tmp_path / "points.npy", points)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    whole = by_sklearn(points, 5)
    for features in (points, mapped, Rows(100, 20, lambda part: mapped[part])):
        projection = Projection.of(features, 5)
        written = projection.write(features, tmp_path / "written.npy")
        assert isinstance(written, np.memmap)
        assert written.dtype == np.float32
        assert (written == projection.apply(points)).all()
        assert written == pytest.approx(whole, abs=2e-5)


def test_wide_rows_keep_their_leading_variance():
    points = np.random.default_rng(0).normal(size=(150, 2100)) * 0.8 ** np.arange(2100)
    points = points.astype(np.float32)
    projected = Projection.of(points, 10).apply(points)
    assert projected.var(axis=0) == pytest.approx(by_sklearn(points, 10).var(axis=0), rel=1e-4)


@pytest.mark.parametrize(
    ("n", "d", "dims", "kept"), [(100, 6, 50, 6), (5, 20, 50, 4), (1, 20, 3, 0), (60, 20, 7, 7)]
)
@pytest.mark.usefixtures("way")
def test_no_more_dimensions_than_features_and_rows_vary_in(n, d, dims, kept):
    projection = Projection.of(spread(n, d), dims)
    assert projection.dims == kept
    assert projection.apply(spread(n, d)).shape == (n, kept)


@pytest.mark.usefixtures("way")
def test_directions_without_variance_are_dropped():
    points = np.zeros((50, 12), np.float32)
    points[:, 3], points[:, 7] = 5, np.arange(50)
    points[:, 9] = np.arange(50) % 2
    projection = Projection.of(points, 12)
    assert projection.dims == 2
    assert np.linalg.norm(projection.directions, axis=1)[[3, 5]] == pytest.approx([0, 0], abs=1e-12)
    gaps = np.linalg.norm(projection.apply(points[:1]) - projection.apply(points[1:2]))
    assert gaps == pytest.approx(np.sqrt(2), rel=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_equal_rows_stay_equal_in_any_block():
    points = np.tile(spread(9, 20), (20, 1))
    projected = Projection.of(points, 5).apply(points)
    assert (projected.reshape(20, 9, -1) == projected[:9]).all()


def test_directions_point_to_their_largest_weight():
    directions = Projection.of(spread(100, 20), 8).directions
    assert (directions[np.abs(directions).argmax(axis=0), np.arange(8)] > 0).all()


@pytest.mark.usefixtures("way")
def test_memory_is_bounded_by_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(spectrum, "BLOCK_BYTES", 2**20)
    part = spread(1000, 40)
    rows = Rows(200_000, 40, lambda cut: part[np.arange(cut.start, cut.stop) % 1000])
    tracemalloc.start()
    projection = Projection.of(rows, 5)
    projection.write(rows, tmp_path / "points.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20 < 200_000 * 5 * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.usefixtures("small_blocks", "way")
def test_what_is_no_number_is_named_by_its_row(bad):
    points = spread(50, 20)
    points[33, 4] = bad
    with pytest.raises(ValueError, match="features must be finite, row 33 holds NaN or inf"):
        Projection.of(points, 3)


def test_misfits_are_told(tmp_path):
    points, constant = spread(50, 20), np.ones((5, 2), np.float32)
    with pytest.raises(ValueError, match="dims=0"):
        Projection.of(points, 0)
    with pytest.raises(ValueError, match="projection is of 20 features, got 7"):
        Projection.of(points, 3).apply(points[:, :7])
    with pytest.raises(ValueError, match=r"rows 0\.\.49 must come as \(50, 20\) numbers, got \(50, 19\)"):
        Projection.of(Rows(50, 20, lambda part: points[part, 1:]), 3)
    with pytest.raises(ValueError, match="no component to write"):
        Projection.of(constant, 2).write(constant, tmp_path / "points.npy")
