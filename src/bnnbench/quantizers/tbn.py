"""TBN: ternary-binary networks (Wan et al., ECCV 2018); code dnvtmf/TBN.

Weights ``E|w| * sign(w)`` per filter, straight-through. Activations ``t``: +1 at and above Delta,
-1 at and below -Delta, 0 between, ``Delta = delta E|x|`` of the whole map, without gradient: of the
batch in training, its running mean in evaluation. Version 1, the paper's: values t, gradient
``g * 1[|x| < 1]``. Version 2 (the code's TBNv2): values ``2 Delta t``, the gradient peaks at both
thresholds, ``g * p |((x/Delta + 3) mod 2) - 1|^(p - 1)`` for ``|x| <= 2 Delta``. Equations as in
the authors' code, the paper was not read; its delta is said to be 0.4. Changed: sign(0) of weights
= +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, mean_magnitude, scaled_sign
from bnnbench.quantizers.surrogate import clip, identity, sign_ste


class TBNWeight(Side):
    """``E|w| * sign(w)``, one scale a filter."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return sign_ste(weight, identity, scale=mean_magnitude(weight.detach()))

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, mean_magnitude(x))


class _Ternary(torch.autograd.Function):
    """Ternary codes of ``x``; ``order`` 0 is version 1."""

    @staticmethod
    def forward(ctx, x: Tensor, delta: Tensor, order: float) -> Tensor:
        ctx.save_for_backward(x, delta)
        ctx.order = order
        code = (x >= delta).to(x.dtype) - (x <= -delta).to(x.dtype)
        return code * (2 * delta) if order else code

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, delta = ctx.saved_tensors
        if not ctx.order:
            return clip(grad, x), None, None
        scaled = x / delta.clamp(min=torch.finfo(x.dtype).tiny)  # 0 of a map of zeros
        slope = ctx.order * (torch.remainder(scaled + 3, 2) - 1).abs().pow(ctx.order - 1)
        return grad * slope * (scaled.abs() <= 2), None, None


class TBNActivation(Side):
    """Ternary activations, one threshold a map.

    Args:
        channels: the input's; the threshold does not depend on them.
        delta: threshold over ``E|x|``.
        momentum: how fast the running threshold follows.
        version: 1, or 2 for scaled values and the estimator of order ``order``.
        order: p of version 2, at least 1.
    """

    bits = 2
    running_delta: Tensor

    def __init__(
        self,
        channels: int,
        delta: float,
        momentum: float,
        version: int,
        order: float,
    ) -> None:
        super().__init__()
        if delta <= 0 or not 0 < momentum <= 1 or version not in (1, 2) or order < 1:
            raise ValueError(
                "quantizer: delta must be above 0, momentum in (0, 1], version 1 or 2 and order at "
                f"least 1; got {delta}, {momentum}, {version}, {order}"
            )
        self.delta, self.momentum = delta, momentum
        self.order = order if version == 2 else 0.0
        self.register_buffer("running_delta", torch.tensor(delta * 0.7979))  # of a normal map

    def _threshold(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.running_delta
        delta = self.delta * x.detach().abs().mean()
        self.running_delta.lerp_(delta.to(self.running_delta.dtype), self.momentum)
        return delta

    def forward(self, x: Tensor) -> Tensor:
        """Ternary activations, same shape as ``x``."""
        delta = self._threshold(x).to(x.dtype)
        return _Ternary.apply(x, delta, self.order)  # pyright: ignore[reportReturnType]
