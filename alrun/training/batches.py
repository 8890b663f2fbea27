"""Labeled items as mini-batches of what a network's trainable part receives."""

from collections.abc import Iterator
from math import prod

import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from alrun.models.network import Network
from alrun.pool import Pool
from alrun.training.augment import augmented
from alrun.training.model import fixed_reader, parts

RESIDENT_BYTES = 2**30


class Batches:
    """Some labeled rows of a pool. Up to 1 GiB they are kept on the device, adapted unless augmented.

    `crop` and `flip` augment each item anew whenever it is read.
    """

    def __init__(
        self, network: Network, pool: Pool, rows: Int64[ndarray, " l"], *, crop: int, flip: bool
    ) -> None:
        inputs = pool.inputs
        self._network, self._rows, self._device = network, rows, inputs.device
        self._crop, self._flip = crop, flip
        self._labels = torch.from_numpy(pool.labels[rows])
        self._read = inputs.take if crop or flip else fixed_reader(network, inputs)
        each = inputs.array[:1].nbytes if crop or flip else 4 * prod(network.adapt.out)
        self._kept = self._together() if each * len(rows) <= RESIDENT_BYTES else None

    def __len__(self) -> int:
        return len(self._rows)

    def each(self, order: Int64[ndarray, " l"], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Items and labels in this order of positions, one mini-batch after the other."""
        index, sizes = torch.from_numpy(order), sizes_of(len(order), batch_size)
        labels = self._labels[index].to(self._device).split(sizes)
        if self._kept is not None:
            # one gather an epoch: slices cost a step nothing
            items = iter(self._kept.index_select(0, index.to(self._device)).split(sizes))
        else:
            items = (self._read(self._rows[part.numpy()]) for part in index.split(sizes))
        if self._crop or self._flip:
            items = (self._network.fixed(augmented(x, self._crop, self._flip)) for x in items)
        return zip(items, labels, strict=True)

    def _together(self) -> Tensor:
        slices = parts(len(self), prod(self._network.adapt.out), self._device)
        first = self._read(self._rows[slices[0]])
        if len(slices) == 1:
            return first
        whole = first.new_empty((len(self), *first.shape[1:]))
        for part in slices:
            whole[part] = self._read(self._rows[part])
        return whole


def sizes_of(count: int, batch_size: int) -> list[int]:
    """Sizes of mini-batches; a last single item joins the batch before (BatchNorm cannot learn from one)."""
    sizes = [batch_size] * (count // batch_size) + ([count % batch_size] if count % batch_size else [])
    if len(sizes) > 1 and sizes[-1] == 1 and batch_size > 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


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
