"""Packed linear layers against torch's own product of the values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bnnbench.runtime.convolution import pack_bits
from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.linear import PackedLinear


@pytest.mark.parametrize(("out", "width"), [(10, 512), (3, 100), (130, 4), (64, 8192)])
def test_it_is_the_product_of_the_values(path: str, out: int, width: int, place) -> None:
    weight, scale, offset = torch.randn(out, width), torch.rand(out), torch.randn(out)
    bias = torch.randn(out)
    layer = PackedLinear(
        pack_bits(weight),
        weight.shape,
        activation=Binarizer(0.1, None, 0.5, 0.5),
        scale=scale,
        offset=offset,
        bias=bias,
    )
    place(path, layer.convolution)
    x = torch.randn(2, 3, width)
    values = torch.where(weight >= 0, 1.0, -1.0).double() * scale[:, None] + offset[:, None]
    expected = F.linear((x >= 0.1).double(), values, bias.double())
    y = layer(x)
    assert y.shape == (2, 3, out)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-3)


def test_the_path_says_why() -> None:
    layer = PackedLinear(pack_bits(torch.ones(2, 6)), (2, 6), activation=Binarizer())
    assert layer.path == "float: 6 input channels, which is no multiple of 4"
