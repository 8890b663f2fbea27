"""Feature maps inside a network: what its stages have found, before the image is averaged."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from alrun.models.convolutional import ChannelsLast
from alrun.models.network import Network, flat

MOST = 4
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
SILENT = (nn.Dropout, nn.Identity, nn.BatchNorm1d, ChannelsLast)  # outputs of these are no maps


def map_layers(network: Network) -> list[nn.Module]:
    """The layers whose outputs are the network's maps, at most four, in order.

    Of a ResNet its four stages; of a transformer every quarter of its blocks; of a row of layers the last
    before each change of the image's size (a pool, a convolution with a stride or without padding, the end),
    and of these the last four. Where there are fewer, hidden layers after the image follow, up to four in
    all. An MLP has hidden layers alone, a linear model nothing; into a frozen part nobody sees.

    So the maps of VGG-16 are its last four blocks. All-CNN has four, Conv-Small and the network of 13 layers
    three (before each pool and before the average), S4's network for CelebA three and its hidden layer, that
    for MNIST two and its hidden layer, LeNet two and its hidden layers of 120 and 84.
    """
    images, hidden = list(_of_images(network))[-MOST:], list(_hidden(network))
    return [*images, *hidden[: MOST - len(images)]]


def mapped(
    network: Network, f: Float[Tensor, " b *f"]
) -> tuple[Float[Tensor, "b d"], Float32[Tensor, "b m"]]:
    """Inputs of the last linear layer from outputs of `Network.fixed`, and averages of all maps on the way.

    An average is over the image, one number a channel; those of `map_layers` stand side by side.

    Raises:
        ValueError: the network has no maps.
    """
    embeddings, averages = _read(network, f)
    return embeddings, torch.cat(averages, 1)


def map_widths(network: Network, f: Float[Tensor, " b *f"]) -> list[int]:
    """Channels of each map of a network, which this leaves in evaluation mode.

    Raises:
        ValueError: the network has no maps.
    """
    network.eval()
    with torch.no_grad():
        return [each.shape[1] for each in _read(network, f)[1]]


def _read(network: Network, f: Tensor) -> tuple[Tensor, list[Tensor]]:
    if not (layers := map_layers(network)):
        raise ValueError(
            "feature maps are outputs of trained hidden layers and this network has none; choose e.g. "
            "model=all_cnn, model=resnet18 with model.freeze=false, or model=mlp"
        )
    seen: list[Tensor] = []
    # averaged at once: layers that follow may work in place
    hooks = [layer.register_forward_hook(lambda *call: seen.append(_averaged(call[2]))) for layer in layers]
    try:
        return network.body(f), seen
    finally:
        for hook in hooks:
            hook.remove()


def _averaged(output: Tensor) -> Float32[Tensor, "b c"]:
    """Over pixels (b, c, h, w) or tokens (b, t, c); vectors as they are."""
    if output.ndim == 2:
        return output.float()
    return output.mean((2, 3) if output.ndim == 4 else 1, dtype=torch.float32)


def _of_images(network: Network) -> Iterator[nn.Module]:
    last = None
    for layer in flat(network.body):
        ends = isinstance(layer, nn.Flatten | nn.Linear)
        if last is not None and (ends or _resizes(layer)):
            yield last
        if ends:
            return
        inner = _stages(layer)
        yield from inner
        if inner or isinstance(layer, POOLS):
            last = None
        elif not isinstance(layer, SILENT):
            last = layer
    if last is not None:
        yield last


def _hidden(network: Network) -> Iterator[nn.Module]:
    connected = False
    for layer in flat(network.body):
        connected = connected or isinstance(layer, nn.Linear)
        if connected and isinstance(layer, nn.ReLU):
            yield layer


def _resizes(layer: nn.Module) -> bool:
    """Whether images leave a layer with other sides."""
    if not isinstance(layer, nn.Conv2d):
        return isinstance(layer, POOLS)
    padding = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    sides = zip(layer.kernel_size, padding, layer.stride, strict=True)
    shrinks = any(stride != 1 or 2 * border != side - 1 for side, border, stride in sides)
    return shrinks and layer.padding != "same"


def _stages(layer: nn.Module) -> list[nn.Module]:
    """The stages that torchvision's and timm's residual networks and transformers have inside."""
    named = [getattr(layer, f"layer{place}", None) for place in range(1, MOST + 1)]
    if all(isinstance(each, nn.Module) for each in named):
        return [each for each in named if each is not None]
    blocks = getattr(layer, "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        return []
    count = min(MOST, len(blocks))
    return [blocks[len(blocks) * place // count - 1] for place in range(1, count + 1)]
