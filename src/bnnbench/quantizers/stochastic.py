"""Stochastic binarization (Courbariaux et al., arXiv 1511.00363, Sec. 2.2; 1602.02830, Eqs. 2, 3).

In training the sign of a BNN weight is drawn, +1 with probability ``clip((w + 1) / 2, 0, 1)``; its
gradient stays the identity. Changed: evaluation takes ``sign(w)``; the authors' code takes w
itself there, and their BNN on CIFAR-10 draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.bnn import BNNWeight
from bnnbench.quantizers.surrogate import identity, sign_ste


class DrawnWeight(BNNWeight):
    """BNN's weight side, whose signs are drawn in training where ``stochastic`` says so."""

    def __init__(self, shape: Sequence[int], stochastic: bool) -> None:
        super().__init__(shape)
        self.stochastic = stochastic

    def forward(self, weight: Tensor) -> Tensor:
        """Signs of ``weight``, or draws; same shape."""
        if not (self.stochastic and self.training):
            return super().forward(weight)
        threshold = 1 - 2 * torch.rand_like(weight)  # (-1, 1]: -1 is never +1, +1 always
        return sign_ste(weight - threshold, identity)
