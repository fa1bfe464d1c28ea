"""Mean magnitudes of windows, by which XNOR-Net multiplies a layer (K of its equation 11)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runtime.derived import Derived
from bnnbench.runtime.kernel import CMean, Kernel, active
from bnnbench.runtime.operation import Operation
from bnnbench.runtime.shapes import is_traced, outputs_along, pair, resolved_padding

LANES = 16  # channels whose sums run side by side


class WindowMean(Derived):
    """``conv2d(x.abs().mean(1, keepdim=True), w)`` with one value in all of ``w``.

    Args:
        size: of the window, (kh, kw).
        value: of ``w``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        value: float,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.size, self.value = size, value
        self.stride, self.dilation = pair(stride), pair(dilation)
        self.sides = resolved_padding(padding, size, self.dilation)

    def choose(self) -> tuple[Kernel | None, str]:
        """The kernel, which computes all of them."""
        return active()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W) to (N, 1, H', W')."""
        kernel = None if is_traced() else self.engine[0]
        if kernel is None or x.dtype != torch.float32 or x.device.type != "cpu":
            return self.in_torch(x)
        x, n = x.contiguous(memory_format=torch.channels_last), x.shape[0]
        c, address, room, width = self.derived(x.shape[1:], lambda: self.planned(x.shape[1:]))
        y, threads = torch.empty(n, 1, c.oh, c.ow), torch.get_num_threads()
        sums = torch.empty(n * room + threads * width)
        start = sums.data_ptr()
        columns = start + 4 * n * room
        kernel.means(address, x.data_ptr(), start, columns, y.data_ptr(), n, threads)
        return y

    def in_torch(self, x: Tensor) -> Tensor:
        """The same bits by torch's own functions."""
        (top, bottom), (left, right) = self.sides
        _, channels, h, w = x.shape
        lanes = F.pad(x.abs(), (0, 0, 0, 0, 0, -channels % LANES)).unflatten(1, (-1, LANES))
        sums = in_turn(lanes.unbind(1))
        while sums.shape[1] > 1:
            low, high = sums.chunk(2, 1)
            sums = low + high
        rows, columns = (outputs(self, axis, (h, w)[axis]) for axis in (0, 1))
        sums = F.pad(sums, (left, right, top, bottom))
        sums = in_turn([sums[:, :, each] for each in rows])
        return in_turn([sums[:, :, :, each] for each in columns]) * self.scale(channels)

    def scale(self, channels: int) -> float:
        """What sums over channels and windows are multiplied by, a float32."""
        return float(torch.tensor(self.value / channels))

    def planned(self, shape: Sequence[int]) -> tuple[CMean, int, int, int]:
        """The kernel's view of maps of this shape, its address, and the floats of sums and rows."""
        channels, h, w = shape
        c = CMean(self.scale(channels), channels, h, w, *self.sides[0], *self.sides[1], *self.size)
        (c.sh, c.sw), (c.dh, c.dw) = self.stride, self.dilation
        c.oh, c.ow = (len(range(*outputs(self, a, shape[1 + a])[0].indices(10**9))) for a in (0, 1))
        width = w + sum(self.sides[1])
        return c, ctypes.addressof(c), (h + sum(self.sides[0])) * width, width


def outputs(mean: WindowMean, axis: int, length: int) -> list[slice]:
    """Where each tap of the window falls in a bordered map, for all outputs along one axis."""
    size, step, dilation = mean.size[axis], mean.stride[axis], mean.dilation[axis]
    count = outputs_along(length, mean.sides[axis], size, step, dilation)
    taps = (k * dilation for k in range(size))
    return [slice(tap, tap + (count - 1) * step + 1, step) for tap in taps]


def in_turn(terms: Sequence[Tensor]) -> Tensor:
    """The sum, from the first one on."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def window_mean(chosen: Sequence[Operation], options: Sequence[Any]) -> WindowMean | None:
    """Magnitude, mean and convolution as one, if that is what these operations are.

    Args:
        chosen: each reads the result of the one before alone.
        options: of the convolution: weight, bias, stride, padding, dilation and groups.
    """
    weight, bias, stride, padding, dilation, groups = options
    if [each.op for each in chosen] != ["abs", "mean.dim", "conv2d"] or bias is not None:
        return None
    if chosen[1].args[1:] != [[1], True] or any(each.kwargs for each in chosen) or groups != 1:
        return None
    if not isinstance(weight, Tensor) or tuple(weight.shape[:2]) != (1, 1):
        return None
    value, size = float(weight.flatten()[0]), (weight.shape[2], weight.shape[3])
    if bool((weight != value).any()):
        return None
    return WindowMean(size, value, stride, padding, dilation)
