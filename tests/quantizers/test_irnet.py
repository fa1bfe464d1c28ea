"""IR-Net: Libra weights, power-of-two scale, error decay estimator and its schedule."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.layers import set_progress


def _closed_form(w: np.ndarray, g: np.ndarray, k: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, filter by filter."""
    values, gradients = np.empty_like(w), np.empty_like(w)
    for o in range(len(w)):
        n = w[o].size
        std = np.sqrt(((w[o] - w[o].mean()) ** 2).sum() / (n - 1))
        v = (w[o] - w[o].mean()) / std
        scale = 2.0 ** np.round(np.log2(np.abs(v).mean()))
        values[o] = scale * np.where(v >= 0, 1, -1)
        to_v = scale * g[o] * k * t * (1 - np.tanh(t * v) ** 2)
        gradients[o] = (to_v - to_v.mean() - v * (to_v * v).sum() / (n - 1)) / std
    return values, gradients


@pytest.mark.parametrize(("epoch", "k", "t"), [(0, 10, 0.1), (50, 1, 1), (100, 1, 10)])
def test_weight(epoch, k, t, weight, gradient, upstream):
    side, g = load_quantizer("irnet").weight(tuple(weight.shape)).double(), upstream(weight)
    set_progress(side, epoch, 100)
    value, grad = gradient(side, weight, g)
    expected = _closed_form(weight.numpy(), g.numpy(), k, t)
    assert_allclose(value, expected[0])
    assert_allclose(grad, expected[1], rtol=1e-9, atol=1e-12)


def test_scale_is_a_power_of_two_per_filter(weight):
    side = load_quantizer("irnet").weight(tuple(weight.shape))
    sparse = torch.zeros_like(weight)
    sparse[:, 0, 0, 0] = 1.0  # E|v| of one spike is far below that of a normal filter
    mixed = torch.cat([weight[:3], sparse[3:]])
    scale = side.decompose(mixed).scale
    assert scale.flatten().tolist() == [1.0] * 3 + [0.25] * 3


@pytest.mark.parametrize(("epoch", "slope"), [(0, 1), (30, 1), (75, 1), (100, 10)])
def test_activation(epoch, slope, x, gradient, upstream):
    side, g = load_quantizer("irnet", t_min=1e-3).activation(4).double(), upstream(x)
    set_progress(side, epoch, 100)
    t = 10.0 ** (-3 + 4 * epoch / 100)
    value, grad = gradient(side, x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    assert_allclose(grad, g * slope * (1 - torch.tanh(t * x) ** 2), rtol=1e-9, atol=1e-14)


def test_schedule_is_log_linear_and_survives_a_state_dict():
    spec = load_quantizer("irnet", t_min=0.1)
    net, fresh = (nn.Sequential(spec.conv2d(2, 2, 3)).double() for _ in range(2))
    set_progress(net, 3, 4)
    fresh.load_state_dict(net.state_dict())
    schedules = [fresh[0].weight_quantizer.schedule, fresh[0].activation_quantizer.schedule]
    for schedule in schedules:
        assert float(schedule.t) == pytest.approx(10**0.5)
        assert float(schedule.k) == 1.0
    set_progress(fresh, 1, 4)
    assert float(schedules[0].t) == pytest.approx(10**-0.5)
    assert float(schedules[0].k) == pytest.approx(10**0.5)


def test_impossible_slopes_are_refused():
    with pytest.raises(ValueError, match="t_min=20"):
        load_quantizer("irnet", t_min=20.0).activation(4)


def test_a_constant_filter_stays_finite():
    side = load_quantizer("irnet").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side(weight).sum().backward()
    assert side(weight).isfinite().all()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
