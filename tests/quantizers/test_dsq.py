"""DSQ at one bit: two learned values a side, the soft step's slope, the learned softness."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer
from bnnbench.quantizers.base import Side

LOWER, UPPER = -0.7, 1.1


def _side(alpha: float, which: str = "activation") -> Side:
    spec = load_quantizer("dsq")
    side = (spec.activation(4) if which == "activation" else spec.weight((6, 4, 3, 3))).double()
    for name, value in (("lower", LOWER), ("upper", UPPER), ("alpha", alpha)):
        getattr(side, name).data.fill_(value)
    return side


def _soft(x: np.ndarray, lower: float, upper: float, alpha: float) -> np.ndarray:
    """The soft quantizer: clip, then the hyperbolic step between the ends."""
    width = upper - lower
    k, s = math.log(2 / alpha - 1) / width, 1 / (1 - alpha)
    phi = s * np.tanh(k * (np.clip(x, lower, upper) - (lower + upper) / 2))
    return lower + width * (phi + 1) / 2


@pytest.mark.parametrize("alpha", [0.2, 0.45])
@pytest.mark.parametrize("which", ["activation", "weight"])
def test_value_and_gradients(which, alpha, x, weight, gradient, upstream):
    tensor = x if which == "activation" else weight
    side, g = _side(alpha, which), upstream(tensor)
    value, grad = gradient(side, tensor, g)
    a, upper = tensor.numpy(), g.numpy()
    width, centre = UPPER - LOWER, (UPPER + LOWER) / 2
    code = np.where(a >= centre, 1, -1)
    assert_allclose(value, np.where(code > 0, UPPER, LOWER))
    v = (np.clip(a, LOWER, UPPER) - centre) / width  # -1/2 to 1/2
    inside = (a > LOWER) & (a < UPPER)
    c, s = math.log(2 / alpha - 1), 1 / (1 - alpha)
    sech = 1 - np.tanh(c * v) ** 2
    slope = s * c * sech  # of phi in v
    assert_allclose(grad, upper * inside * slope / 2, rtol=1e-10)
    to_upper = (1 + code) / 2 - inside * slope * (0.5 + v) / 2
    to_lower = (1 - code) / 2 - inside * slope * (0.5 - v) / 2
    to_alpha = width / 2 * (s**2 * np.tanh(c * v) - s * sech * v * 2 / (alpha * (2 - alpha)))
    assert float(side.upper.grad) == pytest.approx((upper * to_upper).sum())
    assert float(side.lower.grad) == pytest.approx((upper * to_lower).sum())
    assert float(side.alpha.grad) == pytest.approx((upper * to_alpha).sum())


@pytest.mark.parametrize("alpha", [0.2, 0.45])
def test_input_gradient_is_the_soft_quantizers_derivative(alpha, x, gradient):
    _, grad = gradient(_side(alpha), x, torch.ones_like(x))
    step, a = 1e-6, x.numpy()
    difference = _soft(a + step, LOWER, UPPER, alpha) - _soft(a - step, LOWER, UPPER, alpha)
    assert_allclose(grad, difference / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_centre_is_plus_one_and_both_sides_hold_two_values(x, weight):
    side = _side(0.2)
    centre = ((side.lower + side.upper) / 2).detach().view(1, 1, 1, 1)
    assert float(side(centre).detach()) == pytest.approx(UPPER)
    for which, tensor in (("activation", x), ("weight", weight)):
        parts = _side(0.2, which).decompose(tensor)
        assert parts.scale.numel() == parts.offset.numel() == 1  # one range a layer
        assert float(parts.scale) == pytest.approx((UPPER - LOWER) / 2)
        assert float(parts.offset) == pytest.approx((UPPER + LOWER) / 2)
        assert torch.equal(parts.code > 0, tensor > (UPPER + LOWER) / 2)


def test_start_is_symmetric_and_covers_kaimings_weights():
    weight = load_quantizer("dsq").weight((64, 16, 3, 3))
    activation = load_quantizer("dsq").activation(16)
    assert float(weight.upper.detach()) == pytest.approx(3 * math.sqrt(2 / (64 * 9)))
    for side in (weight, activation):
        assert side.lower.detach() == -side.upper.detach()
        assert float(side.alpha.detach()) == pytest.approx(0.2)
    assert activation.upper.detach() == 1


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0, 3.0])
def test_softness_is_held_where_the_step_exists(alpha, x, gradient, upstream):
    side = _side(alpha)
    value, grad = gradient(side, x, upstream(x))
    assert value.unique().numel() == 2
    assert grad.isfinite().all()
    assert float(side.alpha.grad) == 0


def test_a_range_that_closes_stays_finite(x, gradient, upstream):
    side = _side(0.2)
    side.upper.data.fill_(LOWER)
    value, grad = gradient(side, x, upstream(x))
    for tensor in (value, grad, side.lower.grad, side.upper.grad, side.alpha.grad):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_gradients_reach_both_ranges(geometry, x):
    torch.manual_seed(0)
    conv = load_quantizer("dsq").conv2d(4, 6, 3, padding=2, **geometry).double()
    out = conv(x)
    out.backward(torch.randn_like(out))
    for parameter in conv.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
