"""XNOR-Net: centred weights with E|w| per filter, three weight gradients, the input scale K."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer


def _centred(w: np.ndarray) -> np.ndarray:
    return (w - w.mean(axis=1, keepdims=True)).clip(-1, 1)


def _closed_form(w: np.ndarray, g: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, filter by filter."""
    values, gradients = np.empty_like(w), np.empty_like(w)
    for o, v in enumerate(_centred(w)):
        alpha, s, n = np.abs(v).mean(), np.where(v >= 0, 1, -1), v.size
        values[o] = alpha * s
        if rule == "corrected":
            gradients[o] = alpha * g[o] + s / n * (g[o] * s).sum()
        else:
            gradients[o] = g[o] * (alpha * (np.abs(v) < 1) + 1 / n)
    return values, gradients * (1 - 1 / w.shape[1] if rule == "lua" else 1)


@pytest.mark.parametrize("factor", [1, 27.0])
@pytest.mark.parametrize("rule", ["corrected", "paper", "lua"])
def test_weight(rule, factor, weight, gradient, upstream):
    assert (np.abs(_centred(weight.numpy())) == 1).any()  # the clamp is met
    spec, g = load_quantizer("xnor", gradient=rule, gradient_scale=factor), upstream(weight)
    value, grad = gradient(spec.weight(tuple(weight.shape)), weight, g)
    expected = _closed_form(weight.numpy(), g.numpy(), rule)
    assert_allclose(value, expected[0], rtol=1e-13)
    assert_allclose(grad, factor * expected[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("rule", ["corrected", "paper", "lua"])
def test_a_depthwise_filter_has_no_channels_to_centre_over(rule, gradient, upstream):
    weight = torch.linspace(-0.4, 0.5, 18, dtype=torch.float64).view(2, 1, 3, 3)
    side = load_quantizer("xnor", gradient=rule).weight(tuple(weight.shape))
    value, grad = gradient(side, weight, upstream(weight))
    alpha = weight.abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(value, alpha * weight.sign())
    assert grad.abs().min() > 0


def test_scale_is_per_filter(weight):
    scale = load_quantizer("xnor").weight(tuple(weight.shape)).decompose(weight).scale
    assert_allclose(scale.flatten(), np.abs(_centred(weight.numpy())).mean(axis=(1, 2, 3)))


def test_activation_gradient_is_clipped(x, gradient, upstream):
    g = upstream(x)
    value, grad = gradient(load_quantizer("xnor").activation(4), x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    torch.testing.assert_close(grad, torch.where(x.abs() < 1, g, 0.0))


def test_unknown_gradient_is_refused():
    with pytest.raises(ValueError, match=r"gradient='straight'.*corrected.*paper.*lua"):
        load_quantizer("xnor", gradient="straight").weight((1, 1, 1, 1))


def _window_means(x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """K by loops: the mean of E_c|x| over each window, zeros outside the map."""
    magnitude = np.pad(np.abs(x).mean(axis=1), ((0, 0), (padding, padding), (padding, padding)))
    size = (magnitude.shape[1] - kernel) // stride + 1
    means = np.empty((len(x), 1, size, size))
    for n, i, j in np.ndindex(len(x), size, size):
        window = magnitude[n, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        means[n, 0, i, j] = window.sum() / kernel**2
    return means


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0)])
def test_input_scale_multiplies_each_window_by_its_mean_magnitude(kernel, stride, padding, x):
    spec = load_quantizer("xnor", input_scale=True)
    conv = spec.conv2d(4, 6, kernel, stride=stride, padding=padding, bias=False).double()
    plain = F.conv2d(
        conv.activation_quantizer(x), conv.weight_quantizer(conv.weight), None, stride, padding
    )
    expected = plain.detach().numpy() * _window_means(x.numpy(), kernel, stride, padding)
    assert_allclose(conv(x).detach(), expected, rtol=1e-6)  # the box is made in float32
    x.requires_grad_()
    conv(x).sum().backward()
    assert x.grad is not None
    assert x.grad[x.abs() > 1].abs().sum() > 0  # K passes gradients where the sign has none


def test_input_scale_is_off_by_default():
    assert load_quantizer("xnor").conv2d(4, 6, 3).output is None
