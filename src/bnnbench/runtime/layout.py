"""Layers in the kernel's own layout: codes, weights, and one structure for maps of one size."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runtime.epilogue import Activation, Epilogue, channels
from bnnbench.runtime.kernel import CActivation, CEncoder, CLayer, Kernel, pointer

if TYPE_CHECKING:
    from bnnbench.runtime.convolution import PackedConv2d
    from bnnbench.runtime.sign_convolution import Folded

MOST_PRODUCTS = 2**16 - 1  # of one sum, which the kernel counts in 16 bits
MOST_BYTES = 2**31 - 1  # of the codes of one map, which it addresses with 32
# The rows of which half differ, which codes outside the map name, by the channels of such a code.
HALVES = {4: {4: 17}, 6: {2: 64, 4: 65, 6: 67}}


def obstacle(layer: PackedConv2d) -> str | None:
    """Why the kernel cannot compute ``layer``, or None."""
    _, width, kh, kw = layer.shape
    if width % 4:
        of = f" of each of {layer.groups} groups" if layer.groups > 1 else ""
        return f"{width} input channels{of}, which is no multiple of 4"
    if (count := width * kh * kw) > MOST_PRODUCTS:
        return f"sums of {count} products, more than {MOST_PRODUCTS}"
    if layer.bits.device.type != "cpu":
        return f"on {layer.bits.device}"
    return None


def code_values(high: Tensor, per_code: int) -> Tensor:
    """Signs (..., channels) as weight codes (..., codes), the first channel in the lowest bit."""
    bits = F.pad(high.to(torch.uint8), (0, -high.shape[-1] % per_code))
    powers = 2 ** torch.arange(per_code, dtype=torch.uint8)
    return (bits.unflatten(-1, (-1, per_code)) * powers).sum(-1, dtype=torch.uint8)


def map_codes(high: Tensor, kernel: Kernel) -> Tensor:
    """The same as codes of a map, which say where the row of a table lies."""
    return code_values(high, kernel.channels) * kernel.factor


@dataclass(frozen=True)
class Encoding:
    """How maps become codes of a layer: the structure, its address, and what it points at."""

    structure: CEncoder
    address: int
    kept: tuple[Tensor, ...]
    bytes: int  # of one pixel
    border: tuple[int, int]  # rows and columns that both borders add

    def room(self, shape: Sequence[int]) -> Tensor:
        """Room for the codes of maps (N, C, H, W)."""
        n, _, h, w = shape
        size = (h + self.border[0]) * (w + self.border[1]) * self.bytes
        if size > MOST_BYTES:
            raise ValueError(f"a map of {h} x {w} pixels: its codes take more than 2 GiB")
        return torch.empty(n * size + 8, dtype=torch.uint8)


def encoding(layer: PackedConv2d, kernel: Kernel) -> Encoding:
    """The encoder of ``layer``'s input."""
    groups, (ph, pw), per_code = layer.groups, layer.padding, kernel.channels
    width = layer.shape[1]
    codes = -(-width // per_code)
    threshold = channels(layer.activation.threshold, layer.in_channels, 0.0)
    flip = layer.activation.flip
    turned = torch.zeros(layer.in_channels, dtype=torch.bool)
    if flip is not None:
        turned |= flip
    flips = F.pad(map_codes(turned.view(groups, width), kernel), (0, -codes % 8))
    if layer.pads_with_codes:
        high = torch.full((groups, width), layer.padding_value > 0)
        border = map_codes(high, kernel)
    else:
        held = [min(per_code, width - first) for first in range(0, width, per_code)]
        border = torch.tensor([HALVES[per_code][n] for n in held], dtype=torch.uint8)
        border = (border * kernel.factor).expand(groups, codes)
    kept = threshold, flips.contiguous(), border.contiguous()
    structure = CEncoder(*map(pointer, kept), width, codes, groups, ph, pw)
    return Encoding(structure, ctypes.addressof(structure), kept, groups * codes, (2 * ph, 2 * pw))


def weight_codes(layer: PackedConv2d, kernel: Kernel) -> Tensor:
    """The weight as (groups, blocks, codes of the window, vectors of the block, lanes), flat.

    Blocks are of two vectors of outputs, and one of one vector where the number is odd. The counts
    of even lanes are widened first, so that output ``i`` of a vector lies in lane ``2 i``.
    """
    each, lanes = layer.shape[0] // layer.groups, kernel.vector
    high = (layer.signs > 0).permute(0, 2, 3, 1)
    codes = code_values(high, kernel.channels).reshape(layer.groups, each, -1)
    vectors = -(-each // lanes)
    codes = F.pad(codes, (0, 0, 0, vectors * lanes - each))
    codes = codes.view(layer.groups, vectors, 2, lanes // 2, -1).permute(0, 1, 4, 3, 2)
    codes = codes.reshape(layer.groups, vectors, -1, lanes)  # (groups, vectors, codes, lanes)
    pairs = vectors // 2 * 2
    paired = codes[:, :pairs].unflatten(1, (-1, 2)).transpose(2, 3).reshape(layer.groups, -1)
    return torch.cat([paired, codes[:, pairs:].reshape(layer.groups, -1)], 1).flatten()


@dataclass(frozen=True)
class Plan:
    """A layer with its epilogue on maps of one size: the structure, and what it points at."""

    structure: CLayer
    address: int
    kept: tuple[object, ...]
    outputs: tuple[int, int, int]  # (O, H', W')
    next: list[tuple[PackedConv2d, Encoding]] | None  # None: not in the same call
    chunk: int  # floats that a thread needs where the output is not kept


def plan(
    layer: PackedConv2d,
    kernel: Kernel,
    epilogue: Epilogue | None,
    size: Sequence[int],
    next: Sequence[PackedConv2d] | None,
) -> Plan:
    """What the kernel needs to know of ``layer`` on maps of ``size`` (H, W)."""
    out, (groups, each) = layer.shape[0], (layer.groups, layer.shape[0] // layer.groups)
    padded = -(-each // kernel.vector) * kernel.vector

    def laid(values: Tensor) -> Tensor:
        """(..., O) float32 with each group's outputs padded."""
        return F.pad(values.unflatten(-1, (groups, each)), (0, padded - each)).contiguous()

    folded: Folded = layer.folded(epilogue, size)
    encoder = layer.encoding(kernel)
    segments, length = runs(layer, encoder, size)
    window = None if folded.window is None else laid(folded.window)
    weights = layer.derived(("weights", kernel.name), lambda: weight_codes(layer, kernel))
    kept = (weights, segments, laid(folded.scale), window, laid(folded.rows), *folded.kinds)
    c = CLayer(*map(pointer, kept))
    acts = [activation(part, out, laid) for part in (getattr(epilogue, n, None) for n in PARTS)]
    c.before, c.after = (structure for structure, _ in acts)
    read = None if next is None else [(layer, layer.encoding(kernel)) for layer in next]
    for i, (_, encoded) in enumerate(read or ()):
        c.next[i] = ctypes.pointer(encoded.structure)
    c.segments, c.length, c.codes, c.groups = len(segments), length, encoder.structure.codes, groups
    c.height, c.width = (n + 2 * p for n, p in zip(size, layer.padding, strict=True))
    (c.sh, c.sw), (c.oh, c.ow) = layer.stride, (layer.output_size(a, size[a]) for a in (0, 1))
    c.out, c.padded, c.bits = each, padded, layer.shape[1] * layer.shape[2] * layer.shape[3]
    c.column_kinds = folded.rows.shape[1]
    address = ctypes.addressof(c)
    chunk = kernel.chunk_pixels(address) * out
    return Plan(c, address, (*kept, acts, epilogue), (out, c.oh, c.ow), read, chunk)


PARTS = ("before", "after")  # activations of an epilogue


def activation(part: Activation | None, out: int, laid) -> tuple[CActivation, object]:
    """The structure of an activation, which is empty without one, and what it points at."""
    if part is None:
        return CActivation(), None
    kept = [laid(values) for values in part.tensors(out)]
    return CActivation(*map(pointer, kept), part.low, part.high), kept


def runs(layer: PackedConv2d, encoder: Encoding, size: Sequence[int]) -> tuple[Tensor, int]:
    """Where the window's runs of neighbouring codes start, from its corner, and their length."""
    (kh, kw), (dh, dw), pixel = layer.shape[2:], layer.dilation, encoder.bytes
    width = size[1] + 2 * layer.padding[1]
    above, beside = (p - sides[0] for p, sides in zip(layer.padding, layer.sides, strict=True))
    rows = (torch.arange(kh, dtype=torch.int32) * dh + above) * width * pixel + beside * pixel
    if layer.groups == 1 and dw == 1:
        return rows, kw * pixel
    columns = torch.arange(kw, dtype=torch.int32) * dw * pixel
    return (rows[:, None] + columns).flatten(), encoder.structure.codes
