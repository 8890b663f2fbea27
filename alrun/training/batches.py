"""Labeled items as mini-batches of what a network's trainable part receives."""

from collections.abc import Iterator
from math import prod

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from alrun.models.network import Network
from alrun.pool import Pool
from alrun.training.augment import Augmentation
from alrun.training.model import fixed_reader
from alrun.training.parts import parts, sizes_of

RESIDENT_BYTES = 2**30
GATHERED_BYTES = 2**27  # at once; bought rows that come back in each step would else be many times the pool


class Batches:
    """Some rows of a pool. Up to 1 GiB they are kept on the device, adapted unless augmented.

    The augmentation changes each item anew whenever it is read.
    """

    def __init__(
        self, network: Network, pool: Pool, rows: Int64[ndarray, " l"], augmentation: Augmentation
    ) -> None:
        inputs = pool.inputs
        self._network, self._rows, self._device = network, rows, inputs.device
        self._augmentation = augmentation
        self._labels = torch.from_numpy(pool.labels[rows])
        self._read = inputs.take if augmentation else fixed_reader(network, inputs)
        each = inputs.array[:1].nbytes if augmentation else 4 * prod(network.adapt.out)
        self._kept = self._together() if each * len(rows) <= RESIDENT_BYTES else None

    def __len__(self) -> int:
        return len(self._rows)

    def each(self, order: Int64[ndarray, " l"], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Items and labels in this order of positions, one mini-batch after the other."""
        return ((self._seen(x), y) for x, y in self._stored(order, batch_size))

    def twice(self, order: Int64[ndarray, " l"], batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `each`, with two looks at the items, which differ where they are augmented."""
        if not self._augmentation:
            return ((x, x, y) for x, y in self._stored(order, batch_size))
        return ((self._seen(x), self._seen(x), y) for x, y in self._stored(order, batch_size))

    def _stored(self, order: Int64[ndarray, " l"], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        index, sizes = torch.from_numpy(order), sizes_of(len(order), batch_size)
        labels = self._labels[index].to(self._device).split(sizes)
        if self._kept is not None:
            items = _gathered(self._kept, index.to(self._device), sizes)
        else:
            items = (self._read(self._rows[part.numpy()]) for part in index.split(sizes))
        return zip(items, labels, strict=True)

    def _seen(self, x: Tensor) -> Tensor:
        return self._network.fixed(self._augmentation.of(x)) if self._augmentation else x

    def _together(self) -> Tensor:
        slices = parts(len(self), prod(self._network.adapt.out), self._device)
        first = self._read(self._rows[slices[0]])
        if len(slices) == 1:
            return first
        whole = first.new_empty((len(self), *first.shape[1:]))
        for part in slices:
            whole[part] = self._read(self._rows[part])
        return whole


def _gathered(items: Tensor, index: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """Items in this order, cut in mini-batches; many are gathered at once, as slices cost a step nothing."""
    most = max(1, GATHERED_BYTES // max(1, items[:1].nbytes * max(sizes, default=1)))
    groups = [sizes[start : start + most] for start in range(0, len(sizes), most)]
    for part, own in zip(index.split([sum(group) for group in groups]), groups, strict=True):
        yield from items.index_select(0, part).split(own)


def cycled(rows: Int64[ndarray, " m"], count: int, rng: np.random.Generator) -> Int64[ndarray, " count"]:
    """So many of these rows, from shuffled passes joined end to end."""
    passes = -(-count // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(passes)])[:count]


def flattened(weights: list[torch.nn.Parameter]) -> torch.nn.Parameter:
    """One vector in which all weights and their gradients henceforth lie, as views.

    An optimizer then makes one call a step and not one a tensor. A bare loop on 2 CPU cores: 7,500 to 9,800
    steps per second (MLP 2-30-30-2, SGD, batch 1), 1,960 to 3,150 (784-100-50-10, BatchNorm, Adam, batch 8).
    """
    whole = torch.nn.Parameter(torch.cat([weight.detach().reshape(-1) for weight in weights]))
    whole.grad = torch.zeros_like(whole)
    start = 0
    for weight in weights:
        stop = start + weight.numel()
        weight.data = whole.data[start:stop].view_as(weight)
        weight.grad = whole.grad[start:stop].view_as(weight)
        start = stop
    return whole
