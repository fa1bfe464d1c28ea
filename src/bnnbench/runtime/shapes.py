"""Shapes and options of layers, checked before anything reads memory by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def checked(x: Tensor, shape: Sequence[int], channels: int, device: torch.device) -> Tensor:
    """``x`` as float32 in channels-last order, once it has that shape and these channels."""
    is_as_wanted = x.shape == shape and shape[1] == channels and x.device == device
    order = torch.channels_last
    if is_as_wanted and x.dtype == torch.float32 and x.is_contiguous(memory_format=order):
        return x  # the calls below take longer
    if tuple(x.shape) != tuple(shape) or x.shape[1] != channels:
        expected = tuple(shape) or f"(N, {channels}, H, W)"
        raise ValueError(
            f"a map of shape {tuple(x.shape)}: expected {channels} channels, {expected}"
        )
    if x.device != device:
        raise ValueError(f"a map on {x.device}, but the layer is on {device}: move one of them")
    return x.to(torch.float32).contiguous(memory_format=order)


def is_traced() -> bool:
    """Whether torch writes down what is computed: it sees operators, not calls of the kernel."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """A number for both axes, or one for each."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def outputs_along(
    length: int, sides: tuple[int, int], size: int, stride: int, dilation: int
) -> int:
    """Outputs of a window of ``size`` along one axis of a map of ``length`` pixels.

    Raises ValueError for a map that is smaller than the window.
    """
    reach = dilation * (size - 1) + 1
    count = (length + sum(sides) - reach) // stride + 1
    if count < 1:
        raise ValueError(f"a map of {length} pixels is smaller than the window of {reach}")
    return count


def check_shape(bits: Tensor, shape: Sequence[int], groups: int) -> tuple[int, int, int, int]:
    """The weight's shape, once bits and groups fit it."""
    out, width, kh, kw = (int(n) for n in shape)
    if min(out, width, kh, kw, groups) < 1 or out % groups:
        raise ValueError(f"no convolution of shape {tuple(shape)} in {groups} groups")
    expected = (out, -(-width * kh * kw // 8))
    if bits.dtype != torch.uint8 or tuple(bits.shape) != expected:
        found = f"{bits.dtype} {tuple(bits.shape)}"
        raise ValueError(f"bits of a weight {tuple(shape)}: expected uint8 {expected}, got {found}")
    return out, width, kh, kw


def resolved_padding(
    padding: int | Sequence[int] | str, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels before and behind on each axis, of numbers or of the words of ``nn.Conv2d``."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":  # the odd pixel stands behind, as torch has it
        high, wide = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return (high // 2, high - high // 2), (wide // 2, wide - wide // 2)
    if isinstance(padding, str):
        raise ValueError(f"padding='{padding}': choose pixels, 'same' or 'valid'")
    if not isinstance(padding, int) and len(padding) == 4:
        top, bottom, left, right = padding
        return (top, bottom), (left, right)
    high, wide = pair(padding)
    return (high, high), (wide, wide)
