"""IE-Net: its estimator, standardised weights, two shifted activation bases."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress
from bnnbench.metrics import count_operations


def _slope(x: np.ndarray, k: float, t: float) -> np.ndarray:
    return k * np.maximum(0, np.sqrt(3) * t - 1.5 * t**2 * np.abs(x))


def _weight(w: np.ndarray, g: np.ndarray, k: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, filter by filter."""
    values, gradients = np.empty_like(w), np.empty_like(w)
    for o in range(len(w)):
        n, d = w[o].size, w[o] - w[o].mean()
        std = np.sqrt((d**2).sum() / (n - 1) + 1e-5)
        values[o] = np.where(d >= 0, 1, -1)
        to_v = g[o] * _slope(d / std, k, t)
        to_d = to_v / std - d * (to_v * d).sum() / ((n - 1) * std**3)
        gradients[o] = to_d - to_d.mean()
    return values, gradients


def _base(x: np.ndarray, g: np.ndarray, t: float) -> np.ndarray:
    """The gradient of one base in training, sample by sample."""
    gradients = np.empty_like(x)
    for i in range(len(x)):
        n, d = x[i].size, x[i] - x[i].mean()
        std = np.sqrt((d**2).sum() / (n - 1) + 1e-5)
        to_scaled = g[i] * _slope(x[i] / std, 1, max(t, 1))
        gradients[i] = to_scaled / std - (to_scaled * x[i]).sum() * d / ((n - 1) * std**3)
    return gradients


def _signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, -1.0)


def _activation(channels: int = 4) -> nn.Module:
    side = load_quantizer("ienet").activation(channels).double()
    side.shifts.data = torch.linspace(-0.6, 0.7, 2 * channels).view(2, channels).double()
    side.c.data.fill_(0.3)
    return side


SCHEDULE = [(0, 100, 0.01), (50, 10**0.5, 10**-0.5), (100, 1, 10)]


@pytest.mark.parametrize(("epoch", "k", "t"), SCHEDULE)
def test_weight(epoch, k, t, weight, gradient, upstream):
    side, g = load_quantizer("ienet").weight(tuple(weight.shape)).double(), upstream(weight)
    set_progress(side, epoch, 100)
    value, grad = gradient(side, weight, g)
    expected = _weight(weight.numpy(), g.numpy(), k, t)
    assert np.array_equal(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("epoch", "k", "t"), SCHEDULE)
def test_activation_in_training(epoch, k, t, x, gradient, upstream):
    side, g = _activation(), upstream(x)
    set_progress(side, epoch, 100)
    value, grad = gradient(side, x, g)
    shifted = [x.numpy() + shift.numpy().reshape(4, 1, 1) for shift in side.shifts.detach()]
    assert_allclose(value, _signs(shifted[0]) + 0.3 * _signs(shifted[1]), rtol=1e-13)
    grads = [_base(shifted[0], g.numpy(), t), 0.3 * _base(shifted[1], g.numpy(), t)]
    assert_allclose(grad, grads[0] + grads[1], rtol=1e-6, atol=1e-9)
    to_shifts = np.stack([base.sum(axis=(0, 2, 3)) for base in grads])
    assert_allclose(side.shifts.grad, to_shifts, rtol=1e-6, atol=1e-9)
    assert float(side.c.grad) == pytest.approx((g.numpy() * _signs(shifted[1])).sum())


def test_activation_in_evaluation(x, gradient, upstream):
    side, g = _activation().eval(), upstream(x)
    value, grad = gradient(side, x, g)
    shifted = [x.numpy() + shift.numpy().reshape(4, 1, 1) for shift in side.shifts.detach()]
    assert_allclose(value, _signs(shifted[0]) + 0.3 * _signs(shifted[1]), rtol=1e-13)
    slopes = _slope(shifted[0], 1, 1) + 0.3 * _slope(shifted[1], 1, 1)
    assert_allclose(grad, g.numpy() * slopes, rtol=1e-9, atol=1e-13)


def test_start():
    side = load_quantizer("ienet").activation(3)
    assert not side.shifts.any()
    assert 0 <= float(side.c.detach()) < 1e-3


def test_zero_is_plus_one_in_both_bases():
    side = _activation(1).eval()
    x = -side.shifts.detach().view(2, 1, 1, 1)  # 0 in the first base, 0 in the second
    assert side(x).flatten().tolist() == pytest.approx([1 + 0.3, -1 + 0.3])
    assert side(x - 1e-9).flatten().tolist() == pytest.approx([-1 + 0.3, -1 - 0.3])


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("ienet").conv2d(4, 6, 3, bias=False, **options).double()
    conv.activation_quantizer = _activation()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w = conv.weight.detach().numpy()
    shifts = conv.activation_quantizer.shifts.detach().numpy().reshape(2, 4, 1, 1)
    shifted = [x.numpy() + shift for shift in shifts]
    codes = [_signs(shifted[0]), _signs(shifted[1]), _weight(w, w, 1, 1)[0]]
    first, second, code = (torch.tensor(c).requires_grad_() for c in codes)
    scale = conv.output.scale.detach().view(-1, 1, 1)
    plain = F.conv2d(first, code, None, **options) + 0.3 * F.conv2d(second, code, None, **options)
    (scale * plain).backward(g)
    torch.testing.assert_close(out, scale * plain)  # one convolution has both bases
    grads = [_base(s, c.grad.numpy(), 0.01) for s, c in zip(shifted, (first, second), strict=True)]
    assert_allclose(leaf.grad, grads[0] + grads[1], rtol=1e-6, atol=1e-9)
    to_weight = _weight(w, code.grad.numpy(), 100, 0.01)[1]
    assert_allclose(conv.weight.grad, to_weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(conv.output.scale.grad, (g * plain.detach()).sum(dim=(0, 2, 3)))


def test_both_bases_are_counted():
    spec = load_quantizer("ienet")
    net = nn.Sequential(spec.conv2d(4, 6, 3, bias=False))
    assert count_operations(net, (4, 5, 5)).binary_macs == 2 * 9 * 4 * 6 * 9


def test_output_scale_starts_at_the_filter_s_mean_magnitude():
    conv = load_quantizer("ienet").conv2d(4, 6, 3)
    torch.testing.assert_close(conv.output.scale, conv.weight.abs().mean(dim=(1, 2, 3)))


def test_schedules_survive_a_state_dict():
    spec = load_quantizer("ienet")
    net, fresh = (nn.Sequential(spec.conv2d(2, 2, 3)).double() for _ in range(2))
    set_progress(net, 3, 4)
    fresh.load_state_dict(net.state_dict())
    for side in (fresh[0].weight_quantizer, fresh[0].activation_quantizer):
        assert float(side.schedule.t) == pytest.approx(10**0.25)
    set_progress(fresh, 1, 4)
    assert float(side.schedule.k) == pytest.approx(10**1.25)
    assert math.isclose(float(side.schedule.t), 10**-1.25, rel_tol=1e-6)


def test_evaluation_changes_no_latent_weight(x):
    conv = load_quantizer("ienet").conv2d(4, 6, 3).double().eval()
    before = conv.weight.detach().clone()
    conv(x)
    assert torch.equal(conv.weight, before)


def test_a_constant_filter_stays_finite():
    side = load_quantizer("ienet").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
