"""BWN: XNOR-Net's weights over real activations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer


def test_weight(weight, gradient, upstream):
    g = upstream(weight)
    value, grad = gradient(load_quantizer("bwn").weight((6, 4, 3, 3)), weight, g)
    for o, w in enumerate(weight.numpy()):
        centred = (w - w.mean(axis=0)).clip(-1, 1)
        alpha, code, upper = np.abs(centred).mean(), np.where(centred >= 0, 1, -1), g[o].numpy()
        assert_allclose(value[o], alpha * code)
        along = code / w.size * (upper * code).sum()
        assert_allclose(grad[o], alpha * upper + along, rtol=1e-12)


@pytest.mark.parametrize(("rule", "factor"), [("paper", 1.0), ("lua", 1 - 1 / 4)])
def test_elementwise_gradients(rule, factor, weight, gradient, upstream):
    g = upstream(weight)
    side = load_quantizer("bwn", gradient=rule, gradient_scale=36).weight((6, 4, 3, 3))
    _, grad = gradient(side, weight, g)
    centred = (weight - weight.mean(dim=1, keepdim=True)).clamp(-1, 1)
    alpha = centred.abs().mean(dim=(1, 2, 3), keepdim=True)
    expected = 36 * factor * g * (alpha * (centred.abs() < 1) + 1 / 36)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_activations_are_real(geometry, x, gradient):
    conv = load_quantizer("bwn").conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    quantized = conv.weight_quantizer(conv.weight).detach()
    expected = F.conv2d(x, quantized, padding=1, **geometry)
    out, grad = gradient(conv, x, torch.ones_like(expected))
    torch.testing.assert_close(out, expected)
    _, plain = gradient(
        lambda x: F.conv2d(x, quantized, padding=1, **geometry), x, torch.ones_like(expected)
    )
    torch.testing.assert_close(grad, plain)
    assert conv.weight.grad.abs().sum() > 0
