"""The float convolution in front of a packed network against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.runtime.epilogue import Activation
from bnnbench.runtime.stem import Stem

SHAPES = [
    ((64, 3, 7, 7), (40, 37), {"stride": 2, "padding": 3, "pool": (3, 2, 1)}),
    ((16, 3, 3, 3), (11, 8), {"padding": 1}),
    ((12, 1, 5, 3), (9, 15), {"stride": (2, 1), "padding": (0, 2), "pool": (2, 2, 0)}),
    ((72, 8, 1, 1), (6, 6), {}),
    ((8, 3, 3, 3), (9, 9), {"padding": 1, "pool": (3, 1, 1)}),
    ((8, 3, 3, 3), (4, 4), {}),  # rows too short for a tile
    ((8, 9, 3, 3), (9, 9), {}),  # too many channels
]


@pytest.mark.parametrize(("shape", "size", "options"), SHAPES)
def test_it_is_torchs_convolution_activation_and_pool(
    path: str, shape, size, options, layer_of, place
) -> None:
    torch.manual_seed(0)
    weight, bias, prelu = torch.randn(shape) / 10, torch.randn(shape[0]), nn.PReLU(shape[0])
    nn.init.normal_(prelu.weight)
    stem = Stem(weight, bias, activation=Activation(1.0, prelu.weight), **options)
    readers = layer_of(path, 8, shape[0], padding=1), layer_of(path, 4, shape[0], 1)
    x = torch.randn(3, shape[1], *size)
    pool, options = options.get("pool"), {k: v for k, v in options.items() if k != "pool"}
    with torch.no_grad():
        expected = prelu(F.conv2d(x, weight, bias, **options))
        expected = F.max_pool2d(expected, *pool) if pool else expected
    place(path, stem)
    y, codes = stem.fused(x, next=readers)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert y.is_contiguous(memory_format=torch.channels_last)
    for reader, made in zip(readers, codes, strict=True):
        assert torch.equal(reader(made), reader(y))
    strided = torch.empty(3, *size, 2 * shape[1])[..., ::2].permute(0, 3, 1, 2).copy_(x)
    torch.testing.assert_close(stem(strided), y)


def test_threads_give_equal_bits(kernel_path: str, layer_of, place) -> None:
    stem = place(kernel_path, Stem(torch.randn(64, 3, 7, 7), stride=2, padding=3, pool=(3, 2, 1)))
    reader, x = layer_of(kernel_path, 8, 64, padding=1), torch.randn(2, 3, 50, 41)
    found: list[tuple[Tensor, Tensor]] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            y, (codes,) = stem.fused(x, next=(reader,))
            found.append((y, reader(codes)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))


def test_what_is_no_number_stays_none(path: str, place) -> None:
    stem = place(path, Stem(torch.randn(8, 3, 3, 3), padding=1, pool=(3, 2, 1)))
    x = torch.randn(1, 3, 12, 12)
    x[0, 1, 5, 6] = torch.nan
    pooled = F.max_pool2d(F.conv2d(x, stem.weight, padding=1), 3, 2, 1)
    assert torch.equal(stem(x).isnan(), pooled.isnan())


def test_the_path_says_why(place) -> None:
    assert Stem(torch.randn(8, 9, 3, 3)).path == "float: 9 input channels, more than 8"
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        place("float", Stem(torch.randn(8, 3, 3, 3)))(torch.zeros(1, 4, 9, 9))
    with pytest.raises(ValueError, match="at most half of the window"):
        Stem(torch.randn(8, 3, 3, 3), pool=(2, 2, 2))
