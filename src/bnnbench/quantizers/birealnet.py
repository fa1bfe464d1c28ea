"""Bi-Real Net (Liu et al., ECCV 2018, arXiv 1808.00278); code liuzechun/Bi-Real-net.

Weights ``E|w| * sign(w)`` per filter, the scale without gradient; the released code's gradient is
``g * 1[|w| < 1]``, the paper's magnitude-aware one multiplies it by ``E|w|``
(``magnitude_aware=true``). Activations ``sign(x)`` with ApproxSign (Eq. 6). Changed: sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, mean_magnitude, scaled_sign
from bnnbench.quantizers.surrogate import approx_sign, clip, sign_ste


class BiRealWeight(Side):
    """``E|w| * sign(w)`` per filter."""

    def __init__(self, shape: Sequence[int], magnitude_aware: bool) -> None:
        super().__init__()
        self.magnitude_aware = magnitude_aware

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        scale = mean_magnitude(weight.detach())
        if self.magnitude_aware:
            return scale * sign_ste(weight, clip)
        return sign_ste(weight, clip, scale=scale)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, mean_magnitude(x))


class ApproxSignActivation(Side):
    """``sign(x)`` with the piecewise quadratic surrogate."""

    symmetric = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x``, same shape."""
        return sign_ste(x, approx_sign)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
