"""MCN: modulated convolutional networks (Wang et al., CVPR 2018).

Weights alone are binary. One M-Filter of K planes (kh x kw) a layer turns binary filters into
``Q_ij = sign(C_i) o M_j`` (Eqs. 3.15-3.17 of the group's book "Binary Neural Networks", 2023);
``dM = sum g * sign(C)`` (Eq. 3.26) and ``dC = g * M``, straight-through. ``scalar_planes`` is
MCN-1: each plane acts by its average. Changed: the paper makes K output channels of each filter and
repeats the input K times; here the layer keeps its width, every output channel o has a latent
filter of its own and plane o mod K. Codes are -1 and +1. M's start is ours. The loss L_M (Eq. 3.18)
is ``loss=mcn``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import identity, sign_ste


class MCNWeight(Side):
    """``sign(C) o M``, one M-Filter a layer.

    M starts at random in [0.5, 1.5] times the E|C| that Kaiming's initialisation would give C.
    """

    def __init__(self, shape: Sequence[int], planes: int, scalar_planes: bool) -> None:
        super().__init__()
        if planes < 1:
            raise ValueError(f"quantizer.planes={planes}: use 1 or more")
        self.scalar_planes = scalar_planes
        fan_out = shape[0] * math.prod(shape[2:])
        magnitude = math.sqrt(2 / math.pi) * math.sqrt(2 / fan_out)
        used = min(planes, shape[0])  # a plane without a filter would never learn
        window = (used, *(1,) * min(1, len(shape) - 1), *shape[2:])
        self.m = nn.Parameter(magnitude * (0.5 + torch.rand(window)))

    def _planes(self, filters: int) -> Tensor:
        """The plane of each filter, (filters, 1, kh, kw)."""
        m = self.m
        if self.scalar_planes:
            m = m.flatten(1).mean(dim=1).view(-1, *(1,) * (m.dim() - 1))
        repeats = math.ceil(filters / len(m))
        return m.repeat(repeats, *(1,) * (m.dim() - 1))[:filters]

    def forward(self, weight: Tensor) -> Tensor:
        """Reconstructed filters Q, same shape as ``weight``."""
        return self._planes(len(weight)) * sign_ste(weight, identity)

    def reconstructed(self, weight: Tensor) -> Tensor:
        """Q with the binary filters as constants: what Eq. 3.18 compares with C."""
        return self.forward(weight.detach())

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, self._planes(len(x)))
