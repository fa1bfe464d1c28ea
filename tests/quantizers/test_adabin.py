"""AdaBin: adaptive sets of both sides, both centre forms, the four-term expansion."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor, nn

from bnnbench.config import load_quantizer
from bnnbench.layers import BinaryConv2d, set_progress
from bnnbench.quantizers.base import Side

CENTERS = ["paper", "reference"]
ALPHA, BETA = 0.7, 0.3


def _weight_closed_form(
    w: np.ndarray, g: np.ndarray, k: float, t: float
) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient, filter by filter: nothing is detached."""
    values, gradients = np.empty_like(w), np.empty_like(w)
    for o in range(len(w)):
        n, beta = w[o].size, w[o].mean()
        alpha = np.sqrt(((w[o] - beta) ** 2).sum() / n)
        u = (w[o] - beta) / alpha
        s = np.where(u >= 0, 1, -1)
        values[o] = alpha * s + beta
        to_u = alpha * g[o] * k * t * (1 - np.tanh(t * u) ** 2)
        through_sign = (to_u - to_u.mean() - u * (to_u * u).mean()) / alpha
        gradients[o] = through_sign + u / n * (g[o] * s).sum() + g[o].sum() / n
    return values, gradients


@pytest.mark.parametrize(("epoch", "k", "t"), [(0, 1e3, 1e-3), (50, 10, 0.1), (100, 1, 10)])
def test_weight(epoch, k, t, weight, gradient, upstream):
    side, g = load_quantizer("adabin").weight(tuple(weight.shape)).double(), upstream(weight)
    set_progress(side, epoch, 100)
    value, grad = gradient(side, weight, g)
    expected = _weight_closed_form(weight.numpy(), g.numpy(), k, t)
    assert_allclose(value, expected[0], rtol=1e-12)
    assert_allclose(grad, expected[1], rtol=1e-9, atol=1e-12)


def test_weight_set_is_per_filter(weight):
    parts = load_quantizer("adabin").weight(tuple(weight.shape)).decompose(weight)
    assert_allclose(parts.scale.flatten(), weight.numpy().std(axis=(1, 2, 3)))
    assert_allclose(parts.offset.flatten(), weight.numpy().mean(axis=(1, 2, 3)))


def test_a_constant_filter_stays_finite():
    side = load_quantizer("adabin").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side(weight).sum().backward()
    torch.testing.assert_close(side(weight), weight)
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def _activation(center: str, alpha: float = ALPHA, beta: float = BETA) -> Side:
    side = load_quantizer("adabin", activation_center=center).activation(4).double()
    side.alpha.data.fill_(alpha)
    side.beta.data.fill_(beta)
    return side


@pytest.mark.parametrize("alpha", [ALPHA, -0.4])  # alpha may cross zero: the sign cancels
@pytest.mark.parametrize("center", CENTERS)
def test_activation(center, alpha, x, gradient, upstream):
    side, g = _activation(center, alpha), upstream(x)
    value, grad = gradient(side, x, g)
    u = (x - BETA) / alpha
    s, slope = torch.where(u >= 0, 1.0, -1.0), (2 - 2 * u.abs()).clamp(min=0)
    if center == "paper":
        expected, to_alpha, to_beta = alpha * s + BETA, s - u * slope, 1 - slope
    else:
        expected = alpha * (s + BETA)
        to_alpha, to_beta = s + BETA - u * slope, alpha - slope
    torch.testing.assert_close(value, expected.double())
    torch.testing.assert_close(grad, g * slope)
    torch.testing.assert_close(side.alpha.grad, (g * to_alpha).sum())
    torch.testing.assert_close(side.beta.grad, (g * to_beta).sum())


@pytest.mark.parametrize("center", CENTERS)
def test_activation_set_has_two_members_also_at_its_centre(center):
    side = _activation(center)
    x = torch.tensor([-3.0, BETA, 3.0], dtype=torch.float64).view(1, 1, 1, 3)
    low, high = (-ALPHA + BETA, ALPHA + BETA)
    if center == "reference":
        low, high = ALPHA * (BETA - 1), ALPHA * (BETA + 1)
    assert_allclose(side(x).detach().flatten(), [low, high, high])


