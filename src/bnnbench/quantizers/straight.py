"""What surrogates of a sign are not: values straight through, and gradients that are rounded."""

from __future__ import annotations

from collections.abc import Callable

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


class _MappedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rule: Callable[[Tensor, int], Tensor], bits: int) -> Tensor:
        ctx.rule, ctx.bits = rule, bits
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.rule(grad, ctx.bits), None, None


def map_gradient(x: Tensor, rule: Callable[[Tensor, int], Tensor], bits: int) -> Tensor:
    """``x``, whose gradient becomes ``rule(grad, bits)``; at 32 bits it stays as it is."""
    return x if bits == 32 else _MappedGradient.apply(x, rule, bits)  # pyright: ignore
