"""ABC-Net: least squares over shifted signs, straight-through bases, learned shifts and scales."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer
from bnnbench.metrics import count_operations


def _bases(w: np.ndarray, m: int) -> np.ndarray:
    """(elements, M), one column a base."""
    flat = w.ravel()
    shifts = [-1 + i * 2 / (m - 1) for i in range(m)] if m > 1 else [0.0]
    shifted = [flat - flat.mean() + u * np.sqrt(((flat - flat.mean()) ** 2).mean()) for u in shifts]
    return np.stack([np.where(column >= 0, 1.0, -1.0) for column in shifted], axis=1)


@pytest.mark.parametrize("m", [1, 2, 3, 5, 8])
def test_weight_is_the_least_squares_sum_of_its_bases(m, weight, gradient, upstream):
    side = load_quantizer("abcnet", weight_bases=m).weight(tuple(weight.shape)).double()
    g = upstream(weight)
    value, grad = gradient(side, weight, g)
    bases = _bases(weight.numpy(), m)
    alpha = np.linalg.lstsq(bases, weight.numpy().ravel(), rcond=None)[0]
    assert_allclose(value.numpy().ravel(), bases @ alpha, rtol=1e-9)
    assert_allclose(grad, g * alpha.sum(), rtol=1e-9)


def test_more_bases_approximate_better(weight):
    def error(m: int) -> float:
        side = load_quantizer("abcnet", weight_bases=m).weight(tuple(weight.shape)).double()
        return float((side(weight) - weight).square().mean())

    errors = [error(m) for m in (1, 3, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.3 * errors[0]


def test_equal_bases_share_their_scale():
    """No weight between two thresholds: the sum is as good as one base, and finite."""
    weight = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
    side = load_quantizer("abcnet", weight_bases=4).weight((1, 4, 1, 1))
    torch.testing.assert_close(side(weight), weight)
    zeros = torch.zeros(2, 3, 3, 3)
    torch.testing.assert_close(load_quantizer("abcnet").weight((2, 3, 3, 3))(zeros), zeros)


def _activation(n: int) -> torch.nn.Module:
    side = load_quantizer("abcnet", activation_bases=n).activation(4).double()
    side.v.data = torch.linspace(-0.7, 1.1, n).double()
    side.beta.data = torch.linspace(0.9, -0.3, n).double()
    return side


@pytest.mark.parametrize("n", [1, 3, 5])
def test_activation(n, x, gradient, upstream):
    side, g = _activation(n), upstream(x)
    value, grad = gradient(side, x, g)
    expected, to_x, to_v, to_beta = 0.0, 0.0, [], []
    for v, beta in zip(side.v.tolist(), side.beta.tolist(), strict=True):
        h = np.clip(x.numpy() + v, 0, 1)
        code = np.where(h >= 0.5, 1.0, -1.0)
        slope = beta * g.numpy() * ((h > 0) & (h < 1))
        expected, to_x = expected + beta * code, to_x + slope
        to_v.append(slope.sum())
        to_beta.append((g.numpy() * code).sum())
    assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    assert_allclose(grad, to_x, rtol=1e-12, atol=1e-12)
    assert_allclose(side.v.grad, to_v, rtol=1e-9)
    assert_allclose(side.beta.grad, to_beta, rtol=1e-9)


def test_start_of_the_thresholds():
    side = load_quantizer("abcnet", activation_bases=3).activation(4)
    x = torch.tensor([[-1.5, -0.5, 0.5, 1.5]])
    torch.testing.assert_close(side(x), torch.tensor([[-1.0, -1 / 3, 1 / 3, 1.0]]))


def test_one_base_is_a_sign_with_the_layers_scale(weight, x):
    spec = load_quantizer("abcnet", weight_bases=1, activation_bases=1)
    centred = weight - weight.mean()
    code = torch.where(centred >= 0, 1.0, -1.0).double()
    value = spec.weight(tuple(weight.shape)).double()(weight)
    torch.testing.assert_close(value, code * (code * weight).mean())
    expected = torch.where(x >= 0, 1.0, -1.0).double()
    assert torch.equal(spec.activation(4).double()(x).detach(), expected)


def test_operations_count_every_pair_of_bases():
    def cost(**bases: int):
        conv = load_quantizer("abcnet", **bases).conv2d(3, 8, 3, padding=1, bias=False)
        return count_operations(conv, (3, 8, 8)).layers[0]

    one, many = cost(weight_bases=1, activation_bases=1), cost(weight_bases=3, activation_bases=5)
    assert many.binary_macs == 15 * one.binary_macs
    assert many.weight_bytes == 3 * one.weight_bytes


def test_autocast_leaves_the_scales_exact(weight):
    side = load_quantizer("abcnet").weight(tuple(weight.shape))
    exact = side(weight.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(side(weight.float()), exact)


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_gradients_are_the_plain_convolutions(geometry, x):
    conv = load_quantizer("abcnet").conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    plain = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    plain.weight.data = conv.weight_quantizer(conv.weight).detach()
    _, alpha = conv.weight_quantizer.bases_and_scales(conv.weight)
    conv(x).square().sum().backward()
    plain(conv.activation_quantizer(x).detach()).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad * alpha.sum())


@pytest.mark.parametrize("option", ["weight_bases", "activation_bases"])
@pytest.mark.parametrize("bases", [0, 9])
def test_impossible_numbers_of_bases_are_refused(option, bases):
    with pytest.raises(ValueError, match=rf"quantizer\.{option}={bases}"):
        load_quantizer("abcnet", **{option: bases}).conv2d(2, 2, 1)
