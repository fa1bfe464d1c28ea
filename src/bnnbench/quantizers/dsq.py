"""DSQ: differentiable soft quantization (Gong et al., ICCV 2019, arXiv 1908.05033), at one bit.

Both sides clip to a learned range [l, u], one interval of width D with centre m, and take one of
its ends: ``l + D (sign(phi) + 1) / 2`` with ``phi = tanh(k (x - m)) / (1 - alpha)``,
``k = log(2/alpha - 1) / D``; alpha, how far a soft step misses +-1, is learned (initially 0.2). The
sign is straight-through over phi; all else has its true gradient. The paper was read as abstract;
the equations stand in ricky40403/DSQ (after its Algorithm 1) and ModelTC/MQBench.
Ours: the starts of l and u, +-1 for activations and three of Kaiming's standard deviations for
weights; alpha is held in [0.01, 0.5]; D is held above 0; sign(0) = +1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import identity, sign_ste

ALPHA, LEAST, MOST = 0.2, 0.01, 0.5
EPS = 1e-12  # l and u may meet on their way


class SoftRange(Side):
    """One of two learned values, initially ``-bound`` and ``bound``."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.tensor(-bound))
        self.upper = nn.Parameter(torch.tensor(bound))
        self.alpha = nn.Parameter(torch.tensor(ALPHA))

    def _range(self) -> tuple[Tensor, Tensor]:
        """Width and centre."""
        return (self.upper - self.lower).clamp(min=EPS), (self.upper + self.lower) / 2

    def forward(self, x: Tensor) -> Tensor:
        """``lower`` or ``upper`` for each element of ``x``, same shape."""
        width, centre = self._range()
        alpha = self.alpha.clamp(LEAST, MOST)
        inside = ((x - centre) / width).clamp(-0.5, 0.5)  # x clipped to the range, in widths
        phi = torch.tanh(torch.log(2 / alpha - 1) * inside) / (1 - alpha)
        return centre + width / 2 * sign_ste(phi, identity)

    def decompose(self, x: Tensor) -> Decomposition:
        width, centre = self._range()
        return scaled_sign(x - centre, width / 2, centre)


class DSQWeight(SoftRange):
    """Two values a layer, built from the weight's shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(3 * math.sqrt(2 / (shape[0] * math.prod(shape[2:]))))


class DSQActivation(SoftRange):
    """Two values a layer, initially {-1, +1}."""

    symmetric = True

    def __init__(self, channels: int) -> None:
        super().__init__(1.0)
