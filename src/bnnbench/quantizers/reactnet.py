"""ReActNet's RSign (Liu et al., ECCV 2020, arXiv 2003.03488, Eq. 4); code liuzechun/ReActNet.

Activations ``sign(x - threshold)`` with one learned threshold per channel and ApproxSign as
surrogate; weights as in Bi-Real Net. RPReLU (Eq. 5) is the block's nonlinearity. Changed:
sign(0) = +1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import approx_sign, sign_ste


class RSign(Side):
    """Sign with a learned threshold per channel, initially 0."""

    symmetric = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))

    def _shifted(self, x: Tensor) -> Tensor:
        channels_last_axis = x.dim() == 2  # (N, C) of a linear layer, else (N, C, H, W)
        shape = (-1,) if channels_last_axis else (-1, 1, 1)
        return x - self.threshold.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x - threshold``, same shape as ``x`` (N, C) or (N, C, H, W)."""
        return sign_ste(self._shifted(x), approx_sign)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(self._shifted(x))
