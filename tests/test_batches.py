"""Mini-batches: how large, read from where, gathered how many at once."""

import numpy as np
import torch
from fits import NORMED, equal, fitted, pool, weights

from alrun.pool import Inputs, Pool
from alrun.training.augment import UNTOUCHED
from alrun.training.batches import Batches
from alrun.training.parts import sizes_of


def test_batches_are_as_even_as_can_be_and_none_has_a_single_item():
    assert sizes_of(200, 64) == [50, 50, 50, 50]
    assert sizes_of(10, 4) == [4, 3, 3]
    assert sizes_of(5, 8) == [5]
    assert sizes_of(1, 8) == [1]
    assert sizes_of(3, 1) == [1, 1, 1]
    assert sizes_of(3, 2) == [3]
    for count in range(2, 60):
        for most in range(2, 20):
            sizes = sizes_of(count, most)
            assert sum(sizes) == count
            assert max(sizes) - min(sizes) <= 1
            assert min(sizes) >= 2
            assert max(sizes) <= max(most, 3)
            assert len(sizes) == -(-count // most) or most == 2
    fitted(pool(bought=9), NORMED, batch_size=2)


def test_memory_mapped_inputs_train_to_the_same_bits(tmp_path):
    data = pool()
    np.save(tmp_path / "x.npy", data.inputs.array)
    mapped = Pool(Inputs(np.load(tmp_path / "x.npy", mmap_mode="r")), data.labels, 3)
    assert equal(weights(fitted(data)), weights(fitted(mapped)))


def test_items_that_do_not_fit_are_read_batch_by_batch_to_the_same_bits(monkeypatch):
    whole = weights(fitted(pool()))
    monkeypatch.setattr("alrun.training.batches.RESIDENT_BYTES", 0)
    assert equal(whole, weights(fitted(pool())))


def test_rows_that_come_back_in_an_epoch_are_never_gathered_all_at_once(monkeypatch):
    data, order, largest = pool(), np.tile(np.arange(30), 5)[:147], []
    batches = Batches(fitted(data).network, data, data.labeled, UNTOUCHED)
    whole = list(batches.each(order, 8))
    assert sum(len(y) for _, y in whole) == 147
    assert torch.equal(torch.cat([x for x, _ in whole]), batches._kept[torch.from_numpy(order)])
    plain = torch.Tensor.index_select

    def gathers(items, axis, index):
        largest.append(len(index))
        return plain(items, axis, index)

    monkeypatch.setattr(torch.Tensor, "index_select", gathers)
    for limit, steps in ((1, 1), (3 * 8 * 5 * 4, 3)):  # of 5 numbers in float32
        largest.clear()
        monkeypatch.setattr("alrun.training.batches.GATHERED_BYTES", limit)
        for (x, y), (again, label) in zip(whole, batches.each(order, 8), strict=True):
            assert torch.equal(x, again)
            assert torch.equal(y, label)
        assert max(largest) == 8 * steps
