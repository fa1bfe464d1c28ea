"""DoReFa's quantized gradients (Eq. 12): the grid, the mean, and what stays as it is."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bnnbench.config import load_quantizer
from bnnbench.quantizers.dorefa import quantize_gradient


@pytest.mark.parametrize("bits", [1, 2, 6])
def test_equation_12(bits, x):
    g = x.numpy()
    u = np.random.default_rng(0).uniform(-0.5, 0.5, g.shape)
    found = quantize_gradient(x, bits, torch.tensor(u))
    levels = 2**bits - 1
    m = np.abs(g).reshape(len(g), -1).max(axis=1).reshape(-1, 1, 1, 1)
    unit = np.clip(g / (2 * m) + 0.5 + u / levels, 0, 1)
    assert_allclose(found, 2 * m * (np.round(unit * levels) / levels - 0.5), rtol=1e-9, atol=1e-12)
    codes = (found.numpy() / (2 * m) + 0.5) * levels
    assert_allclose(codes, codes.round(), atol=1e-9)


def test_noise_makes_it_right_on_average():
    g = torch.tensor([[0.3, -0.1, 0.05, -0.5]], dtype=torch.float64).repeat(20000, 1)
    torch.manual_seed(0)
    mean = quantize_gradient(g, 3, torch.rand_like(g) - 0.5).mean(dim=0)
    assert_allclose(mean, g[0], atol=3e-3)


def test_each_sample_has_its_own_largest_gradient():
    g = torch.tensor([[1.0, -1.0], [1e-3, -1e-3]])
    assert torch.equal(quantize_gradient(g, 4, torch.zeros_like(g)), g)
    assert quantize_gradient(torch.zeros(2, 3), 4, torch.zeros(2, 3)).abs().max() < 1e-30


def test_a_convolutions_output_gets_it_and_its_value_stays(x, upstream):
    plain = load_quantizer("dorefa").conv2d(4, 2, 3, bias=False).double()
    layer = load_quantizer("dorefa", gradient_bits=2).conv2d(4, 2, 3, bias=False).double()
    layer.load_state_dict(plain.state_dict())
    out = layer(x)
    assert torch.equal(out, plain(x))
    g = upstream(out)
    before = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    layer.output(before, x).backward(g)
    assert before.grad is not None
    for sample, grad in zip(before.grad, g, strict=True):
        assert len((sample / grad.abs().max()).mul(3).round(decimals=9).unique()) <= 4


def test_a_linear_layers_output_gets_it_too():
    layer = load_quantizer("dorefa", gradient_bits=1).linear(3, 4, bias=False)
    torch.manual_seed(0)
    x = torch.rand(5, 3, requires_grad=True)
    plain = load_quantizer("dorefa").linear(3, 4, bias=False)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))
    g = torch.randn(5, 4)
    layer.activation_quantizer = torch.nn.Identity()
    layer.weight_quantizer = torch.nn.Identity()
    layer.weight.data = torch.eye(4, 3)  # so that what comes back is the output's own gradient
    (seen,) = torch.autograd.grad(layer(x), x, g)
    largest = g.abs().amax(dim=1, keepdim=True)
    assert torch.equal(seen.abs(), largest.expand(5, 3))  # one bit: plus or minus the largest


@pytest.mark.parametrize("bits", [0, 17, 33])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=f"gradient_bits={bits}: choose"):
        load_quantizer("dorefa", gradient_bits=bits).conv2d(2, 2, 3)


def test_bits_of_gradients_are_known_where_there_are_few():
    assert load_quantizer("dorefa", gradient_bits=6).bits == {"w": 1, "a": 1, "g": 6}
    assert load_quantizer("dorefa").bits == {"w": 1, "a": 1}


def test_rounding_is_right_on_average_in_half_precision_as_well():
    torch.manual_seed(0)
    x = torch.zeros(64, 1000, dtype=torch.bfloat16, requires_grad=True)
    layer = load_quantizer("dorefa", gradient_bits=8).conv2d(2, 2, 3)
    g = torch.zeros_like(x)
    g[:, 0] = 1  # the largest of each sample; all others are 0
    layer.output(x, x).backward(g)
    assert x.grad is not None
    assert abs(float(x.grad[:, 1:].float().mean())) < 1e-4
