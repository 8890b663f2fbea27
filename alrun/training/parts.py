"""How many items go through a network at once."""

import torch

# Numbers entering the network at once, and items; they bound memory. MLP 784-100-50-10 on 2 busy CPU cores:
# 164,000 items a second by 256, 158,000 by 1,024, 139,000 by 4,096. The GPU's are not measured.
CPU_NUMBERS, CPU_ITEMS = 2**20, 4096
GPU_NUMBERS, GPU_ITEMS = 2**26, 16384


def parts(count: int, numbers: int, device: torch.device) -> list[slice]:
    """Slices that bound how many items, of so many numbers each, go through where nothing is learned."""
    most, items = (GPU_NUMBERS, GPU_ITEMS) if device.type == "cuda" else (CPU_NUMBERS, CPU_ITEMS)
    each = max(1, min(items, most // max(1, numbers)))
    return [slice(start, min(start + each, count)) for start in range(0, count, each)]


def sizes_of(count: int, batch_size: int) -> list[int]:
    """Sizes of mini-batches; a last single item joins the batch before (BatchNorm cannot learn from one)."""
    sizes = [batch_size] * (count // batch_size) + ([count % batch_size] if count % batch_size else [])
    if len(sizes) > 1 and sizes[-1] == 1 and batch_size > 1:
        sizes[-2:] = [batch_size + 1]
    return sizes
