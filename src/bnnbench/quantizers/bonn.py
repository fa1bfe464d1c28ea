"""BONN: Bayesian optimized 1-bit CNNs (Gu et al., ICCV 2019, arXiv 1908.06314).

Weights ``mean(w) * sign(X)``: w is a learned vector over the positions of one kernel matrix
(kh * kw elements), shared by all kernels of the layer (Algorithm 1). ``gradient=paper`` uses the
whole vector in the backward, ``dX = g * 1[|w X| <= 1] * w`` and ``dw = sum(g * 1[|w X| <= 1] * X)``
(Eqs. 12, 15); ``gradient=autograd`` is the true gradient with a clipped straight-through sign.
``scale=mean`` replaces the mean of w by the layer's ``E|X|`` in both, without learning (PCNN's
amplitude). Activations ``sign(x)`` with a clipped straight-through estimator, as in the authors'
BinActivateFunc. The Bayesian losses are callbacks, for any quantizer: ``loss=bonn``. Changed:
sign(0) = +1; the paper leaves the distribution of the random initial w open, see ``BONNWeight``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import clip, sign, sign_ste

GRADIENTS = ("paper", "autograd")
SCALES = ("learned", "mean")


class _ModulatedSign(torch.autograd.Function):
    """``mean(w) * sign(X)`` whose backward uses every element of w (Eqs. 12 and 15)."""

    @staticmethod
    def forward(ctx, weight: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(weight, w)
        return sign(weight).mul_(w.mean())

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, w = ctx.saved_tensors
        through = grad * (w * weight).abs().le(1)
        shared = [axis for axis in range(weight.dim()) if w.shape[axis] == 1]
        return through * w, (through * weight).sum(dim=shared, keepdim=True)


class BONNWeight(Side):
    """``mean(w) * sign(X)``, one w a layer.

    w starts at random in [0.5, 1.5] times the E|X| that Kaiming's initialisation would give X, so
    that a layer starts with the output of an XNOR layer.
    """

    def __init__(self, shape: Sequence[int], gradient: str, scale: str) -> None:
        super().__init__()
        for key, value, valid in (("gradient", gradient, GRADIENTS), ("scale", scale, SCALES)):
            if value not in valid:
                raise ValueError(f"quantizer.{key}={value!r}: choose one of {valid}")
        self.gradient, self.scale = gradient, scale
        window = (1,) * min(2, len(shape)) + tuple(shape[2:])  # (1, 1, kh, kw), or (1, 1)
        fan_out = shape[0] * math.prod(shape[2:])
        magnitude = math.sqrt(2 / math.pi) * math.sqrt(2 / fan_out)
        if scale == "learned":
            self.w = nn.Parameter(magnitude * (0.5 + torch.rand(window)))

    def _vector(self, weight: Tensor) -> Tensor:
        if self.scale == "learned":
            return self.w
        return weight.detach().abs().mean().reshape((1,) * weight.dim())

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        w = self._vector(weight)
        if self.gradient == "autograd":
            return w.mean() * sign_ste(weight, clip)
        return _ModulatedSign.apply(weight, w)  # pyright: ignore[reportReturnType]

    def modulated(self, weight: Tensor) -> Tensor:
        """``w o X``, what Eq. 7 compares with the binary weights; same shape as ``weight``."""
        return self._vector(weight) * weight

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, self._vector(x).mean())
