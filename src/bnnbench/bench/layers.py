"""Packed layers by shape, against torch's best float and int8.

A packed layer is charged for the codes of its input, the convolution and its float output; int8 and
float find their activations quantized.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.bench.timing import Call, interleaved, quartiles
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.epilogue import Activation, Binarizer, Epilogue

# Batch, channels (in and out) and pixels on a side of 3x3 convolutions, stride 1, padding 1.
SETS = {
    "ResNet-18, 224 pixels, batch 1": ((1, 64, 56), (1, 128, 28), (1, 256, 14), (1, 512, 7)),
    "CIFAR, batch 64": ((64, 16, 32), (64, 32, 16), (64, 64, 8)),
}
FLOATS = ("float eager", "float prepacked")
BLOCK = "1 bit, a block"
ONES = [1, 1]  # stride, padding and dilation


@dataclass
class Layer:
    """One shape: how it is called by everybody, and its multiply-accumulates."""

    name: str
    calls: dict[str, Call]
    work: float


def measure(
    threads: Sequence[int], seconds: float, limit: float, sets: Any = None
) -> Iterator[dict[str, Any]]:
    """A table a set and number of threads; ``limit`` is of one core, in GMAC/s, or 0."""
    for title, shapes in (sets or SETS).items():
        layers = [layer(*shape) for shape in shapes]
        for count in threads:
            found = rows(layers, count, seconds, limit)
            yield {"set": title, "threads": count, "rows": found}


def layer(batch: int, channels: int, pixels: int) -> Layer:
    """All contenders on one shape, once all of them have given the same sums."""
    torch.manual_seed(0)
    x = torch.randn(batch, channels, pixels, pixels).contiguous(memory_format=torch.channels_last)
    weight = torch.where(torch.randn(channels, channels, 3, 3) >= 0, 1.0, -1.0)
    calls = {**float_calls(x, weight), **int8_call(x, weight), **packed_calls(x, weight)}
    expected = calls[FLOATS[0]]()
    for name, call in calls.items():
        if name != BLOCK and not torch.equal(call().float(), expected):
            raise RuntimeError(f"{name} computes other sums than torch on {channels} x {pixels}²")
    work = batch * pixels**2 * channels**2 * 9
    return Layer(f"{channels} x {pixels}²", calls, work)


def float_calls(x: Tensor, weight: Tensor) -> dict[str, Call]:
    """torch's convolution of the codes, and oneDNN's with the weight in the order it likes."""
    codes, mkldnn = torch.where(x >= 0, 1.0, -1.0), torch.ops.mkldnn
    ours = weight.contiguous(memory_format=torch.channels_last)
    packed = mkldnn._reorder_convolution_weight(weight, ONES, ONES, ONES, 1, list(x.shape))
    after = ("none", [], "")
    return {
        FLOATS[0]: lambda: F.conv2d(codes, ours, None, 1, 1),
        FLOATS[1]: lambda: mkldnn._convolution_pointwise(
            codes, packed, None, ONES, ONES, ONES, 1, *after
        ),
    }


def int8_call(x: Tensor, weight: Tensor) -> dict[str, Call]:
    """oneDNN's int8 convolution with float outputs: activations are 0 and 2 around 1."""
    codes, onednn = ((x >= 0) * 2).to(torch.uint8), torch.ops.onednn
    scales, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = onednn.qconv_prepack(
        weight.to(torch.int8), scales, 1.0, 1, ONES, ONES, ONES, 1, list(x.shape)
    )
    after = (1.0, 0, torch.float32, "none", [], "")
    return {
        "int8": lambda: onednn.qconv_pointwise(
            codes, 1.0, 1, packed, scales, zeros, None, ONES, ONES, ONES, 1, *after
        )
    }


def packed_calls(x: Tensor, weight: Tensor) -> dict[str, Call]:
    """The packed layer alone, from codes, and as a block that makes the next one's codes."""
    count = len(weight)
    first, second = (
        PackedConv2d(pack_bits(weight), weight.shape, activation=Binarizer(), padding=1)
        for _ in range(2)
    )
    codes, after = first.encode(x), Activation(1.0, torch.rand(count))
    epilogue = Epilogue(torch.rand(count), torch.rand(count), None, after)
    return {
        "1 bit": lambda: first(x),
        "1 bit, from codes": lambda: first(codes),
        BLOCK: lambda: first.fused(codes, epilogue=epilogue, add=x, next=(second,))[0],
    }


def rows(
    layers: Sequence[Layer], threads: int, seconds: float, limit: float
) -> list[dict[str, Any]]:
    """A row for each layer, and one for their sum."""
    calls = {(i, name): call for i, one in enumerate(layers) for name, call in one.calls.items()}
    flat = interleaved(calls, threads, seconds)
    times = [{name: flat[i, name] for name in one.calls} for i, one in enumerate(layers)]
    most = threads * limit
    found = [summary(one.name, one.work, t, most) for one, t in zip(layers, times, strict=True)]
    for one, row in zip(times, found, strict=True):  # the sum takes the best float of each layer
        one.update(dict.fromkeys(FLOATS, one[row["best float"]]))
    total = {name: np.sum([t[name] for t in times], axis=0) for name in times[0]}
    return [*found, summary("sum", sum(one.work for one in layers), total, most)]


def summary(name: str, work: float, times: dict[str, np.ndarray], limit: float) -> dict[str, Any]:
    """One row: microseconds, ratios to the packed layer, and its share of the core's limit."""
    best = min(FLOATS, key=lambda f: float(np.median(times[f])))
    ours, rate = times["1 bit"], work / times["1 bit, from codes"] / 1e6  # of milliseconds
    return {
        "layer": name,
        "microseconds": {call: quartiles(1e3 * ms) for call, ms in times.items()},
        "best float": best,
        "x float": quartiles(times[best] / ours),
        "x int8": quartiles(times["int8"] / ours),
        "GMAC/s from codes": quartiles(rate),
        "of the limit": quartiles(rate / limit) if limit else None,
    }
