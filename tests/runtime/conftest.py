"""Paths of this CPU, and random 1-bit layers with what they compute, written down without them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runtime import build
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.kernel import Kernel
from bnnbench.runtime.selftest import on


@cache
def engine(path: str) -> Kernel | None:
    """The kernel of ``path``, None for the float path; the test is skipped where it cannot run."""
    if path == "float":
        return None
    try:
        return Kernel(build.library(path))
    except build.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(params=("float", *build.supported()))
def path(request: pytest.FixtureRequest) -> str:
    """Each path in turn, of this CPU."""
    engine(request.param)
    return request.param


@pytest.fixture(params=build.supported())
def kernel_path(request: pytest.FixtureRequest) -> str:
    """Each path of the kernel in turn, of this CPU."""
    engine(request.param)
    return request.param


@pytest.fixture
def layer_of() -> Callable[..., PackedConv2d]:
    """Makes a layer of random weights on a path."""

    def make(path: str, out: int, width: int, size: int = 3, **options) -> PackedConv2d:
        weight = torch.randn(out, width, size, size)
        options.setdefault("activation", Binarizer())
        return on(engine(path), PackedConv2d(pack_bits(weight), weight.shape, **options))

    return make


@pytest.fixture
def drawn() -> Callable[..., list[Drawn]]:
    """Makes random layers, with scales and offsets or without."""
    return lambda count, offsets: [Drawn(seed, offsets) for seed in range(count)]


@pytest.fixture
def place() -> Callable[[str, PackedConv2d], PackedConv2d]:
    """Puts a layer on a path."""
    return lambda path, layer: on(engine(path), layer)


class Drawn:
    """A layer of random shape and options, its weight, and an input map."""

    def __init__(self, seed: int, offsets: bool) -> None:
        draw, self.torch = random.Random(seed), torch.Generator().manual_seed(seed)
        self.groups = draw.choice((1, 1, 1, 2, 3))
        width, each = 4 * draw.randint(1, 20), draw.choice((1, 3, 5, 16, 31, 64, 70, 129))
        self.kernel = draw.choice(((1, 1), (3, 3), (3, 3), (5, 3), (2, 4)))
        self.stride = draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2, 3))
        self.dilation = draw.choice((1, 2))
        self.padding = [draw.randint(0, 3) for _ in "hw"]
        if draw.random() < 0.3:  # top, bottom, left, right
            self.padding = [draw.randint(0, 3) for _ in "tblr"]
        self.sides = (
            [*self.padding] if len(self.padding) == 4 else [p for p in self.padding for _ in "12"]
        )
        self.padding_value = draw.choice((0, 0, -1, 1))
        self.shape = (each * self.groups, width, *self.kernel)
        self.inputs = width * self.groups
        reach = [self.dilation * (k - 1) + 1 for k in self.kernel]
        size = [
            max(reach[i] - sum(self.sides[2 * i : 2 * i + 2]), 1) + draw.randint(0, 7)
            for i in (0, 1)
        ]
        self.x = self.numbers(draw.randint(1, 3), self.inputs, *size)
        self.weight = self.numbers(*self.shape)
        self.threshold, self.flip = self.numbers(self.inputs), self.numbers(self.inputs) > 0
        self.scale = self.numbers(self.shape[0]) if offsets else torch.ones(self.shape[0])
        self.offset = self.numbers(self.shape[0]) if offsets and draw.random() < 0.7 else None
        self.bias = self.numbers(self.shape[0]) if offsets else None
        self.values = (draw.choice((1.0, 0.7)), draw.choice((0.0, -0.3))) if offsets else (1.0, 0.0)

    def numbers(self, *shape: int) -> Tensor:
        """Random numbers with one decimal, so that many lie on their threshold."""
        return torch.randn(shape, generator=self.torch).round(decimals=1)

    def packed(self, path: str) -> PackedConv2d:
        """The packed layer on ``path``."""
        layer = PackedConv2d(
            pack_bits(self.weight),
            self.shape,
            activation=Binarizer(self.threshold, self.flip, *self.values),
            scale=self.scale,
            offset=self.offset,
            bias=self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_value=self.padding_value,
        )
        return on(engine(path), layer)

    def expected(self) -> Tensor:
        """The convolution of the values in float64."""
        codes = (self.x >= self.threshold.view(1, -1, 1, 1)) ^ self.flip.view(1, -1, 1, 1)
        x = torch.where(codes, 1.0, -1.0).double() * self.values[0] + self.values[1]
        options = self.stride, 0, self.dilation, self.groups
        x = F.pad(x, self.sides[2:] + self.sides[:2], value=self.padding_value)
        weight = torch.where(self.weight >= 0, 1.0, -1.0).double() * self.scale.view(-1, 1, 1, 1)
        if self.offset is not None:
            weight = weight + self.offset.view(-1, 1, 1, 1)
        bias = None if self.bias is None else self.bias.double()
        return F.conv2d(x, weight, bias, *options)

    def __repr__(self) -> str:
        hidden = ("torch", "x", "weight", "threshold", "flip", "scale", "bias")
        return str({k: v for k, v in vars(self).items() if k not in hidden} | {"x": self.x.shape})
