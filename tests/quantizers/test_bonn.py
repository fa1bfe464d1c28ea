"""BONN's binary weights against Algorithm 1 and Eqs. 12 and 15 of arXiv 1908.06314."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import bnnbench
from bnnbench.quantizers.bonn import BONNWeight


def side(shape: torch.Size | tuple[int, ...], **options: str) -> BONNWeight:
    torch.manual_seed(0)
    return BONNWeight(shape, **{"gradient": "paper", "scale": "learned"} | options).double()


def test_one_scale_a_layer_the_mean_of_the_vector(weight: Tensor) -> None:
    quantizer = side(weight.shape)
    assert quantizer.w.shape == (1, 1, 3, 3)
    values = quantizer(weight).unique()
    mean = float(quantizer.w.detach().mean())
    assert values.tolist() == pytest.approx([-mean, mean])


def test_gradients_are_the_papers(weight: Tensor, upstream, gradient) -> None:
    """Eq. 12 and Eq. 15, written out; some |w X| lie beyond 1 here."""
    quantizer = side(weight.shape)
    quantizer.w.data.mul_(20)
    w, g = quantizer.w.detach(), upstream(weight)
    _, grad = gradient(quantizer, weight, g)
    inside = ((w * weight >= -1) & (w * weight <= 1)).double()
    assert 0 < inside.mean() < 1
    torch.testing.assert_close(grad, g * inside * w)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for kernel in range(weight.shape[0]):
        for channel in range(weight.shape[1]):
            part = g[kernel, channel] * inside[kernel, channel] * weight[kernel, channel]
            expected += part
    assert quantizer.w.grad is not None
    torch.testing.assert_close(quantizer.w.grad[0, 0], expected)


def test_the_clip_is_inactive_at_the_papers_scale(weight: Tensor, upstream, gradient) -> None:
    small, g = 0.01 * weight, upstream(weight)
    quantizer = side(weight.shape)
    _, grad = gradient(quantizer, small, g)
    torch.testing.assert_close(grad, g * quantizer.w.detach())


def test_autograd_option_differentiates_the_mean(weight: Tensor, upstream, gradient) -> None:
    quantizer, g = side(weight.shape, gradient="autograd"), upstream(weight)
    _, grad = gradient(quantizer, weight, g)
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    mean = quantizer.w.detach().mean()
    torch.testing.assert_close(grad, g * mean * (weight.abs() < 1))
    assert quantizer.w.grad is not None
    same = torch.full((1, 1, 3, 3), float((g * signs).sum() / 9), dtype=torch.float64)
    torch.testing.assert_close(quantizer.w.grad, same)


def test_mean_magnitude_of_the_layer_instead_of_a_learned_scale(weight: Tensor) -> None:
    quantizer = side(weight.shape, scale="mean")
    assert not list(quantizer.parameters())
    assert float(quantizer(weight).max()) == pytest.approx(float(weight.abs().mean()))


def test_modulation_keeps_every_element(weight: Tensor) -> None:
    quantizer = side(weight.shape)
    expected = weight * quantizer.w.detach()[0, 0]
    torch.testing.assert_close(quantizer.modulated(weight).detach(), expected)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_sign_of_zero_is_plus_one(zero: float) -> None:
    quantizer = side((1, 1, 1, 1))
    assert float(quantizer(torch.full((1, 1, 1, 1), zero).double())) > 0


def test_starts_with_the_scale_of_an_xnor_layer() -> None:
    """E|X| of Kaiming's normal initialisation is sqrt(2 / pi) of its standard deviation."""
    torch.manual_seed(0)
    conv = bnnbench.load_quantizer("bonn").conv2d(64, 64, 3)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    start = math.sqrt(2 / math.pi) * math.sqrt(2 / (64 * 9))
    assert float(conv.weight.abs().mean()) == pytest.approx(start, rel=0.02)
    w = conv.weight_quantizer.w
    assert bool(((w >= 0.5 * start) & (w <= 1.5 * start)).all())
    assert float(w.detach().std()) > 0


def test_linear_layers_have_one_element() -> None:
    linear = bnnbench.load_quantizer("bonn").linear(6, 4)
    linear(torch.randn(2, 6)).sum().backward()
    w = linear.weight_quantizer.w
    assert w.shape == (1, 1)
    assert w.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "lua"}, "quantizer.gradient='lua'"),
        ({"scale": "max"}, "quantizer.scale='max'"),
    ],
)
def test_unknown_options_are_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        side((2, 2, 3, 3), **options)
