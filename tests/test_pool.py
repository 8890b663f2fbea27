import numpy as np
import pytest
import torch

from alrun.pool import Inputs, Pool, Seeds, smallest, stream


def pool(n: int = 6, classes: int = 3) -> Pool:
    return Pool(Inputs(np.zeros((n, 2), np.float32)), np.full(n, -1, np.int64), classes)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_reveal_gives_a_new_pool_and_leaves_the_old_one_as_it_was():
    old = pool()
    new = old.reveal(rows(4, 1), rows(2, 0))
    assert new.labeled.tolist() == [1, 4]
    assert new.unlabeled.tolist() == [0, 2, 3, 5]
    assert new.labels[[1, 4]].tolist() == [0, 2]
    assert len(old.labeled) == 0


@pytest.mark.parametrize(
    ("bad", "answers", "message"),
    [
        (rows(6), rows(0), "0..5, got 6"),
        (rows(-1), rows(0), "got -1"),
        (rows(2, 2), rows(0, 0), "name a row once"),
        (rows(3), rows(0), "row 3 is already labeled"),
        (rows(1), rows(3), "0..2, got 3"),
    ],
)
def test_reveal_refuses_rows_and_answers_that_cannot_be(bad, answers, message):
    with pytest.raises(ValueError, match=message):
        pool().reveal(rows(3), rows(1)).reveal(bad, answers)


def test_a_stream_depends_on_its_names_and_on_nothing_else():
    draws = stream(3, "select", 1, "margin").random(4)
    stream(3, "another", "consumer").random(100)
    assert (stream(3, "select", 1, "margin").random(4) == draws).all()
    others = [(4, "select", 1, "margin"), (3, "select", 2, "margin"), (3, "select", "1", "margin")]
    for seed, *names in others:
        assert not np.allclose(stream(seed, *names).random(4), draws)


def test_a_branch_with_its_own_seed_varies_alone():
    plain = Seeds(None, None, None, None, None, None, None)
    varied = Seeds(None, None, 7, None, None, None, None)
    assert plain.stream(0, "weights").random() != varied.stream(0, "weights").random()
    for branch in ("split", "initial", "order", "select", "oracle"):
        assert plain.stream(0, branch).random() == varied.stream(0, branch).random()


def test_smallest_sorts_by_value_and_then_by_row_like_a_full_sort():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.integers(0, 5, 40).astype(float)
        some = np.sort(rng.choice(100, 40, replace=False))
        size = int(rng.integers(1, 41))
        expected = some[np.lexsort((some, values))][:size]
        assert (smallest(some, values, size) == expected).all()


def test_smallest_refuses_to_sort_nan():
    with pytest.raises(ValueError, match="NaN for row 5"):
        smallest(rows(4, 5), np.array([0.0, np.nan]), 1)


def test_items_are_taken_by_row_in_the_order_asked(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    np.save(tmp_path / "x.npy", array)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for source in (array, mapped):
        taken = Inputs(source).take(rows(5, 0, 5))
        assert torch.equal(taken, torch.from_numpy(array[[5, 0, 5]]))


def test_moments_of_images_are_per_channel_and_of_features_per_feature():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)
    mean, std = Inputs(images).moments
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)), rtol=1e-5)
    features = rng.normal(3, 2, (50, 7)).astype(np.float32)
    features[:, 2] = 4
    mean, std = Inputs(features).moments
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-5)
    assert std[2] == 1


def test_pixels_are_stored_values_flattened_and_nothing_else():
    images = np.array([[[0, 255], [51, 102]]], np.uint8)
    assert Inputs(images).pixels(rows(0)).tolist() == [[0, 1, np.float32(0.2), np.float32(0.4)]]
    features = np.array([[1e6, -3.0]])
    assert Inputs(features).pixels(rows(0)).tolist() == [[1e6, -3.0]]


@pytest.mark.parametrize(
    "array", [np.zeros((0, 2), np.float32), np.zeros(3, np.float32), np.zeros((3, 2), int)]
)
def test_inputs_that_no_network_reads_are_refused(array):
    with pytest.raises(ValueError, match="inputs must be"):
        Inputs(array)
