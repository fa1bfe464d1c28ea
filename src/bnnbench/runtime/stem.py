"""The float convolution in front of a packed network, in one call with all that follows it.

Its sums are float32 and rounded in another order than torch's, as any two builds of torch's differ:
a value may come out on the other side of a threshold where it lies within a few roundings of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runtime.convolution import Codes, PackedConv2d
from bnnbench.runtime.derived import Derived
from bnnbench.runtime.epilogue import Activation, channels
from bnnbench.runtime.kernel import CStem, Kernel, active, pointer
from bnnbench.runtime.layout import Encoding, activation
from bnnbench.runtime.shapes import is_traced, pair

MOST_INPUTS = 8  # channels; with more of them torch's own convolution is as fast


@dataclass(frozen=True)
class StemPlan:
    """A stem on maps of one size: the structure, and what it points at."""

    structure: CStem
    address: int
    kept: tuple[object, ...]
    outputs: tuple[int, int, int]  # (O, H', W')
    room: tuple[int, int]  # floats of a bordered map, and of a thread
    next: list[tuple[PackedConv2d, Encoding]]


class Stem(Derived):
    """``max_pool2d(activation(conv2d(x)))`` in float32, and codes of the next layers.

    Args:
        weight: (O, I, kh, kw); a batch norm behind it is folded in by the caller, here and in
            ``bias``.
        bias: (O,) or None.
        activation: what follows the convolution, or None.
        pool: window, stride and padding of a max pool, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        activation: Activation | None = None,
        pool: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float())
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.stride, self.padding = pair(stride), pair(padding)
        self.activation, self.pool = activation, pool
        if min(*self.stride, self.padding[0] + 1, self.padding[1] + 1) < 1:
            raise ValueError("stride is at least 1, padding at least 0")
        if pool and not (0 <= 2 * pool[2] <= pool[0] and pool[1] > 0):
            raise ValueError(f"pool={pool}: the padding is at most half of the window")

    def choose(self) -> tuple[Kernel | None, str]:
        """The kernel that computes the stem, and its name; or None, and why."""
        if self.weight.shape[1] > MOST_INPUTS:
            return None, f"{self.weight.shape[1]} input channels, more than {MOST_INPUTS}"
        if self.weight.device.type != "cpu":
            return None, f"on {self.weight.device}"
        return active()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, I, H, W) to (N, O, H', W'), channels-last."""
        return self.fused(x)[0]

    def fused(self, x: Tensor, *, next: Sequence[PackedConv2d] = ()) -> tuple[Tensor, list[Codes]]:
        """The output, and the codes of up to two layers that read it."""
        if x.dim() != 4 or x.shape[1] != self.weight.shape[1]:
            expected = f"(N, {self.weight.shape[1]}, H, W)"
            raise ValueError(f"a map of shape {tuple(x.shape)}: expected {expected}")
        kernel = None if is_traced() else self.engine[0]
        if kernel is None or x.dtype != torch.float32 or x.device.type != "cpu":
            y = self.in_torch(x)
            return y, [layer.encode(y) for layer in next]
        plan = self.derived((x.shape[1:], *next), lambda: self.planned(kernel, x.shape, next))
        if plan is None:
            y = self.in_torch(x)
            return y, [layer.encode(y) for layer in next]
        threads, shape = torch.get_num_threads(), (x.shape[0], *plan.outputs)
        y = torch.empty(shape, memory_format=torch.channels_last)
        bordered, rows = torch.empty(len(x) * plan.room[0]), torch.empty(threads * plan.room[1])
        made = [Codes(layer, shape, encoder.room(shape)) for layer, encoder in plan.next]
        kernel.stem(
            plan.address,
            x.data_ptr(),
            (ctypes.c_int64 * 4)(*x.stride()),
            bordered.data_ptr(),
            rows.data_ptr(),
            y.data_ptr(),
            made[0].data.data_ptr() if made else None,
            made[1].data.data_ptr() if len(made) > 1 else None,
            len(x),
            threads,
        )
        return y, made

    def in_torch(self, x: Tensor) -> Tensor:
        """The output by torch's own functions."""
        x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if self.activation is not None:
            y = self.activation(y)
        y = y if self.pool is None else F.max_pool2d(y, *self.pool)
        return y.contiguous(memory_format=torch.channels_last)

    def planned(
        self, kernel: Kernel, shape: Sequence[int], next: Sequence[PackedConv2d]
    ) -> StemPlan | None:
        """The kernel's view of this stem on maps of this shape; None where torch's is needed."""
        out, width, kh, kw = self.weight.shape
        if len(next) > 2 or any(layer.engine[0] is not kernel for layer in next):
            return None
        c, size = CStem(), [n + 2 * p for n, p in zip(shape[2:], self.padding, strict=True)]
        c.oh, c.ow = ((n - k) // s + 1 for n, k, s in zip(size, (kh, kw), self.stride, strict=True))
        c.pool, c.pool_stride, c.pool_padding = self.pool or (1, 1, 0)
        high, wide = ((n + 2 * c.pool_padding - c.pool) // c.pool_stride + 1 for n in (c.oh, c.ow))
        if c.ow < PIXELS or min(high, wide, c.oh) < 1:
            return None
        c.pooled_h, c.pooled_w = high, wide
        (c.h, c.w), (c.ph, c.pw), (c.sh, c.sw) = shape[2:], self.padding, self.stride
        c.channels, c.kh, c.run, c.out = width, kh, kw * width, out
        spare = -out % kernel.float_block
        c.padded = out + spare

        def laid(values: Tensor) -> Tensor:
            return F.pad(values, (0, spare)).contiguous()

        rows = laid(self.weight.permute(2, 3, 1, 0).reshape(kh, kw * width, out))
        blocks = rows.unflatten(2, (-1, kernel.float_block)).permute(2, 0, 1, 3).contiguous()
        kept = blocks, laid(channels(self.bias, out, 0.0))
        c.weights, c.shift = map(pointer, kept)
        c.after, held = activation(self.activation, out, laid)
        read = [(layer, layer.encoding(kernel)) for layer in next]
        for i, (_, encoder) in enumerate(read):
            c.next[i] = ctypes.pointer(encoder.structure)
        room = size[0] * size[1] * width, (c.pool + 1) * c.ow * out
        return StemPlan(c, ctypes.addressof(c), (kept, held), (out, high, wide), room, read)


PIXELS = 6  # of a tile, which a row must hold
