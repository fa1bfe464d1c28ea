"""Packed convolutions against torch's own convolution of the values, on every path of this CPU."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.epilogue import Activation, Binarizer, Epilogue

DRAWN = 60


def test_sums_are_those_of_the_float_convolution(path: str, drawn) -> None:
    for one in drawn(DRAWN, offsets=False):
        y = one.packed(path)(one.x)
        assert torch.equal(y.double(), one.expected()), one


def test_offsets_and_borders_are_those_of_the_values(path: str, drawn) -> None:
    for one in drawn(DRAWN, offsets=True):
        y, expected = one.packed(path)(one.x).double(), one.expected()
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4, msg=str(one))


def test_both_paths_give_equal_bits(kernel_path: str, drawn) -> None:
    for one in drawn(DRAWN, offsets=True):
        assert torch.equal(one.packed(kernel_path)(one.x), one.packed("float")(one.x)), one


def test_a_sum_longer_than_a_counter_is_exact(path: str, layer_of, place) -> None:
    layer, x = layer_of(path, 8, 512, 7, padding=3), torch.ones(1, 512, 7, 7)
    layer.bits.fill_(0)  # every weight -1: all products of the whole window differ
    layer._derived.clear()
    y = place(path, layer)(x)
    assert y[0, :, 3, 3].tolist() == [-512.0 * 49] * 8


def block(seed: int, out: int) -> tuple[Epilogue, list]:
    """An epilogue with everything in it, and what torch calls the same."""
    torch.manual_seed(seed)
    bn, prelu = nn.BatchNorm2d(out).eval(), nn.PReLU(out)
    for values in (bn.weight, bn.bias, bn.running_mean, prelu.weight):
        nn.init.normal_(values)
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    shift = bn.bias - scale * bn.running_mean
    before = Activation(1.0, prelu.weight, torch.full((out,), 0.25))
    after = Activation(1.0, 1.0, None, -1.0, 1.0)
    return Epilogue(scale, shift, before, after), [bn, prelu]


def test_a_block_in_one_call_is_its_parts(path: str, layer_of) -> None:
    first = layer_of(path, 24, 16, stride=2, padding=1, scale=0.1)
    read = layer_of(path, 5, 24, padding=2, padding_value=1.0), layer_of(path, 8, 24, 1)
    epilogue, (bn, prelu) = block(0, 24)
    x, add = torch.randn(2, 16, 9, 11), torch.randn(2, 24, 5, 6)
    y, codes = first.fused(x, epilogue=epilogue, add=add, next=read)
    with torch.no_grad():
        expected = F.hardtanh(prelu(bn(first(x))) + 0.25 + add)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    for layer, made in zip(read, codes, strict=True):
        assert torch.equal(layer(made), layer(y))
    nothing, alone = first.fused(x, epilogue=epilogue, add=add, next=read, keep=False)
    assert nothing is None
    assert all(torch.equal(r(a), r(c)) for r, a, c in zip(read, alone, codes, strict=True))


def test_layers_of_two_paths_read_one_another(kernel_path: str, layer_of) -> None:
    first, odd = layer_of(kernel_path, 7, 16, padding=1), layer_of("float", 4, 7)
    y, (codes,) = first.fused(torch.randn(1, 16, 8, 8), next=(odd,))
    assert torch.equal(odd(codes), odd(y))
    even = layer_of(kernel_path, 4, 16)
    y, (codes,) = layer_of("float", 16, 7).fused(torch.randn(1, 7, 8, 8), next=(even,))
    assert torch.equal(even(codes), even(y))


def test_threads_give_equal_bits(kernel_path: str, layer_of) -> None:
    torch.manual_seed(0)
    first, second = (layer_of(kernel_path, 64, 64, padding=1, scale=0.1) for _ in range(2))
    epilogue, _ = block(1, 64)
    x, add = torch.randn(3, 64, 31, 29), torch.randn(3, 64, 31, 29)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y, codes = first.fused(x, epilogue=epilogue, add=add, next=(second,))
            _, alone = first.fused(x, epilogue=epilogue, add=add, next=(second,), keep=False)
            found.append((y, second(codes[0]), second(alone[0])))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("channels", [4, 8, 12, 16, 20])
def test_threads_write_no_codes_of_one_another(kernel_path: str, layer_of, channels: int) -> None:
    """A pixel's codes are fewer bytes than are written at once; each call is another race."""
    torch.manual_seed(0)
    first, second = (
        layer_of(kernel_path, channels, channels, padding=1, scale=0.1) for _ in range(2)
    )
    x = torch.randn(60, channels, 33, 29)

    def outputs(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        y, (codes,) = first.fused(x, next=(second,))
        return [y, second(codes)]

    before = torch.get_num_threads()
    try:
        alone = outputs(1)
        for threads in (2, 3, 7) * 4:
            assert all(torch.equal(a, b) for a, b in zip(alone, outputs(threads), strict=True))
    finally:
        torch.set_num_threads(before)


def test_any_memory_format_comes_in_and_channels_last_goes_out(path: str, layer_of) -> None:
    layer, x = layer_of(path, 6, 8, padding=1), torch.randn(2, 8, 5, 7)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    strided = torch.randn(2, 16, 5, 14)[:, ::2, :, ::2].copy_(x)
    for same in (x.to(memory_format=torch.channels_last), strided, x.double(), x.requires_grad_()):
        assert torch.equal(layer(same), y)


def test_no_image_gives_no_output(path: str, layer_of) -> None:
    layer = layer_of(path, 6, 8, padding=1)
    assert layer(torch.empty(0, 8, 5, 5)).shape == (0, 6, 5, 5)


def test_what_is_no_number_is_below_every_threshold(path: str, layer_of) -> None:
    layer, x = layer_of(path, 6, 8), torch.randn(1, 8, 3, 3)
    holes = x.clone()
    holes[0, 0] = torch.nan
    x[0, 0] = -1.0
    assert torch.equal(layer(holes), layer(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 7, 5, 5), "expected 8 channels"),
        (torch.zeros(8, 5, 5), r"expected 8 channels, \(N, 8, H, W\)"),
        (torch.zeros(1, 8, 2, 5), "smaller than the window of 3"),
        (torch.zeros(1, 8, 5, 5, device="meta"), "a map on meta, but the layer is on cpu"),
    ],
)
def test_maps_of_another_shape_are_refused(path: str, x: Tensor, message: str, layer_of) -> None:
    with pytest.raises(ValueError, match=message):
        layer_of(path, 6, 8)(x)


