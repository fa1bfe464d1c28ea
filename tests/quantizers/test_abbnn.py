"""A&B BNN: standardised weights with a gain, sigmoid slopes, power-of-two slopes, clipping."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from bnnbench.config import load_quantizer
from bnnbench.quantizers import QuantizedRPReLU


def _weight(w: np.ndarray, gain: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, ...]:
    """Value and gradients of weight and gain, filter by filter."""
    value, to_w, to_gain = np.empty_like(w), np.empty_like(w), np.empty(len(w))
    for i, row in enumerate(w):
        n, d = row.size, row - row.mean()
        std = math.sqrt((d**2).mean())
        v = d / (std + 1e-5) / math.sqrt(n)
        unit = np.abs(v).mean() * np.where(v >= 0, 1, -1)
        value[i], to_gain[i] = gain[i] * unit, (g[i] * unit).sum()
        to_v = gain[i] * g[i] / math.sqrt(n)
        to_d = to_v / (std + 1e-5) - (to_v * d).sum() / (std + 1e-5) ** 2 * d / (n * std)
        to_w[i] = to_d - to_d.mean()
    return value, to_w, to_gain


def _sigmoid_slope(x: np.ndarray) -> np.ndarray:
    """Of ``2 / (1 + e^(-3x)) - 1``."""
    return 6 * np.exp(-3 * x) / (1 + np.exp(-3 * x)) ** 2


def test_weight(weight, gradient, upstream):
    side, g = load_quantizer("abbnn").weight(tuple(weight.shape)).double(), upstream(weight)
    assert torch.equal(side.gain, torch.ones(6, 1, 1, 1).double())
    weight = weight.clone()
    weight[0, 0, 0, 0] = 20.0
    side.gain.data = torch.linspace(-0.5, 2, 6).view(6, 1, 1, 1).double()
    value, grad = gradient(side, weight, g)
    expected = _weight(weight.numpy(), side.gain.detach().numpy().ravel(), g.numpy())
    assert_allclose(value, expected[0], rtol=1e-12)
    assert_allclose(grad, expected[1], rtol=1e-9, atol=1e-12)
    assert_allclose(side.gain.grad.flatten(), expected[2], rtol=1e-9)


def test_activation(x, gradient, upstream):
    side, g = load_quantizer("abbnn").activation(4).double(), upstream(x)
    side.threshold.data = torch.tensor([0.0, 0.4, -0.7, 0.1], dtype=torch.float64)
    value, grad = gradient(side, x, g)
    shifted = x - side.threshold.detach().view(-1, 1, 1)
    expected = g.numpy() * _sigmoid_slope(shifted.numpy())
    assert torch.equal(value, torch.where(shifted >= 0, 1.0, -1.0).double())
    assert_allclose(grad, expected, rtol=1e-10)
    assert_allclose(side.threshold.grad, -expected.sum(axis=(0, 2, 3)), rtol=1e-10)


def test_quantized_rprelu(x, gradient, upstream):
    act, g = QuantizedRPReLU(4).double(), upstream(x)
    start = act(x)
    torch.testing.assert_close(start, torch.where(x >= 0, x, x / 8))
    exponent = torch.tensor([-3.4, -1.6, 0.2, -6.0], dtype=torch.float64)
    act.exponent.data = exponent
    act.shift_in.data, act.shift_out.data = exponent / 10, exponent / 5
    value, grad = gradient(act, x, g)
    slope = torch.tensor([1 / 8, 1 / 4, 1, 1 / 64], dtype=torch.float64).view(-1, 1, 1)
    shifted = x - (exponent / 10).view(-1, 1, 1)
    below = shifted < 0
    expected = torch.where(below, slope * shifted, shifted) + (exponent / 5).view(-1, 1, 1)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, torch.where(below, slope * g, g))
    to_exponent = (g * below * shifted * slope * math.log(2)).sum(dim=(0, 2, 3))
    torch.testing.assert_close(act.exponent.grad, to_exponent)


@pytest.mark.parametrize("factor", [0.0, 1e-3, 0.02])
def test_gradients_are_clipped_to_a_share_of_the_norm_of_their_filter(factor, weight, upstream):
    side = load_quantizer("abbnn", clip_factor=factor).weight(tuple(weight.shape)).double()
    latent = nn.Parameter(weight.clone())
    latent.data[0] = 1e-6  # a norm below the least, 1e-3
    latent.grad, side.gain.grad = upstream(weight), upstream(side.gain)
    latent.grad[1] *= 1e-6  # small enough to stay
    pairs = [(parameter, parameter.grad.clone()) for parameter in (latent, side.gain)]
    side.after_backward(latent)
    for parameter, before in pairs:
        for w, g, after in zip(parameter.detach(), before, parameter.grad, strict=True):
            limit = factor * max(float(w.norm()), 1e-3)
            share = min(1.0, limit / float(g.norm())) if factor else 1.0
            torch.testing.assert_close(after, share * g)


def test_clipping_runs_in_training(compose, short):
    """Without a hook that is called, the gradient norms of a step would exceed their limit."""
    from bnnbench.runs import build

    task = build.build_task(compose(*short, "quantizer=abbnn"))
    trainer = build.build_trainer(compose(*short, "quantizer=abbnn"), ".", quiet=True)
    seen = []

    def record(weight):
        seen.append(float(weight.grad.norm()))

    side = task.net.stages[0][0].conv1.weight_quantizer
    original = side.after_backward
    side.after_backward = lambda weight: (record(weight), original(weight), record(weight))
    trainer.fit_loop.max_epochs = 1
    trainer.fit(task, build.build_datamodule(compose(*short, "quantizer=abbnn")))
    assert len(seen) == 2 * 3
    assert all(after <= before for before, after in zip(seen[::2], seen[1::2], strict=True))
    assert any(after < 0.5 * before for before, after in zip(seen[::2], seen[1::2], strict=True))


def test_layer_with_groups_dilation_and_stride(x, upstream):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    conv = load_quantizer("abbnn").conv2d(4, 6, 3, bias=False, **options).double()
    leaf = x.clone().requires_grad_()
    out = conv(leaf)
    g = upstream(out)
    out.backward(g)
    w, gain = conv.weight.detach().numpy(), np.ones(6)
    parts = [torch.where(x >= 0, 1.0, -1.0).double()]
    parts += [torch.tensor(_weight(w, gain, w)[0])]
    parts = [part.requires_grad_() for part in parts]
    plain = F.conv2d(*parts, None, **options)
    plain.backward(g)
    torch.testing.assert_close(out, plain)
    assert_allclose(leaf.grad, parts[0].grad.numpy() * _sigmoid_slope(x.numpy()), rtol=1e-9)
    to_weight = _weight(w, gain, parts[1].grad.numpy())[1]
    assert_allclose(conv.weight.grad, to_weight, rtol=1e-8, atol=1e-11)


def test_a_constant_filter_stays_finite():
    side = load_quantizer("abbnn").weight((1, 2, 3, 3))
    weight = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    side(weight).sum().backward()
    assert weight.grad.isfinite().all()


def test_a_negative_clip_factor_is_refused():
    with pytest.raises(ValueError, match="clip_factor=-1 must not be negative"):
        load_quantizer("abbnn", clip_factor=-1).weight((1, 1, 1, 1))
