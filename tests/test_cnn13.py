import copy

import numpy as np
import pytest
import torch
from conftest import CPU, part, settings
from fits import Broken, equal, fitted, images, weights
from torch import nn

from alrun.models.cnn13 import SMALLEST, Cnn13, block
from alrun.models.network import Network, UnitLength
from alrun.models.resnet import Resnet
from alrun.pool import Inputs, Moments, Pool
from alrun.training.batches import flattened
from alrun.training.model import restored
from alrun.training.seeding import seeded

SMALL = Cnn13(width=2, dropout=0.5, normalize=True)


def built(architecture=SMALL, shape: tuple[int, ...] = (3, 14, 14), classes: int = 4) -> Network:
    channels = shape[0] if len(shape) == 3 else 1
    moments = Moments(np.full(channels, 0.5, np.float32), np.full(channels, 0.25, np.float32))
    with seeded(np.random.default_rng(0), CPU):
        return architecture.build(shape, moments, classes)


def stored(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def sizes_after_each_convolution(network: Network, x: torch.Tensor) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    for layer in network.body:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *given: seen.append(tuple(given[2].shape[1:])))
    network.eval().embed(x)
    return seen


def test_the_papers_network_has_its_channels_sides_and_number_of_weights():
    network = built(part("model", "model=cnn13"), (3, 32, 32), 10)
    sizes = sizes_after_each_convolution(network, stored(1, (3, 32, 32)))
    three = [(128, 32, 32)] * 3 + [(256, 16, 16)] * 3
    assert sizes == [*three, (512, 6, 6), (256, 6, 6), (128, 6, 6)]
    # kernels, gains and biases of the convolutions, two numbers a channel of BatchNorm, the linear layer
    kernels = 9 * (3 * 128 + 2 * 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512) + 512 * 256 + 256 * 128
    channels = 3 * 128 + 3 * 256 + 512 + 256 + 128
    wanted = kernels + 4 * channels + 128 * 10 + 10
    assert sum(each.numel() for each in network.parameters()) == wanted
    assert (network.head.in_features, network.head.out_features) == (128, 10)
    assert [each.p for each in network.body if isinstance(each, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("shape", "side"), [((28, 28), 5), ((1, 28, 28), 5), ((3, 32, 32), 6), ((3, 12, 12), 1), ((8, 8), 1)]
)
def test_other_sizes_shrink_by_the_same_rule_and_small_ones_are_enlarged(shape, side):
    sizes = sizes_after_each_convolution(built(shape=shape), stored(2, shape))
    assert [size[1] for size in sizes[-3:]] == [side] * 3
    assert max(SMALLEST, shape[-1]) == sizes[0][1]


def test_items_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        built(shape=(7,))


def test_a_block_is_a_convolution_whose_kernels_have_their_length_apart():
    with seeded(np.random.default_rng(0), CPU):
        convolution, norm, bend = block(3, 5, side=3, padding=1)
        x = torch.randn(4, 3, 6, 6)
    assert isinstance(convolution, nn.Conv2d)
    kernels = convolution.weight.detach().clone()
    names = dict(convolution.named_parameters())
    gain, direction = (names[f"parametrizations.weight.original{each}"] for each in (0, 1))
    assert torch.allclose(kernels.flatten(1).norm(dim=1), gain.flatten().abs(), atol=1e-6)
    wanted = nn.functional.conv2d(x, kernels, convolution.bias, padding=1)
    assert torch.allclose(convolution(x), wanted, atol=1e-5)
    with torch.no_grad():
        direction *= 7.0
        assert torch.allclose(convolution.weight, kernels, atol=1e-6)
        gain *= 2.0
        assert torch.allclose(convolution.weight, 2 * kernels, atol=1e-6)
    assert torch.allclose(bend(torch.tensor([-1.0, 2.0])), torch.tensor([-0.1, 2.0]))
    assert norm.num_features == 5


def resnet(normalize: bool, hidden: list[int], dropout: float = 0.0, freeze: bool = False) -> Resnet:
    return Resnet(18, "small", hidden, dropout, normalize, False, freeze, None)


UNIT = [SMALL, resnet(True, []), resnet(True, [6], 0.5), resnet(True, [6], freeze=True)]
FREE = [Cnn13(2, 0.5, False), resnet(False, []), resnet(False, [6], 0.5)]


@pytest.mark.parametrize("architecture", UNIT, ids=["cnn13", "resnet", "hidden", "frozen"])
@pytest.mark.parametrize("training", [True, False])
def test_normalized_embeddings_have_unit_length_and_the_head_reads_them(architecture, training):
    network, x = built(architecture, (3, 16, 16)).train(training), stored(6, (3, 16, 16))
    with seeded(np.random.default_rng(1), CPU), torch.no_grad():
        embeddings = network.embed(x)
    lengths = embeddings.norm(dim=1)
    # dropout may leave nothing of a row
    assert bool((((lengths - 1).abs() < 1e-6) | (training & (lengths == 0))).all())
    if not training:
        assert torch.allclose(network(x), network.head(embeddings), atol=1e-6)


@pytest.mark.parametrize("architecture", FREE, ids=["cnn13", "resnet", "hidden"])
def test_other_embeddings_have_lengths_of_their_own(architecture):
    lengths = built(architecture, (3, 16, 16)).eval().embed(stored(6, (3, 16, 16))).norm(dim=1)
    assert float((lengths.detach() - 1).abs().min()) > 1e-3


def test_normalizing_belongs_to_the_layers_before_the_head():
    extract, hidden = built(resnet(True, [6]), (3, 16, 16)).stages()
    assert [type(layer) for layer in hidden] == [nn.Linear, nn.ReLU, UnitLength]
    assert not any(isinstance(layer, UnitLength) for layer in extract)


def test_zero_rows_stay_zero_and_send_back_finite_gradients():
    x = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1e-30, 0.0]], requires_grad=True)
    y = UnitLength()(x)
    assert torch.equal(y[1], torch.zeros(2))
    assert torch.allclose(y[0], torch.tensor([0.6, -0.8]))
    assert bool(y.isfinite().all())
    (y * torch.tensor([2.0, -5.0])).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_the_gradient_of_unit_length_is_the_numerical_one():
    # float32 on purpose: the layer computes in it
    x = torch.tensor([[0.3, -0.4, 1.2], [2.0, 0.1, 0.7]], requires_grad=True)
    toward = torch.tensor([[1.0, 2.0, -1.0], [0.5, -0.3, 0.2]])
    (UnitLength()(x) * toward).sum().backward()
    unit = (x / x.norm(dim=1, keepdim=True)).detach()
    wanted = (toward - unit * (unit * toward).sum(1, keepdim=True)) / x.detach().norm(dim=1, keepdim=True)
    assert torch.allclose(x.grad, wanted, atol=1e-6)


