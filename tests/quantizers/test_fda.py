"""FDA-BNN: the Fourier series' gradient, the noise of training, both schedules."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress

OMEGA = 0.1


def _slope(x: np.ndarray, n: int) -> np.ndarray:
    total = sum(np.cos((2 * i + 1) * OMEGA * x) for i in range(n + 1))
    return 4 * OMEGA / np.pi * total * (np.abs(x) < 1)


def _noise(x: np.ndarray, g: np.ndarray, fc1: np.ndarray, fc2: np.ndarray, alpha: float):
    """Noise of rows (..., features), and the gradients to x, fc1 and fc2."""
    hidden = x @ fc1.T
    value = alpha * (np.maximum(hidden, 0) @ fc2.T + 0.1 * np.sin(x))
    to_hidden = alpha * (g @ fc2) * (hidden > 0)
    to_x = to_hidden @ fc1 + alpha * 0.1 * np.cos(x) * g
    rows = [a.reshape(-1, a.shape[-1]) for a in (to_hidden, x, alpha * g, np.maximum(hidden, 0))]
    return value, to_x, rows[0].T @ rows[1], rows[2].T @ rows[3]


def _layers(side: nn.Module) -> list[np.ndarray]:
    return [p.detach().numpy()[:, :, 0, 0] for p in (side.noise.fc1, side.noise.fc2)]


def _scale(w: np.ndarray) -> np.ndarray:
    return np.abs(w).mean(axis=(1, 2, 3), keepdims=True)


def _alpha(progress: float) -> float:
    return 0.05 * (1 + math.cos(math.pi * progress))


@pytest.mark.parametrize(("progress", "n"), [(0.0, 9), (0.5, 13), (0.99, 17), (1.0, 18)])
def test_evaluation_is_binary_with_the_series_gradient(progress, n, x, weight, gradient, upstream):
    spec = load_quantizer("fda")
    sides = (spec.weight(tuple(weight.shape)), weight), (spec.activation(4), x)
    for side, z in sides:
        set_progress(side.double().eval(), progress, 1)
        value, grad = gradient(side, z, upstream(z))
        scale = _scale(z.numpy()) if z is weight else 1.0
        assert_allclose(value, scale * np.where(z >= 0, 1, -1))
        expected = scale * upstream(z).numpy() * _slope(z.numpy(), n)
        assert_allclose(grad, expected, rtol=1e-9, atol=1e-12)


def test_the_series_at_zero_is_its_number_of_terms(gradient):
    side = load_quantizer("fda").activation(1).eval()
    zeros = torch.tensor([0.0, -0.0]).view(1, 1, 1, 2)
    _, grad = gradient(side, zeros, torch.ones_like(zeros))
    assert_allclose(grad, 4 * OMEGA / np.pi * 10, rtol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.7])
def test_weight_with_noise(progress, weight, gradient, upstream):
    side, g = load_quantizer("fda").weight(tuple(weight.shape)).double(), upstream(weight)
    set_progress(side, progress, 1)
    value, grad = gradient(side, weight, g)
    w, scale, n = weight.numpy(), _scale(weight.numpy()), 9 + int(9 * progress)
    rows = w.reshape(6, -1)
    noise, to_w, to_fc1, to_fc2 = _noise(
        rows, (scale * g.numpy()).reshape(6, -1), *_layers(side), _alpha(progress)
    )
    assert_allclose(value, scale * (np.sign(w) + noise.reshape(w.shape)), rtol=1e-7)
    expected = scale * g.numpy() * _slope(w, n) + to_w.reshape(w.shape)
    assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)  # alpha is kept in float32
    assert_allclose(side.noise.fc1.grad[:, :, 0, 0], to_fc1, rtol=1e-6, atol=1e-9)
    assert_allclose(side.noise.fc2.grad[:, :, 0, 0], to_fc2, rtol=1e-6, atol=1e-9)


def test_activation_with_noise_of_each_pixel_s_channels(x, gradient, upstream):
    side, g = load_quantizer("fda").activation(4).double(), upstream(x)
    side.noise.fc1.data.abs_()  # its one inner value is above 0 somewhere
    value, grad = gradient(side, x, g)
    last = [z.numpy().transpose(0, 2, 3, 1) for z in (x, g)]
    noise, to_x, to_fc1, to_fc2 = _noise(*last, *_layers(side), 0.1)
    signs = np.where(x >= 0, 1, -1)
    assert_allclose(value, signs + noise.transpose(0, 3, 1, 2), rtol=1e-7)
    expected = g.numpy() * _slope(x.numpy(), 9) + to_x.transpose(0, 3, 1, 2)
    assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)
    assert_allclose(side.noise.fc1.grad[:, :, 0, 0], to_fc1, rtol=1e-6, atol=1e-9)
    assert_allclose(side.noise.fc2.grad[:, :, 0, 0], to_fc2, rtol=1e-6, atol=1e-9)


def test_noise_ends_at_zero(x, weight):
    spec = load_quantizer("fda")
    for side, z in ((spec.weight(tuple(weight.shape)), weight), (spec.activation(4), x)):
        set_progress(side.double(), 1, 1)
        assert torch.equal(side.train()(z), side.eval()(z))


@pytest.mark.parametrize(("features", "inner"), [(3, 1), (4, 1), (63, 15), (64, 1), (576, 9)])
def test_inner_width(features, inner):
    noise = load_quantizer("fda").activation(features).noise
    assert noise.fc1.shape == (inner, features, 1, 1)
    assert noise.fc2.shape == (features, inner, 1, 1)


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("fda").conv2d(4, 6, 3, bias=False, **options).double().eval()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w = conv.weight.detach().numpy()
    values = [np.where(x >= 0, 1.0, -1.0), _scale(w) * np.where(w >= 0, 1, -1)]
    values = [torch.tensor(value).requires_grad_() for value in values]
    expected = F.conv2d(*values, None, **options)
    expected.backward(g)
    torch.testing.assert_close(out, expected)
    grads = [value.grad.numpy() for value in values]
    assert_allclose(leaf.grad, grads[0] * _slope(x.numpy(), 9), rtol=1e-9, atol=1e-12)
    assert_allclose(conv.weight.grad, _scale(w) * grads[1] * _slope(w, 9), rtol=1e-9)


def test_channels_last_maps_have_the_same_noise(x):
    side = load_quantizer("fda").activation(4).double()
    torch.testing.assert_close(side(x.to(memory_format=torch.channels_last)), side(x))


def test_schedules_survive_a_state_dict():
    spec = load_quantizer("fda")
    net, fresh = (nn.Sequential(spec.conv2d(2, 2, 3)).double() for _ in range(2))
    set_progress(net, 3, 4)
    fresh.load_state_dict(net.state_dict())
    for side in (fresh[0].weight_quantizer, fresh[0].activation_quantizer):
        assert float(side.noise.alpha) == pytest.approx(_alpha(0.75))
        assert float(side.noise.terms) == 16
    set_progress(fresh, 1, 4)
    assert float(side.noise.alpha) == pytest.approx(_alpha(0.25))


def test_evaluation_changes_no_latent_weight(x):
    conv = load_quantizer("fda").conv2d(4, 6, 3).double().eval()
    before = conv.weight.detach().clone()
    conv(x)
    assert torch.equal(conv.weight, before)
