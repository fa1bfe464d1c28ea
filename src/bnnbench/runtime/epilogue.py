"""What stands around a 1-bit layer: how its input becomes codes, and what follows its sums.

A block is one call of the kernel, so all of it is data: channel-wise tensors, no functions.
``affine`` and ``Activation.forward`` are the same arithmetic in torch, in the order of the kernel,
which rounds every product and sum by itself: both paths give equal bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bnnbench.runtime.operators import Handled


def channels(values: Tensor | None, count: int, neutral: float) -> Tensor:
    """``values``, a number or one a channel, as ``count`` float32; ``neutral`` where None."""
    if values is None:
        return torch.full((count,), neutral)
    flat = torch.as_tensor(values, dtype=torch.float32).detach().flatten()
    if flat.numel() not in (1, count):
        raise ValueError(f"{flat.numel()} values for {count} channels: give one, or one a channel")
    return flat.expand(count).contiguous()


def over_map(values: Tensor) -> Tensor:
    """One value a channel, to broadcast against (N, C, H, W)."""
    return values.view(1, -1, 1, 1)


class Binarizer(nn.Module):
    """``a(v) = scale * c + offset`` with ``c = +1`` where ``v >= threshold``, else -1.

    Args:
        threshold: one number, or one a channel.
        flip: of each channel, whether ``c`` is turned round (+1 below the threshold).
        scale: of the whole tensor.
        offset: of the whole tensor.
    """

    threshold: Tensor
    flip: Tensor | None

    def __init__(
        self,
        threshold: Tensor | float = 0.0,
        flip: Tensor | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        threshold = torch.as_tensor(threshold, dtype=torch.float32).detach().flatten()
        self.register_buffer("threshold", threshold)
        self.register_buffer("flip", None if flip is None else flip.detach().flatten().bool())
        self.scale, self.offset = float(scale), float(offset)

    @property
    def is_sign(self) -> bool:
        """Whether the values are the codes themselves, -1 and +1."""
        return self.scale == 1 and self.offset == 0

    def codes(self, x: Tensor) -> Tensor:
        """The codes -1.0 and +1.0 of ``x`` (N, C, H, W)."""
        is_high = x >= over_map(self.threshold)
        if self.flip is not None:
            is_high = is_high ^ over_map(self.flip)
        return is_high.to(torch.float32).mul_(2).sub_(1)


class Activation(nn.Module):
    """``clamp((v >= 0 ? positive : negative) * v + shift, low, high)``, channel by channel.

    Covers ReLU (1, 0), PReLU (1, slope), RPReLU (its shift before belongs to what stands before),
    Maxout, Hardtanh (1, 1, clamped) and any channel-wise affine, such as a batch norm. Each of the
    three is one number, one a channel, or None, which changes nothing.
    """

    positive: Tensor | None
    negative: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        positive: Tensor | float | None = None,
        negative: Tensor | float | None = None,
        shift: Tensor | float | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> None:
        super().__init__()
        for name, given in (("positive", positive), ("negative", negative), ("shift", shift)):
            values = None if given is None else torch.as_tensor(given, dtype=torch.float32)
            self.register_buffer(name, None if values is None else values.detach().flatten())
        self.low, self.high = float(low), float(high)

    def forward(self, v: Tensor) -> Tensor:
        """``v`` (N, C, H, W), same shape out."""
        count = v.shape[1]
        positive, negative, shift = (over_map(t.to(v.device)) for t in self.tensors(count))
        v = torch.where(v >= 0, positive * v, negative * v) + shift
        return v.clamp(self.low, self.high)

    def tensors(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Both slopes and the shift of each of ``count`` channels."""
        slopes = channels(self.positive, count, 1.0), channels(self.negative, count, 1.0)
        return *slopes, channels(self.shift, count, 0.0)


class Epilogue(Handled):
    """``after(before(factor * (scale * y + shift)) + add)`` of a layer's output ``y``, by channels.

    ``scale`` and ``shift`` (a batch norm) are folded into the layer's own. ``add``, the shortcut,
    and ``factor``, one number a pixel, are tensors that are given with each call, or nothing.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        before: Activation | None = None,
        after: Activation | None = None,
    ) -> None:
        super().__init__()
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, None if values is None else values.detach().flatten())
        self.before, self.after = before, after
