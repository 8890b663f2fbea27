"""How many items go through a network at once."""

import torch
from torch import Tensor, nn

# Numbers entering a network at once (on a GPU, those where it is widest), and items; they bound memory. MLP
# 784-100-50-10 on 2 busy CPU cores: 164,000 items a second by 256, 158,000 by 1,024, 139,000 by 4,096. The
# GPU's are not measured: 256 MiB of float32 a layer.
CPU_NUMBERS, CPU_ITEMS = 2**20, 4096
GPU_NUMBERS, GPU_ITEMS = 2**26, 16384


def parts(count: int, numbers: int, device: torch.device) -> list[slice]:
    """Slices that bound how many items, of so many numbers each, go through where nothing is learned."""
    most, items = (GPU_NUMBERS, GPU_ITEMS) if device.type == "cuda" else (CPU_NUMBERS, CPU_ITEMS)
    each = max(1, min(items, most // max(1, numbers)))
    return [slice(start, min(start + each, count)) for start in range(0, count, each)]


def widest(layers: nn.Module, items: Tensor) -> int:
    """Numbers of one item where these layers are widest, seen as the items pass; they enter, too."""
    most = items[0].numel()

    def look(layer: nn.Module, inputs: object, outputs: object) -> None:
        nonlocal most
        del layer, inputs
        if isinstance(outputs, Tensor):
            most = max(most, outputs[0].numel())

    hooks = [each.register_forward_hook(look) for each in layers.modules()]
    try:
        with torch.inference_mode():
            layers(items)
    finally:
        for hook in hooks:
            hook.remove()
    return most


def sizes_of(count: int, batch_size: int) -> list[int]:
    """Sizes of mini-batches, as even as they can be: 200 items in batches of at most 64 are four times 50.

    A small last one would weigh its items more than others do theirs, and unsettle BatchNorm. None has a
    single item, from which BatchNorm cannot learn: in batches of at most 2 the odd one out joins two others.
    """
    number = -(-count // batch_size)
    if batch_size > 1 and count > 1:
        number = min(number, count // 2)
    return [count // number + (place < count % number) for place in range(number)]