@pytest.mark.parametrize("center", CENTERS)
def test_alpha_of_exactly_zero_stays_finite(center, x):
    side = _activation(center, alpha=0.0)
    x.requires_grad_()
    side(x).sum().backward()
    for grad in (x.grad, side.alpha.grad, side.beta.grad):
        assert grad is not None
        assert grad.isfinite().all()


def _expansion(conv: BinaryConv2d, x: Tensor) -> Tensor:
    """XNOR-BitCount, the shared bit count and two tables, with the border's share in a mask."""
    scale_a, code_a, offset_a = conv.activation_quantizer.decompose(x)
    scale_w, code_w, offset_w = conv.weight_quantizer.decompose(conv.weight)

    def correlate(a: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(F.pad(a, (1, 1, 1, 1)), w, stride=conv.stride)

    inside = torch.ones_like(code_a)
    ones = torch.ones_like(code_w)
    outside = F.conv2d(1 - F.pad(inside, (1, 1, 1, 1)), code_w, stride=conv.stride)
    outside_ones = F.conv2d(1 - F.pad(inside, (1, 1, 1, 1)), ones, stride=conv.stride)
    per_output = (-1, 1, 1)
    alpha_w, beta_w = scale_w.view(per_output), offset_w.view(per_output)
    return (
        scale_a * alpha_w * correlate(code_a, code_w)
        + scale_a * beta_w * correlate(code_a, ones)
        + alpha_w * offset_a * correlate(inside, code_w)
        + offset_a * beta_w * correlate(inside, ones)
        + conv.padding_value * (alpha_w * outside + beta_w * outside_ones)
    )


@pytest.mark.parametrize("padding_value", [0, -1, 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("center", CENTERS)
def test_four_term_expansion_is_the_dense_convolution(center, stride, padding_value, x, weight):
    spec = load_quantizer("adabin", activation_center=center)
    conv = spec.conv2d(
        4, 6, 3, stride=stride, padding=1, bias=False, padding_value=padding_value
    ).double()
    conv.weight.data = weight
    conv.activation_quantizer.alpha.data.fill_(ALPHA)
    conv.activation_quantizer.beta.data.fill_(BETA)
    torch.testing.assert_close(conv(x).detach(), _expansion(conv, x))


def test_schedule_follows_the_progress_on_the_weights_only():
    net = nn.Sequential(load_quantizer("adabin").conv2d(2, 2, 3)).double()
    schedule = net[0].weight_quantizer.schedule
    for epoch, t in [(0, 1e-3), (100, 1e-2), (200, 1e-1), (300, 1.0), (400, 10.0)]:
        set_progress(net, epoch, 400)
        assert float(schedule.t) == pytest.approx(t)
        peak = float(schedule.k * schedule.t)
        assert peak == pytest.approx(max(t, 1))  # 1 for the first 75 % of training
    assert not any("schedule" in key for key in net[0].activation_quantizer.state_dict())


def test_schedule_survives_a_state_dict():
    trained, fresh = (load_quantizer("adabin").conv2d(2, 2, 3) for _ in range(2))
    set_progress(trained, 7, 8)
    fresh.load_state_dict(trained.state_dict())
    assert float(fresh.weight_quantizer.schedule.t) == pytest.approx(10**0.5)
    assert float(fresh.weight_quantizer.schedule.k) == 1


@pytest.mark.parametrize("center", CENTERS)
def test_weights_of_the_other_form_are_refused(center):
    other = CENTERS[1 - CENTERS.index(center)]
    trained = load_quantizer("adabin", activation_center=center).conv2d(2, 2, 3)
    net = load_quantizer("adabin", activation_center=other).conv2d(2, 2, 3)
    with pytest.raises(ValueError, match=f"set quantizer.activation_center={center}"):
        net.load_state_dict(trained.state_dict())
    twin = load_quantizer("adabin", activation_center=center).conv2d(2, 2, 3)
    twin.load_state_dict(trained.state_dict())


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"activation_center='mean'.*paper.*reference"):
        load_quantizer("adabin", activation_center="mean").activation(4)
