"""Full precision: both sides are the identity and have no binary code."""

import pytest
import torch
import torch.nn.functional as F

from bnnbench.config import load_quantizer


def test_both_sides_are_the_identity(weight, x, gradient, upstream):
    spec = load_quantizer("fp32")
    for side, value in ((spec.weight((6, 4, 3, 3)), weight), (spec.activation(4), x)):
        g = upstream(value)
        out, grad = gradient(side, value, g)
        assert torch.equal(out, value)
        assert torch.equal(grad, g)
        assert list(side.state_dict()) == []


def test_its_layers_are_the_ordinary_ones(weight, x):
    spec = load_quantizer("fp32")
    conv = spec.conv2d(4, 6, 3, padding=1, bias=False).double()
    conv.weight.data = weight
    assert torch.equal(conv(x), F.conv2d(x, weight, padding=1))


def test_there_is_no_binary_code(x):
    with pytest.raises(NotImplementedError, match="32 bits"):
        load_quantizer("fp32").activation(4).decompose(x)
