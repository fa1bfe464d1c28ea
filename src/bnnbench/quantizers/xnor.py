"""XNOR-Net (Rastegari et al., ECCV 2016, arXiv 1603.05279); code allenai/XNOR-Net.

Weights: centred over the input channels, clamped to [-1, 1], then ``alpha * sign(w)`` with
``alpha = E|w|`` per filter (Eq. 6). Activations ``sign(x)``. The input scale K (Eq. 11) is an
output op, off by default because no public code applies it. ``gradient``: ``corrected`` is the true
gradient of ``alpha * sign(w)`` with a straight-through sign; ``paper`` is Eq. 12 elementwise;
``lua`` is ``paper`` with the centring factor ``1 - 1/C_in`` of the released code.
``gradient_scale`` multiplies it. Changed: centring is straight-through in ``corrected``;
sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.base import (
    Decomposition,
    OutputOp,
    Side,
    mean_magnitude,
    per_filter,
    scaled_sign,
)
from bnnbench.quantizers.parts import column, in_parts, parts, to_signs
from bnnbench.quantizers.surrogate import clip, identity, sign, sign_ste

GRADIENTS = ("corrected", "paper", "lua")


class _ElementwiseGradient(torch.autograd.Function):
    """``alpha * sign(w)`` with gradient ``grad * (alpha * 1[|w| < 1] + 1/n) * factor``."""

    @staticmethod
    def forward(ctx, weight: Tensor, alpha: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(weight, alpha)
        ctx.factor = factor
        return alpha * sign(weight)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, alpha = ctx.saved_tensors
        through = clip(grad, weight) * alpha + grad / weight[0].numel()
        return through * ctx.factor, None, None


class _ScaledSign(torch.autograd.Function):
    """``XNORWeight._plain`` of ``corrected`` in parts: its value and gradient, bit for bit."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        value, alpha = torch.empty_like(weight), column(weight)
        for w, out, a in parts(weight, value, alpha):
            centred = XNORWeight._centre(w)
            torch.mean(torch.abs(centred, out=out), dim=per_filter(w), keepdim=True, out=a)
            to_signs(out.copy_(centred)).mul_(a)
        ctx.save_for_backward(weight, alpha)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, alpha = ctx.saved_tensors
        grad_weight, axes, count = torch.empty_like(weight), per_filter(weight), weight[0].numel()
        for w, g, out, a in parts(weight, grad, grad_weight, alpha):
            signs = XNORWeight._centre(w).sign_()  # 0 at 0, as the gradient of a magnitude
            grad_alpha = torch.add(signs, 0.5, out=out).sign_().mul_(g).sum(dim=axes, keepdim=True)
            torch.mul(g, a, out=out).add_(signs.mul_(grad_alpha / count))
        return grad_weight


class XNORWeight(Side):
    """``alpha * sign(w - mean over input channels)``, alpha per filter."""

    def __init__(self, shape: Sequence[int], gradient: str, gradient_scale: float) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise ValueError(f"quantizer.gradient={gradient!r}: choose one of {GRADIENTS}")
        self.gradient, self.gradient_scale = gradient, gradient_scale
        self.centring = 1 - 1 / shape[1] if shape[1] > 1 else 1.0

    @staticmethod
    def _centred(weight: Tensor) -> Tensor:
        centred = weight
        if weight.shape[1] > 1:  # a depthwise filter would vanish
            centred = weight - weight.mean(dim=1, keepdim=True).detach()
        return centred + (centred.clamp(-1, 1) - centred).detach()

    @staticmethod
    def _centre(weight: Tensor) -> Tensor:
        """``_centred`` without gradient, in fewer passes."""
        mean = weight.mean(dim=1, keepdim=True) if weight.shape[1] > 1 else 0.0
        centred = weight - mean
        return centred.add_(centred.clamp(-1, 1).sub_(centred))

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        if self.gradient == "corrected" and self.gradient_scale == 1 and in_parts(weight):
            return _ScaledSign.apply(weight)  # pyright: ignore[reportReturnType]
        return self._plain(weight)

    def _plain(self, weight: Tensor) -> Tensor:
        centred = self._centred(weight)
        if self.gradient == "corrected":
            value = mean_magnitude(centred) * sign_ste(centred, identity)
            if self.gradient_scale == 1:
                return value
            return value.detach() + (value - value.detach()) * self.gradient_scale
        factor = self.gradient_scale * (self.centring if self.gradient == "lua" else 1.0)
        return _ElementwiseGradient.apply(  # pyright: ignore[reportReturnType]
            centred, mean_magnitude(centred).detach(), factor
        )

    def decompose(self, x: Tensor) -> Decomposition:
        centred = self._centred(x)
        return scaled_sign(centred, mean_magnitude(centred))


class InputScale(OutputOp):
    """XNOR-Net's K (Eq. 11): the channel mean of ``|x|``, averaged over each window."""

    box: Tensor

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.options: Any = (layer.stride, layer.padding, layer.dilation)
        kh, kw = layer.kernel_size
        self.register_buffer("box", torch.full((1, 1, kh, kw), 1 / (kh * kw)), persistent=False)

    def forward(self, out: Tensor, x: Tensor) -> Tensor:
        """``out`` (N, O, H', W') scaled by K of the real input ``x`` (N, C, H, W)."""
        magnitude = x.abs().mean(dim=1, keepdim=True)
        return out * F.conv2d(magnitude, self.box, None, *self.options)


def input_scale(layer: nn.Conv2d, enabled: bool) -> InputScale | None:
    """The output op of the ``input_scale`` option."""
    return InputScale(layer) if enabled else None
