"""Straight-through values that are no sign: forward one tensor, backward to another."""

from __future__ import annotations

import torch
from torch import Tensor


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope)
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors
        return grad if slope is None else grad * slope, None, None


def straight_through(x: Tensor, value: Tensor, slope: Tensor | None = None) -> Tensor:
    """``value``, exactly, with the gradient ``grad * slope`` (1 without) for ``x`` alone."""
    return _Straight.apply(x, value, slope)  # pyright: ignore[reportReturnType]
