"""What a kernel computes, compared with the float path bit by bit, before it is used."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.derived import Derived
from bnnbench.runtime.epilogue import Activation, Binarizer, Epilogue
from bnnbench.runtime.kernel import Kernel
from bnnbench.runtime.mean import WindowMean
from bnnbench.runtime.stem import Stem


class Case(NamedTuple):
    """One layer: the shape of its weight, of its input map, and its options."""

    weight: tuple[int, int, int, int]
    size: tuple[int, int]
    options: dict[str, Any] = {}
    offsets: bool = False  # of weights and activations, as AdaBin has them
    fused: bool = False  # shortcut, both activations and the next layer's codes


CASES = (
    Case((64, 64, 3, 3), (6, 5), {"padding": 1}, fused=True),
    Case((150, 20, 3, 3), (7, 7), {"padding": 1, "stride": 2}, offsets=True, fused=True),
    Case((16, 16, 3, 3), (6, 6), {"padding": 1}, offsets=True),
    Case((128, 36, 3, 3), (5, 6), {"padding": 1, "groups": 2}, offsets=True),  # no lane is spare
    Case((24, 8, 3, 3), (7, 6), {"padding": 2, "dilation": 2, "groups": 3}, True, True),
    Case((10, 100, 1, 1), (1, 1)),
    Case((32, 52, 3, 3), (5, 5), {"padding": 1, "padding_value": -1.0}, fused=True),
    Case((8, 12, 5, 3), (8, 9), {"padding": (2, 1), "padding_value": 1.0}, offsets=True),
    Case((16, 16, 2, 4), (6, 7), {"padding": (0, 1, 2, 1)}, offsets=True),
    Case((4, 300, 5, 5), (5, 5), {"padding": 2}),
    Case((600, 8, 3, 3), (13, 12), {"padding": 1, "stride": 2}, offsets=True),  # several chunks
)
# Weight and options of float convolutions.
STEMS = (
    ((72, 3, 7, 7), {"stride": 2, "padding": 3}),
    ((16, 3, 3, 3), {"padding": 1, "pool": (3, 2, 1)}),
    ((20, 1, 5, 3), {"stride": (1, 2), "padding": (2, 1), "pool": (2, 1, 0)}),
)
# Channels, height, width, stride, padding and dilation of windows of mean magnitudes.
MEANS = ((16, 3, 3, 1, 1, 1), (72, 3, 5, 2, 2, 2), (100, 1, 1, 2, 0, 1))


def differences(kernel: Kernel) -> str:
    """What ``kernel`` computes otherwise than the float path; empty if nothing."""
    random = torch.Generator().manual_seed(0)
    wrong = [f"layer {i}" for i, case in enumerate(CASES) if not is_equal(kernel, case, random)]
    stems = [
        f"stem {i}" for i, case in enumerate(STEMS) if not stem_is_equal(kernel, *case, random)
    ]
    means = [f"mean {i}" for i, case in enumerate(MEANS) if not mean_is_equal(kernel, case, random)]
    return ", ".join(wrong + stems + means)


def mean_is_equal(kernel: Kernel, case: tuple[int, ...], random: torch.Generator) -> bool:
    """Whether mean magnitudes are torch's, bit by bit."""
    channels, kh, kw, stride, padding, dilation = case
    mean = on(kernel, WindowMean((kh, kw), 1 / (kh * kw), stride, padding, dilation))
    x = torch.randn(2, channels, 9, 7, generator=random)
    return torch.equal(mean(x), mean.in_torch(x))


def stem_is_equal(
    kernel: Kernel, shape: tuple[int, ...], options: dict[str, Any], random: torch.Generator
) -> bool:
    """Whether the float convolution is torch's, on whole numbers, whose sums are exact."""
    weight = torch.randint(-9, 10, shape, generator=random).float()
    bias = torch.randint(-9, 10, shape[:1], generator=random).float()
    stem = on(kernel, Stem(weight, bias, activation=activation(random, shape[0]), **options))
    reader = built(Case((4, shape[0], 3, 3), (1, 1), {"padding": 1}), random)
    x = torch.randint(-9, 10, (2, shape[1], 13, 12), generator=random).float()
    y, (codes,) = stem.fused(x, next=[on(kernel, reader)])
    return torch.equal(y, stem.in_torch(x)) and torch.equal(reader(codes), reader(y))


def is_equal(kernel: Kernel, case: Case, random: torch.Generator) -> bool:
    """Whether both paths give equal bits for ``case``."""
    layer = built(case, random)
    out, inputs = case.weight[0], (2, layer.in_channels, *case.size)
    x = torch.randn(inputs, generator=random).round(decimals=1)  # some values are the threshold
    if not case.fused:
        return torch.equal(*(on(engine, layer)(x) for engine in (None, kernel)))
    after = Case((8, out, 1, 1), (1, 1), {"padding": 1})
    readers = built(after, random), built(Case((4, out, 3, 3), (1, 1)), random)
    readers = readers if out % 4 == 0 else ()
    (scale, shift), parts = draw(random, 2, out), [activation(random, out) for _ in range(2)]
    epilogue = Epilogue(scale, shift, *parts)
    shape = (2, out, *(layer.output_size(axis, case.size[axis]) for axis in (0, 1)))
    add = torch.randn(shape, generator=random)
    options = {"epilogue": epilogue, "add": add, "factor": add[:, :1] + 1}
    found = []
    for engine in (None, kernel):
        next = [on(engine, reader) for reader in readers]
        y, codes = on(engine, layer).fused(x, next=next, **options)
        _, alone = layer.fused(x, next=next, keep=False, **options)
        read = [
            r.fused(c)[0] for r, c in zip(next * 2, [*codes, *alone], strict=True) if fits(r, y)
        ]
        found.append([y, *read])
    return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def fits(reader: PackedConv2d, y: Tensor | None) -> bool:
    """Whether the window of ``reader`` fits into ``y``."""
    return y is not None and min(y.shape[2:]) + 2 * reader.padding[0] >= reader.shape[2]


Layer = TypeVar("Layer", bound=Derived)


def on(engine: Kernel | None, layer: Layer) -> Layer:
    """``layer`` on a path, whatever it would choose."""
    layer._derived.clear()
    layer._derived["engine"] = (engine, "self-test")
    return layer


def built(case: Case, random: torch.Generator) -> PackedConv2d:
    """The layer of ``case``, with random bits, thresholds and scales."""
    out, width, *_ = case.weight
    inputs = width * case.options.get("groups", 1)
    threshold = torch.randn(inputs, generator=random).round(decimals=1)
    flip = torch.rand(inputs, generator=random) < 0.5
    values = (0.7, 0.3) if case.offsets else (1.0, 0.0)
    scale, offset, bias = draw(random, 3, out)
    return PackedConv2d(
        pack_bits(torch.randn(case.weight, generator=random)),
        case.weight,
        activation=Binarizer(threshold, flip, *values),
        scale=scale,
        offset=offset if case.offsets else None,
        bias=bias,
        **case.options,
    )


def draw(random: torch.Generator, count: int, channels: int) -> Tensor:
    """(count, channels) random numbers."""
    return torch.randn(count, channels, generator=random)


def activation(random: torch.Generator, channels: int) -> Activation:
    """A clamped activation of random slopes and shifts."""
    return Activation(*draw(random, 3, channels), low=-2.0, high=3.0)