def test_shortcuts_codes_and_readers_of_another_shape_are_refused(path: str, layer_of) -> None:
    layer, x = layer_of(path, 6, 8, padding=1), torch.zeros(1, 8, 5, 5)
    with pytest.raises(ValueError, match="expected 6 channels"):
        layer.fused(x, add=torch.zeros(1, 6, 5, 4))
    with pytest.raises(ValueError, match="made for another layer"):
        layer(layer_of(path, 6, 8).encode(x))
    with pytest.raises(ValueError, match="channels"):
        layer.fused(x, next=(layer_of(path, 6, 8),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding_value": 0.5}, "choose -1, 0 or"),
        ({"groups": 4}, "in 4 groups"),
        ({"stride": 0}, "stride and dilation are at least 1"),
        ({"padding": -1}, "padding at least 0"),
        ({"padding": (0, 0, 1, -1)}, "padding at least 0"),
        ({"activation": Binarizer(0.0, torch.ones(3))}, "3 values for 8 channels"),
        ({"padding": "reflect"}, "'same' or 'valid'"),
        ({"scale": torch.ones(5)}, "5 values for 6 channels"),
        ({"activation": Binarizer(torch.zeros(3))}, "3 values for 8 channels"),
    ],
)
def test_layers_that_fit_nothing_are_refused(options: dict, message: str, layer_of) -> None:
    with pytest.raises(ValueError, match=message):
        layer_of("float", 6, 8, **options)


def test_bits_of_another_shape_are_refused() -> None:
    for bits in (torch.zeros(6, 8, dtype=torch.uint8), torch.zeros(6, 9)):
        with pytest.raises(ValueError, match="expected uint8"):
            PackedConv2d(bits, (6, 8, 3, 3), activation=Binarizer())


@pytest.mark.parametrize(("size", "dilation"), [(3, 2), (2, 1), (4, 1), (4, 3), (5, 1)])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_padding_in_words(path: str, size: int, dilation: int, value: float, layer_of) -> None:
    x, options = torch.randn(2, 8, 6, 9), {"dilation": dilation, "padding_value": value}
    layer = layer_of(path, 6, 8, size, padding="same", **options)
    sides = [side for axis in reversed(layer.sides) for side in axis]
    codes = F.pad(torch.where(x >= 0, 1.0, -1.0), sides, value=value)
    assert torch.equal(layer(x), F.conv2d(codes, layer.signs, dilation=dilation))
    if not value:
        codes = torch.where(x >= 0, 1.0, -1.0)
        assert torch.equal(layer(x), F.conv2d(codes, layer.signs, None, 1, "same", dilation))
    assert layer_of(path, 6, 8, size, padding="valid").sides == ((0, 0), (0, 0))


def test_the_path_says_why() -> None:
    bits = torch.zeros(6, 7, dtype=torch.uint8)
    assert "6 input channels" in PackedConv2d(bits, (6, 6, 3, 3), activation=Binarizer()).path
    wide = PackedConv2d(pack_bits(torch.ones(1, 65540)), (1, 65540, 1, 1), activation=Binarizer())
    assert wide.path == "float: sums of 65540 products, more than 65535"
    assert wide(torch.ones(1, 65540, 1, 1)).item() == 65540
    depthwise = PackedConv2d(
        pack_bits(torch.ones(8, 9)), (8, 1, 3, 3), activation=Binarizer(), groups=8
    )
    assert "1 input channels of each of 8 groups" in depthwise.path


def test_copies_and_new_weights(path: str, layer_of, place) -> None:
    layer, other = layer_of(path, 6, 8), layer_of(path, 6, 8)
    x = torch.randn(1, 8, 5, 5)
    y = layer(x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(place(path, copied)(x), y)
        assert copied.handle != layer.handle
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))


def test_a_map_too_large_for_the_kernel_is_refused(kernel_path: str, layer_of) -> None:
    layer = layer_of(kernel_path, 8, 64)
    kernel, _ = layer.engine
    with pytest.raises(ValueError, match="more than 2 GiB"):
        layer.encoding(kernel).room((1, 64, 20000, 20000))
