"""Si-BNN: {0, 1} activations with learned threshold and window, the weights' two-term gradient."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer

THETA, SLOPE = [0.1, -0.2, 0.0, 0.5], [1.0, 0.5, 2.0, 1.5]


def test_weight(weight, gradient, upstream):
    g = upstream(weight)
    value, grad = gradient(load_quantizer("sibnn").weight(tuple(weight.shape)), weight, g)
    for o in range(len(weight)):
        w, upper = weight[o].numpy(), g[o].numpy()
        n, code = w.size, np.where(w >= 0, 1, -1)
        assert_allclose(value[o], np.abs(w).mean() * code)
        expected = (1 - 1 / n) * upper + code / n * (upper * code).sum()  # no scale, no window
        assert_allclose(grad[o], expected, rtol=1e-12)


def test_scale_is_per_filter(weight):
    scale = load_quantizer("sibnn").weight(tuple(weight.shape)).decompose(weight).scale
    assert_allclose(scale.flatten(), np.abs(weight.numpy()).mean(axis=(1, 2, 3)))


def _activation():
    side = load_quantizer("sibnn").activation(4).double()
    side.threshold.data = torch.tensor(THETA, dtype=torch.float64)
    side.slope.data = torch.tensor(SLOPE, dtype=torch.float64)
    return side


def test_activation(x, gradient, upstream):
    side, g = _activation(), upstream(x)
    value, grad = gradient(side, x, g)
    to_theta, to_slope = np.zeros(4), np.zeros(4)
    for c, (theta, slope) in enumerate(zip(THETA, SLOPE, strict=True)):
        centred = x[:, c].numpy() - theta
        # in x: 0.3 / slope below the threshold, 1 / slope above it
        passed = g[:, c].numpy() * ((centred > -0.3 / slope) & (centred < 1 / slope))
        assert_allclose(value[:, c], centred >= 0)
        assert_allclose(grad[:, c], slope * passed)
        to_theta[c], to_slope[c] = -slope * passed.sum(), (centred * passed).sum()
    assert_allclose(side.threshold.grad, to_theta)
    assert_allclose(side.slope.grad, to_slope)


def test_initial_window_and_the_threshold_belongs_to_one(gradient):
    side = load_quantizer("sibnn").activation(1).double()
    values = [-1.0, -0.301, -0.299, -0.0, 0.0, 0.999, 1.001]
    x = torch.tensor(values, dtype=torch.float64).view(1, 1, 1, 7)
    value, grad = gradient(side, x, torch.ones_like(x))
    assert value.flatten().tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert grad.flatten().tolist() == [0, 0, 1, 1, 1, 1, 0]


def test_rows_of_a_linear_layer_have_the_same_thresholds(x):
    side = _activation()
    rows = x[:, :, 0, 0]
    torch.testing.assert_close(side(rows), side(x)[:, :, 0, 0])


def test_padding_with_zero_is_a_member_of_the_set(x, weight):
    conv = load_quantizer("sibnn").conv2d(4, 6, 3, padding=1, bias=False).double()
    conv.weight.data = weight
    scale, code, offset = conv.activation_quantizer.decompose(x)
    padded = F.pad(code, (1, 1, 1, 1), value=-1)  # -1 stands for 0
    quantized = conv.weight_quantizer(weight)
    torch.testing.assert_close(conv(x), F.conv2d(scale * padded + offset, quantized))


def test_evaluation_leaves_latent_weights_alone_and_a_step_clips_them(weight):
    """The released code clips before every forward, in evaluation too."""
    conv = load_quantizer("sibnn").conv2d(4, 6, 3, bias=False).double().eval()
    conv.weight.data = weight.clone()
    before = copy.deepcopy(conv.state_dict())
    conv(torch.ones(1, 4, 5, 5, dtype=torch.float64))
    assert all(torch.equal(value, before[key]) for key, value in conv.state_dict().items())
    assert weight.abs().max() > 1
    conv.weight_quantizer.after_step(conv.weight)
    assert torch.equal(conv.weight, weight.clamp(-1, 1))


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_gradients_reach_threshold_and_window(geometry, x):
    conv = load_quantizer("sibnn").conv2d(4, 6, 3, padding=2, **geometry).double()
    out = conv(x)
    out.backward(torch.randn_like(out))
    for parameter in conv.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