def test_flat_weights_learn_what_separate_weights_learn():
    x, y = stored(8, (3, 14, 14)), torch.arange(8) % 4
    plain = built(Cnn13(2, 0.0, True))
    flat, before = copy.deepcopy(plain), copy.deepcopy(plain.state_dict())
    whole = flattened(list(flat.parameters()))
    steps = ((plain, torch.optim.SGD(plain.parameters(), 0.1)), (flat, torch.optim.SGD([whole], 0.1)))
    for network, optimizer in steps:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    names = dict(plain.state_dict())
    gain = "body.1.parametrizations.weight.original0"
    assert not torch.equal(names[gain], before[gain])
    assert all(torch.allclose(value, names[name], atol=1e-5) for name, value in flat.state_dict().items())


def test_a_copy_learns_apart_from_its_original():
    network = built()
    teacher = copy.deepcopy(network)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1.0)
    assert equal(before, dict(teacher.state_dict()))
    assert not torch.equal(network.body[1].weight, teacher.body[1].weight)


@pytest.mark.parametrize("shape", [(3, 14, 14), (13, 12)])
def test_a_trained_network_is_restored_to_the_same_bits(shape):
    data = images(12, shape)
    model = fitted(data, SMALL, epochs=2, optimizer="sgd", nesterov=True, crop=2, border="reflection")
    again = restored(SMALL, data, weights(model), model.facts)
    rows = np.arange(12)
    assert np.array_equal(model.predict(rows), again.predict(rows))
    assert np.array_equal(model.embed(rows), again.embed(rows))


def test_a_fit_broken_off_goes_on_to_the_same_bits():
    data = images(12, (3, 14, 14))
    unbroken = fitted(data, SMALL, epochs=3)
    broken = Broken(2)
    with pytest.raises(KeyboardInterrupt):
        fitted(data, SMALL, epochs=3, progress=broken)
    broken.stop = -1
    assert equal(weights(unbroken), weights(fitted(data, SMALL, epochs=3, progress=broken)))


def test_it_learns_what_can_be_told_apart():
    data = images(24, (12, 12))
    shades = (data.inputs.array // 8 + 60 * data.labels[:, None, None]).astype(np.uint8)
    data = Pool(Inputs(shades), data.labels, 3)
    model = fitted(data, Cnn13(4, 0.0, True), epochs=60, optimizer="sgd", learning_rate=0.2, batch_size=24)
    assert (model.predict(np.arange(24)).argmax(1) == data.labels).mean() > 0.9


def test_a_teacher_takes_the_unit_length_away_and_nothing_else_does():
    for trainer, wanted in (("supervised", True), ("label_propagation", True), ("mean_teacher", False)):
        found = settings("model=cnn13", f"trainer={trainer}", "dataset=mnist")
        assert found["model"]["normalize"] is wanted
    assert settings("model=resnet18")["model"]["normalize"] is False
