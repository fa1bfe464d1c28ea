"""A 1-bit convolution in floats, exactly: its numbers, and the affine that the kernel shares.

With activations ``a = sa * c + oa`` and weights ``w = sw * b + ow`` (``c`` and ``b`` in {-1, +1})

    conv(a, w) = sa sw S + sa ow W + oa (sw B + ow N)

where ``S = conv(c, b)`` is the sum that the kernel counts, ``W`` the sum of the codes in the
window, ``B`` the sum of the weight's bits that lie inside the map and ``N`` their number. The last
term depends on the position alone: one row of channels for each way in which the window can hang
over the border. Outside the map a code counts nothing, so a zero border is exact for all of them.

Sums of fewer than 2 ** 24 codes are exact in floats; rounding undoes what a backend that transforms
the maps (Winograd) would add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runtime.derived import Derived
from bnnbench.runtime.epilogue import Binarizer, Epilogue, channels, over_map
from bnnbench.runtime.shapes import check_shape, checked, outputs_along, pair, resolved_padding


@dataclass(frozen=True)
class Folded:
    """The affine of a layer together with its epilogue's.

    Attributes:
        scale: (O,) of the sums ``S``.
        window: (O,) of the window sums ``W``, or None where the weights have no offset.
        rows: (classes of rows, classes of columns, O) what is added at each kind of position.
        kinds: the class of each output row, and of each output column.
    """

    scale: Tensor
    window: Tensor | None
    rows: Tensor
    kinds: tuple[Tensor, Tensor]

    @cached_property
    def over_map(self) -> Tensor:
        """The rows at their positions, (1, O, H', W') or (1, O, 1, 1)."""
        rows = self.rows
        if rows.shape[:2] != (1, 1):
            rows = rows[self.kinds[0].long()][:, self.kinds[1].long()]
        return rows.permute(2, 0, 1)[None]


class SignConv2d(Derived):
    """``conv2d`` over 1-bit activations and weights; buffers only, evaluation only.

    Args:
        bits: uint8 (O, ceil(I / groups * kh * kw / 8)), ``numpy.packbits(axis=1,
            bitorder="little")`` of ``w >= 0`` in the order (I / groups, kh, kw).
        shape: of the weight, (O, I / groups, kh, kw).
        activation: how the input becomes codes, and which values these stand for.
        scale: of the weight, one number or one an output channel.
        offset: of the weight, likewise, or None.
        padding: pixels, one number, one an axis, or (top, bottom, left, right); "same" or "valid".
        padding_value: the value outside the map, -1, 0 or +1; 0 contributes nothing.
        bias: (O,) or None.

    Attributes:
        sides: pixels outside the map that windows reach, ((top, bottom), (left, right)).
        padding: the larger one of each axis, which codes of a map have on both sides.
    """

    bits: Tensor
    scale: Tensor
    offset: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        bits: Tensor,
        shape: Sequence[int],
        *,
        activation: Binarizer,
        scale: Tensor | float = 1.0,
        offset: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_value: float = 0.0,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape = out, width, kh, kw = check_shape(bits, shape, groups)
        self.stride, self.dilation, self.groups = pair(stride), pair(dilation), int(groups)
        self.sides = resolved_padding(padding, (kh, kw), self.dilation)
        self.padding = max(self.sides[0]), max(self.sides[1])
        if min(*self.stride, *self.dilation) < 1 or min(*self.sides[0], *self.sides[1]) < 0:
            raise ValueError("stride and dilation are at least 1, padding at least 0")
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"padding_value={padding_value}: choose -1, 0 or +1")
        self.padding_value, self.in_channels = float(padding_value), width * self.groups
        self.activation = activation
        self.register_buffer("bits", bits.detach().contiguous())
        self.register_buffer("scale", channels(torch.as_tensor(scale), out, 1.0))
        has_offset = offset is not None and bool(torch.as_tensor(offset).any())
        self.register_buffer("offset", channels(offset, out, 0.0) if has_offset else None)
        self.register_buffer("bias", None if bias is None else channels(bias, out, 0.0))
        for values in (activation.threshold, activation.flip):
            channels(values, self.in_channels, 0.0)

    @torch.no_grad()
    def in_floats(
        self,
        codes: Tensor,
        epilogue: Epilogue | None,
        add: Tensor | None,
        factor: Tensor | None = None,
    ) -> Tensor:
        """The output of codes (N, I, H, W) and of an epilogue, in the order of the kernel."""
        size = codes.shape[2:]
        folded = self.derived((epilogue, size), lambda: self.folded(epilogue, size))
        base = folded.over_map
        if folded.window is not None:
            base = self.window_sums(codes).mul_(over_map(folded.window)).add_(base)
        y = self.sums(codes).mul_(over_map(folded.scale)).add_(base)
        if factor is not None:
            y = y.mul_(checked(factor, (len(y), 1, *y.shape[2:]), 1, y.device))
        if epilogue is not None and epilogue.before is not None:
            y = epilogue.before(y)
        if add is not None:
            y = y + checked(add, y.shape, y.shape[1], y.device)
        if epilogue is not None and epilogue.after is not None:
            y = epilogue.after(y)
        return y.contiguous(memory_format=torch.channels_last)

    def sums(self, codes: Tensor) -> Tensor:
        """``S``: the convolution of the codes with the weight's bits, (N, O, H', W')."""
        return self.convolve(codes, self.signs, self.groups)

    def window_sums(self, codes: Tensor) -> Tensor:
        """``W``: the sum of the codes in the window of each output, (N, O or 1, H', W')."""
        ones = torch.ones_like(self.signs[: self.groups])
        sums = self.convolve(codes, ones, self.groups)
        return sums.repeat_interleave(self.shape[0] // self.groups, 1)

    def convolve(self, codes: Tensor, weight: Tensor, groups: int) -> Tensor:
        """Codes by ``weight``, what stands outside the map included where it is a code."""
        (top, bottom), (left, right) = self.sides
        padding = top, left
        if self.pads_with_codes or self.sides[0] != (top, top) or self.sides[1] != (left, left):
            value = self.padding_value if self.pads_with_codes else 0.0
            codes, padding = F.pad(codes, [left, right, top, bottom], value=value), (0, 0)
        return F.conv2d(codes, weight, None, self.stride, padding, self.dilation, groups).round_()

    @property
    def pads_with_codes(self) -> bool:
        """Whether what stands outside the map is a code of the activations like any other."""
        return self.padding_value != 0 and self.activation.is_sign

    @property
    def signs(self) -> Tensor:
        """The weight's bits as -1.0 and +1.0, (O, I / groups, kh, kw)."""
        return self.derived("signs", self.unpacked)

    def unpacked(self) -> Tensor:
        """The same, unpacked."""
        count = self.shape[1] * self.shape[2] * self.shape[3]
        bits = np.unpackbits(self.bits.cpu().numpy(), axis=1, count=count, bitorder="little")
        signs = torch.from_numpy(bits).to(self.bits.device, torch.float32).mul_(2).sub_(1)
        return signs.view(self.shape).contiguous(memory_format=torch.channels_last)

    def folded(self, epilogue: Epilogue | None, size: Sequence[int]) -> Folded:
        """The affine of sums on a map of ``size`` (H, W), rounded once."""
        out = self.shape[0]
        scale = channels(getattr(epilogue, "scale", None), out, 1.0).to(self.bits.device).double()
        shift = channels(getattr(epilogue, "shift", None), out, 0.0).to(self.bits.device).double()
        rows, kinds = self.border_rows(size)
        rows = rows if self.bias is None else rows + self.bias.double()
        gain = scale * self.activation.scale
        window = None if self.offset is None else (gain * self.offset.double()).float()
        rows = (scale * rows + shift).float()
        return Folded((gain * self.scale.double()).float(), window, rows, kinds)

    def border_rows(self, size: Sequence[int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What the activation's offset and the value outside the map add, in float64.

        Returns the sums (classes of rows, classes of columns, O), and both maps' classes.
        """
        inside, kinds = zip(*(self.inside(axis, size[axis]) for axis in (0, 1)), strict=True)
        outer = 0.0 if self.pads_with_codes else self.padding_value
        if self.activation.offset == outer:
            none = [torch.zeros_like(kind) for kind in kinds]
            whole = self.activation.offset * self.taps.sum((1, 2))
            return whole.view(1, 1, -1), (none[0], none[1])
        sums = torch.einsum("yi,oij,xj->yxo", inside[0], self.taps, inside[1])
        outside = self.taps.sum((1, 2)) - sums
        return self.activation.offset * sums + outer * outside, (kinds[0], kinds[1])

    @property
    def taps(self) -> Tensor:
        """The weight's values summed over input channels, (O, kh, kw) in float64."""
        values = self.signs.double() * self.scale.double().view(-1, 1, 1, 1)
        if self.offset is not None:
            values = values + self.offset.double().view(-1, 1, 1, 1)
        return values.sum(1)

    def inside(self, axis: int, length: int) -> tuple[Tensor, Tensor]:
        """Which taps of the window lie inside the map, for each kind of position on one axis.

        Returns (kinds, taps) of 0 and 1 in float64, and the kind of each output, int32.
        """
        count = self.output_size(axis, length)
        first = torch.arange(count) * self.stride[axis] - self.sides[axis][0]
        taps = first[:, None] + torch.arange(self.shape[2 + axis]) * self.dilation[axis]
        kinds, kind = torch.unique((taps >= 0) & (taps < length), dim=0, return_inverse=True)
        device = self.bits.device
        return kinds.to(device, torch.float64), kind.to(device, torch.int32)

    def output_shape(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """(N, O, H', W') of an input of ``shape`` (N, I, H, W)."""
        high, wide = (self.output_size(axis, shape[2 + axis]) for axis in (0, 1))
        return shape[0], self.shape[0], high, wide

    def output_size(self, axis: int, length: int) -> int:
        """Outputs along one axis of a map of ``length`` pixels."""
        size, stride, dilation = self.shape[2 + axis], self.stride[axis], self.dilation[axis]
        return outputs_along(length, self.sides[axis], size, stride, dilation)
