"""XNOR-Net++: plain signs, and Gamma as the outer product of three learned vectors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer
from bnnbench.layers import BinaryConv2d

GEOMETRIES = [{}, {"groups": 2}, {"dilation": 2}, {"stride": 2}, {"stride": (1, 2)}]


def _conv(**geometry) -> BinaryConv2d:
    torch.manual_seed(0)
    conv = load_quantizer("xnorpp", map_size=7).conv2d(4, 6, 3, bias=False, padding=1, **geometry)
    for vector in conv.output.parameters():
        vector.data.uniform_(0.5, 1.5)
    return conv.double()


def test_sides_are_signs_without_a_scale(weight, x, gradient, upstream):
    spec = load_quantizer("xnorpp")
    g = upstream(weight)
    value, grad = gradient(spec.weight((6, 4, 3, 3)), weight, g)
    assert torch.equal(value, torch.where(weight >= 0, 1.0, -1.0).double())
    assert torch.equal(grad, g)
    g = upstream(x)
    value, grad = gradient(spec.activation(4), x, g)
    assert torch.equal(value, torch.where(x >= 0, 1.0, -1.0).double())
    torch.testing.assert_close(grad, torch.where(x.abs() < 1, g, 0.0))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gamma(geometry, x, gradient, upstream):
    """Value and gradients of the three vectors, by loops over channels, rows and columns."""
    conv = _conv(**geometry)
    a, r, c = (p.detach().numpy().flatten() for p in conv.output.parameters())
    codes = conv.activation_quantizer(x), conv.weight_quantizer(conv.weight).detach()
    plain = F.conv2d(*codes, None, conv.stride, 1, conv.dilation, conv.groups).numpy()
    g = upstream(torch.from_numpy(plain))
    out, _ = gradient(conv, x, g)
    expected, grads = np.empty_like(plain), (np.zeros_like(a), np.zeros_like(r), np.zeros_like(c))
    for n, o, i, j in np.ndindex(*plain.shape):
        expected[n, o, i, j] = plain[n, o, i, j] * a[o] * r[i] * c[j]
        upper = float(g[n, o, i, j]) * plain[n, o, i, j]
        grads[0][o] += upper * r[i] * c[j]
        grads[1][i] += upper * a[o] * c[j]
        grads[2][j] += upper * a[o] * r[i]
    assert_allclose(out, expected)
    for parameter, grad in zip(conv.output.parameters(), grads, strict=True):
        assert_allclose(parameter.grad.flatten(), grad, rtol=1e-9, atol=1e-12)


def test_gamma_scales_the_gradients_of_input_and_weight(x, gradient, upstream):
    conv = _conv()
    gamma = conv.output(torch.ones(1, 6, 5, 5, dtype=torch.float64), x).detach()
    g = upstream(gamma.expand(3, 6, 5, 5))
    _, grad = gradient(conv, x, g)
    codes = conv.activation_quantizer(x), conv.weight_quantizer(conv.weight).detach()
    to_input = torch.nn.grad.conv2d_input(x.shape, codes[1], g * gamma, padding=1)
    to_weight = torch.nn.grad.conv2d_weight(codes[0], conv.weight.shape, g * gamma, padding=1)
    torch.testing.assert_close(grad, torch.where(x.abs() < 1, to_input, 0.0))
    torch.testing.assert_close(conv.weight.grad, to_weight)


def test_it_starts_as_a_bnn(x):
    conv = load_quantizer("xnorpp").conv2d(4, 6, 3, bias=False).double()
    codes = conv.activation_quantizer(x), conv.weight_quantizer(conv.weight)
    assert torch.equal(conv(x), F.conv2d(*codes))


def test_smaller_maps_use_the_first_elements_and_larger_ones_are_refused(x):
    conv = _conv()
    whole = conv.output(torch.ones(1, 6, 7, 7, dtype=torch.float64), x)
    part = conv.output(torch.ones(1, 6, 2, 3, dtype=torch.float64), x)
    assert torch.equal(part, whole[:, :, :2, :3])
    with pytest.raises(
        ValueError, match=r"map_size=7 is too small for a map of 4 x 9; set it to 9"
    ):
        conv.output(torch.ones(1, 6, 4, 9), x)
    with pytest.raises(ValueError, match=r"quantizer\.map_size=0"):
        load_quantizer("xnorpp", map_size=0).conv2d(1, 1, 1)


def test_maps_are_as_large_as_the_images_of_the_run(compose):
    """Without a run, 64 pixels."""
    assert compose("quantizer=xnorpp", "dataset=cifar10").quantizer.map_size == 32
    assert load_quantizer("xnorpp").conv2d(1, 1, 1).output.columns.shape == (64,)


def test_latent_weights_are_clipped_after_the_step(weight):
    side = load_quantizer("xnorpp").weight((6, 4, 3, 3))
    expected = weight.clamp(-1, 1)
    side.after_step(weight)
    assert torch.equal(weight, expected)
