"""The sign function and its surrogate gradients: one autograd function, parameterised by the rule.

Forward values are exact: ``sign(x)`` in {-1, +1} with ``sign(0) = sign(-0.0) = +1``. The surrogate
lives in the backward alone. A rule maps ``(grad, x, *params)`` to the gradient of ``x``. Every rule
is plain float arithmetic: boolean masks are slow in eager mode on CPU and several times slower
still when compiled, so a window is a product of clamps or one fused aten backward. At the end stand
values that pass straight through, and gradients that are rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GradientRule = Callable[..., Tensor]


def sign(x: Tensor) -> Tensor:
    """Sign of ``x`` in {-1, +1}, +1 at both zeros (and for NaN)."""
    return torch.sign(x).add_(0.5).sign_()


def identity(grad: Tensor, x: Tensor) -> Tensor:
    """Straight-through: the gradient of the identity."""
    return grad


def clip(grad: Tensor, x: Tensor) -> Tensor:
    """Clipped straight-through: ``grad * 1[|x| < 1]`` (BNN, arXiv 1602.02830, Eq. 4)."""
    if torch.compiler.is_compiling():
        return grad * (1 - x.abs()).ceil().clamp(0, 1)
    return torch.ops.aten.hardtanh_backward(grad, x, -1.0, 1.0)


def approx_sign(grad: Tensor, x: Tensor) -> Tensor:
    """ApproxSign: ``grad * max(0, 2 - 2|x|)`` (Bi-Real Net, arXiv 1808.00278, Eq. 6)."""
    return x.abs().mul_(-2).add_(2).clamp_(min=0).mul_(grad)


def ede(grad: Tensor, x: Tensor, k: Tensor, t: Tensor) -> Tensor:
    """Error decay estimator: ``grad * k * t * (1 - tanh(t x)^2)`` (IR-Net, 1909.10788, Eq. 12)."""
    tanh = torch.tanh(x * t)
    return tanh.square_().neg_().add_(1).mul_(grad).mul_(k * t)


class _SignSTE(torch.autograd.Function):
    # Two named parameters instead of *params: dynamo would drop ctx under no_grad (torch 2.12).
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        rule: GradientRule,
        scale: Tensor | None,
        first: Tensor | None,
        second: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, first, second)
        ctx.rule = rule
        return sign(x) if scale is None else sign(x).mul_(scale)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, *params = ctx.saved_tensors
        params = [param for param in params if param is not None]
        return ctx.rule(grad, x, *params), None, None, None, None


def sign_ste(x: Tensor, rule: GradientRule, *params: Tensor, scale: Tensor | None = None) -> Tensor:
    """``sign(x)`` whose gradient is ``rule(grad, x, *params)``; same shape as ``x``.

    At most two ``params``; ``scale`` multiplies the value and leaves the gradient as it is.
    """
    first, second = (*params, *(None,) * (2 - len(params)))
    return _SignSTE.apply(x, rule, scale, first, second)  # pyright: ignore[reportReturnType]


class _RoundSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad


def round_ste(x: Tensor) -> Tensor:
    """Nearest integer (half to even) with the gradient of the identity."""
    return _RoundSTE.apply(x)  # pyright: ignore[reportReturnType]


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
