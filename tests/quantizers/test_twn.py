"""TWN: threshold and scale of the layer, the least squares that they approximate, the gradient."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer


@pytest.mark.parametrize("threshold", [0.7, 0.3, 0.0])
def test_weight(threshold, weight, gradient, upstream):
    side, g = load_quantizer("twn", threshold=threshold).weight((6, 4, 3, 3)), upstream(weight)
    value, grad = gradient(side, weight, g)
    w = weight.numpy()
    delta = threshold * np.abs(w).mean()
    code = (w > delta).astype(float) - (w < -delta)
    alpha = (code * w).sum() / (code * code).sum()  # least squares for this code
    assert_allclose(value, alpha * code, rtol=1e-13)
    assert torch.equal(grad, g)


def test_scale_and_threshold_are_the_layers(weight):
    weight[0] *= 9
    value = load_quantizer("twn").weight((6, 4, 3, 3))(weight)
    assert value.abs().unique().numel() == 2  # 0 and alpha
    assert (value[0] != 0).double().mean() > (value[1:] != 0).double().mean()


def test_zero_and_the_threshold_itself_become_zero():
    weight = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.0, -1.0]).view(1, 6, 1, 1)  # E|w| = 0.5
    value = load_quantizer("twn", threshold=0.999).weight((1, 6, 1, 1))(weight)
    assert value.flatten().tolist() == pytest.approx([0, 0, 0.75, -0.75, 0.75, -0.75])
    weight = torch.tensor([0.25, -0.25, 0.75, -0.75]).view(1, 4, 1, 1)
    value = load_quantizer("twn", threshold=0.5).weight((1, 4, 1, 1))(weight)
    assert value.flatten().tolist() == [0, 0, 0.75, -0.75]


def test_a_layer_of_zeros_stays_finite():
    weight = torch.zeros(2, 3, 3, 3)
    assert torch.equal(load_quantizer("twn").weight((2, 3, 3, 3))(weight), weight)


def test_real_activations_and_two_bits():
    spec = load_quantizer("twn")
    conv = spec.conv2d(4, 6, 3, bias=False)
    assert (conv.weight_quantizer.bits, conv.activation_quantizer.bits) == (2, 32)
    with pytest.raises(NotImplementedError, match="2 bits"):
        conv.weight_quantizer.decompose(conv.weight)


@pytest.mark.parametrize("geometry", [{"groups": 2}, {"dilation": 2}, {"stride": 2}])
def test_gradients_are_the_plain_convolutions(geometry, x):
    """Straight-through: the latent weight gets what the ternary one would."""
    conv = load_quantizer("twn").conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    plain = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False, **geometry).double()
    plain.weight.data = conv.weight_quantizer(conv.weight).detach()
    for layer in (conv, plain):
        layer(x).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match=r"quantizer\.threshold="):
        load_quantizer("twn", threshold=threshold).weight((1, 1, 1, 1))
