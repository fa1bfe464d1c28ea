"""WAGE: every stored number on its grid, and the backward rules written out."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from torch import nn

from bnnbench import build_backbone
from bnnbench.config import load_quantizer
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.losses.squared import SumOfSquares
from bnnbench.optim.recipe import Recipe
from bnnbench.optim.wage import WAGE
from bnnbench.quantizers.wage import normalised, on_grid, quantized_error
from bnnbench.runs.refusals import check_optimizer


def _grid(x, bits: int) -> np.ndarray:
    """Q(C(x)) by a search among all values; ties go to the even step."""
    steps = 2 ** (bits - 1)
    values = np.arange(1 - steps, steps) / steps
    distance = np.abs(np.asarray(x)[..., None] - values)
    nearest = distance.min(axis=-1, keepdims=True)
    ties = np.isclose(distance, nearest, rtol=0, atol=1e-12)
    even = np.where(ties, np.abs(values * steps) % 2, 2).argmin(axis=-1)
    return values[even]


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_grid(bits, x):
    points = torch.cat([x.flatten(), torch.linspace(-1.21, 1.2, 97, dtype=torch.float64)])
    assert_allclose(on_grid(points, bits), _grid(points, bits), atol=1e-12)


def test_ties_go_to_the_even_step():
    assert on_grid(torch.tensor([0.25, -0.25, 0.75, 9.0]), 2).abs().tolist() == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_skip_rounding_and_clip_in_the_backward(bits, weight, gradient, upstream):
    side, g = load_quantizer("wage", weight_bits=bits).weight(tuple(weight.shape)), upstream(weight)
    value, grad = gradient(side, weight, g)
    assert_allclose(value, _grid(weight, bits) / side.scale, rtol=1e-12)
    assert torch.equal(grad, g)


@pytest.mark.parametrize("shape", [(128, 128, 3, 3), (512, 512, 3, 3), (10, 1024), (8, 1, 3, 3)])
def test_scale_is_a_power_of_two_near_the_ratio_of_the_limits(shape):
    side = load_quantizer("wage").weight(shape)
    ratio = (1.5 / 2) / math.sqrt(3 / math.prod(shape[1:]))
    assert math.log2(side.scale).is_integer()
    assert side.scale == 1 if ratio < 1 else ratio / math.sqrt(2) <= side.scale <= ratio * 2**0.5
    weight = torch.empty(shape)
    side.start(weight)
    assert set(weight.unique().tolist()) <= {-0.5, 0.0, 0.5}
    # the first forward keeps the variance of its input, within the rounding of the scale
    assert 0.2 < float(side(weight).var()) * math.prod(shape[1:]) < 5


def test_activations_stop_the_gradient_where_they_clip(x, gradient, upstream):
    side, g = load_quantizer("wage", error_bits=15).activation(4), upstream(x)
    value, grad = gradient(side, x, g)
    assert_allclose(value, _grid(x, 8), atol=1e-12)
    inside = (x.abs() <= 1 - 1 / 128).double() * g
    shift = 2.0 ** round(math.log2(float(inside.abs().max())))
    assert_allclose(grad, _grid_of_errors(inside / shift, 15), atol=1e-12)


def _grid_of_errors(x, bits: int) -> np.ndarray:
    steps = 2 ** (bits - 1)
    return np.round(np.clip(np.asarray(x), 1 / steps - 1, 1 - 1 / steps) * steps) / steps


@pytest.mark.parametrize("size", [1e-9, 1.0, 37.0])
def test_errors_lie_on_their_grid_whatever_their_size(x, gradient, upstream, size):
    g = size * upstream(x)
    value, grad = gradient(lambda x: quantized_error(x, 8), x, g)
    assert torch.equal(value, x)
    shift = 2.0 ** round(math.log2(float(g.abs().max())))
    assert_allclose(grad, _grid_of_errors(g / shift, 8), atol=1e-12)
    assert torch.equal(grad * 128, (grad * 128).round())


def test_no_error_stays_none():
    assert normalised(torch.zeros(3)).tolist() == [0, 0, 0]


def test_updates_are_whole_steps_with_the_gradient_as_their_mean():
    g = torch.linspace(-0.9, 0.7, 8, dtype=torch.float64)
    weight = torch.nn.Parameter(torch.zeros(8, dtype=torch.float64))
    optimizer = WAGE([{"params": [weight], "latent": True, "gradient_bits": 8}], lr=3.0)
    total, rounds = torch.zeros(8, dtype=torch.float64), 4000
    torch.manual_seed(0)
    for _ in range(rounds):
        before = weight.detach().clone()
        weight.grad = g.clone()
        optimizer.step()
        steps = (before - weight.detach()) * 128
        assert_allclose(steps, steps.round(), atol=1e-9)
        total += steps
    expected = 3.0 * g / 2.0 ** round(math.log2(0.9))  # Shift(0.9) = 1
    assert_allclose(total / rounds, expected, atol=4 * 0.5 / math.sqrt(rounds))


def test_all_processes_of_a_run_and_a_resumed_one_round_alike():
    def optimizer(weight: torch.Tensor) -> WAGE:
        torch.manual_seed(7)  # the run's
        return WAGE([{"params": [weight], "latent": True, "gradient_bits": 8}], lr=3.0)

    def step(weight: torch.nn.Parameter, optimizer: WAGE) -> None:
        weight.grad = torch.linspace(-0.9, 0.7, 64)
        optimizer.step()

    weights = [torch.nn.Parameter(torch.zeros(64)) for _ in range(2)]
    first, second = (optimizer(weight) for weight in weights)
    step(weights[0], first)
    torch.rand(5)  # one process has drawn more than the other
    step(weights[1], second)
    assert torch.equal(weights[0], weights[1])
    torch.manual_seed(8)
    resumed = WAGE([{"params": [weights[1]], "latent": True, "gradient_bits": 8}], lr=3.0)
    resumed.load_state_dict(second.state_dict())
    before = weights[0].detach().clone()
    step(weights[0], first)
    step(weights[1], resumed)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0] - before, before)  # every update has draws of its own


def test_a_trained_network_is_integers_all_through():
    """Stored weights on the grid of updates and in range, activations and errors on theirs."""
    torch.manual_seed(0)
    net = build_backbone("vgg7", quantizer="wage", image_size=8, in_channels=1, num_classes=10)
    layers = [layer for _, layer in binary_layers(net)]
    assert len(layers) == 8  # stem, five convolutions, hidden layer and classifier
    assert len(list(net.parameters())) == 8  # no bias, no norm
    seen: list[torch.Tensor] = []
    for layer in (layer for layer in layers if layer.activation_quantizer.bits < 32):
        layer.activation_quantizer.register_full_backward_hook(lambda *a: seen.append(a[1][0]))
        layer.activation_quantizer.register_forward_hook(lambda *a: seen.append(a[2].detach()))
    groups = {"params": [layer.weight for layer in layers], "latent": True, "gradient_bits": 8}
    optimizer, loss = WAGE([groups], lr=8.0), task_loss("classification", kind="sse", error_bits=8)
    for step in range(2):
        images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
        optimizer.zero_grad()
        loss(net(images), labels).backward()
        optimizer.step()
        for layer in layers:
            layer.weight_quantizer.after_step(layer.weight)
            stored = layer.weight.detach() * 128
            assert torch.equal(stored, stored.round())
            assert stored.abs().max() <= 64
        assert len(seen) == 14 * (step + 1)
    for values in seen:
        assert torch.equal(values * 128, (values * 128).round())


def test_sum_of_squares(gradient):
    z = torch.tensor([[0.2, -0.3, 1.1], [0.9, 0.4, -0.6]], dtype=torch.float64)
    labels = torch.tensor([2, 0])
    y = np.array([[0, 0, 1], [1, 0, 0]])
    one = torch.tensor(1.0, dtype=torch.float64)
    value, grad = gradient(lambda z: SumOfSquares(error_bits=32)(z, labels), z, one)
    assert float(value) == pytest.approx(((y - z.numpy()) ** 2).sum() / 2 / 2)
    assert_allclose(grad, (z.numpy() - y) / 2, rtol=1e-12)
    _, grad = gradient(lambda z: SumOfSquares(error_bits=8)(z, labels), z, one)
    shift = 2.0 ** round(math.log2(0.3))
    assert_allclose(grad, _grid_of_errors((z.numpy() - y) / 2 / shift, 8), atol=1e-12)


def test_bits_of_all_four_are_known():
    assert load_quantizer("wage").bits == {"w": 2, "a": 8, "g": 8, "e": 8}
    assert load_quantizer("adabin").bits == {"w": 1, "a": 1}


@pytest.mark.parametrize("key", ["weight_bits", "activation_bits", "gradient_bits", "error_bits"])
def test_bits_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match=rf"{key}=1: choose 2 to 15 bits"):
        load_quantizer("wage", **{key: 1}).conv2d(2, 2, 3)


def test_another_optimizer_is_refused():
    net = build_backbone("vgg7", quantizer="wage", image_size=8)
    with pytest.raises(ValueError, match="quantizer=wage and recipe=native need each other"):
        check_optimizer(net, Recipe("adam", 0.1))


def test_integers_learn_digits():
    torch.manual_seed(0)
    pixels, target = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8)[:512]
    labels, spec = torch.tensor(target)[:512], load_quantizer("wage")
    net = nn.Sequential(
        spec.weight_only().conv2d(1, 32, 3, padding=1, bias=False),
        nn.ReLU(),
        spec.conv2d(32, 64, 3, padding=1, stride=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        spec.linear(1024, 10, bias=False),
    )
    layers = [layer for _, layer in binary_layers(net)]
    for layer in layers:
        layer.weight_quantizer.start(layer.weight)
    groups = {"params": [layer.weight for layer in layers], "latent": True, "gradient_bits": 8}
    optimizer, loss = WAGE([groups], lr=8.0), SumOfSquares(error_bits=8)
    for _ in range(6):
        for part, truth in zip(images.split(32), labels.split(32), strict=True):
            optimizer.zero_grad()
            loss(net(part), truth).backward()
            optimizer.step()
            for layer in layers:
                layer.weight_quantizer.after_step(layer.weight)
    assert (net(images).argmax(1) == labels).float().mean() > 0.5
