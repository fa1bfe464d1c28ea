"""TBN: ternary activations in both versions, their running threshold, binary weights."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer


def _code(x: np.ndarray, delta: float) -> np.ndarray:
    return (x >= delta).astype(float) - (x <= -delta)


def _triangle(x: np.ndarray, delta: float, order: float) -> np.ndarray:
    """Written out piece by piece: 0 at 0 and +-2 Delta, ``order`` at +-Delta."""
    away = np.abs(x) / delta
    inner, outer = away ** (order - 1), np.abs(2 - away) ** (order - 1)
    return order * np.where(away <= 1, inner, np.where(away <= 2, outer, 0))


def test_weight(weight, gradient, upstream):
    side, g = load_quantizer("tbn").weight((6, 4, 3, 3)), upstream(weight)
    value, grad = gradient(side, weight, g)
    w = weight.numpy()
    alpha = np.abs(w).reshape(6, -1).mean(axis=1).reshape(6, 1, 1, 1)
    assert_allclose(value, alpha * np.where(w >= 0, 1, -1), rtol=1e-13)
    assert torch.equal(grad, g)


@pytest.mark.parametrize("delta", [0.4, 0.5, 0.9])
def test_version_1(delta, x, gradient, upstream):
    side, g = load_quantizer("tbn", delta=delta).activation(4).double(), upstream(x)
    value, grad = gradient(side, x, g)
    threshold = delta * np.abs(x.numpy()).mean()
    assert np.array_equal(value, _code(x.numpy(), threshold))
    assert np.array_equal(grad, g.numpy() * (np.abs(x.numpy()) < 1))


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
def test_version_2(order, x, gradient, upstream):
    side = load_quantizer("tbn", version=2, order=order).activation(4).double()
    g = upstream(x)
    value, grad = gradient(side, x, g)
    threshold = 0.5 * np.abs(x.numpy()).mean()
    assert_allclose(value, 2 * threshold * _code(x.numpy(), threshold), rtol=1e-13)
    expected = g.numpy() * _triangle(x.numpy(), threshold, order)
    assert_allclose(grad, expected, rtol=1e-9, atol=1e-12)


def test_evaluation_uses_the_running_threshold(x):
    side = load_quantizer("tbn", momentum=0.1).activation(4).double()
    start = float(side.running_delta)
    assert start == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=1e-4)  # of a standard normal map
    seen = []
    for scale in (1.0, 3.0):
        side(scale * x)
        seen.append(0.5 * scale * float(x.abs().mean()))
    running = 0.9 * (0.9 * start + 0.1 * seen[0]) + 0.1 * seen[1]
    assert float(side.running_delta) == pytest.approx(running)
    code = side.eval()(x)
    assert np.array_equal(code, _code(x.numpy(), running))
    assert float(side.running_delta) == pytest.approx(running)  # evaluation leaves it


def test_the_running_threshold_survives_a_checkpoint(x):
    trained, fresh = (load_quantizer("tbn", momentum=0.5).activation(4).double() for _ in range(2))
    trained(5 * x)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.eval()(x), trained.eval()(x))


def test_both_thresholds_belong_to_the_codes():
    side = load_quantizer("tbn").activation(1).eval()
    side.running_delta.fill_(0.25)
    x = torch.tensor([[0.25, -0.25, 0.0, -0.0, 0.2, -0.3]])
    assert side(x).tolist() == [[1, -1, 0, 0, 0, -1]]


def test_a_map_of_zeros_stays_finite():
    side = load_quantizer("tbn", version=2).activation(2)
    x = torch.zeros(2, 2, 3, 3, requires_grad=True)
    side(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_ternary_activations_have_two_bits():
    conv = load_quantizer("tbn").conv2d(4, 6, 3, bias=False)
    assert (conv.weight_quantizer.bits, conv.activation_quantizer.bits) == (1, 2)
    with pytest.raises(NotImplementedError, match="2 bits"):
        conv.activation_quantizer.decompose(torch.ones(1, 4))


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_gradients_are_the_plain_convolutions(geometry, x):
    conv = load_quantizer("tbn").conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    plain = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    plain.weight.data = conv.weight_quantizer(conv.weight).detach()
    conv(x).square().sum().backward()
    plain(conv.activation_quantizer(x).detach()).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("wrong", [{"delta": 0}, {"momentum": 0}, {"version": 3}, {"order": 0.5}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match="quantizer: delta must be"):
        load_quantizer("tbn", **wrong).activation(1)
