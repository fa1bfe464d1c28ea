"""BinaryNet / BNN (Hubara et al., NeurIPS 2016, arXiv 1602.02830).

Weights ``sign(w)`` with the identity as gradient and the latent weight clipped to [-1, 1] after
each step (Algorithm 1); activations ``sign(x)`` with the clipped straight-through estimator
(Eq. 4). No scale. With ``stochastic`` the signs of the weights are drawn in training, +1 with
probability ``clip((w + 1) / 2, 0, 1)`` (Courbariaux et al., arXiv 1511.00363, Sec. 2.2; 1602.02830,
Eqs. 2, 3). Changed: sign is deterministic unless asked otherwise; evaluation takes ``sign(w)``
even then, where the authors' code takes w itself (their BNN on CIFAR-10 draws nothing); first and
last layer stay in full precision unless ``first=binary last=binary`` (the original binarizes both);
sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import clip, identity, sign_ste


class BNNWeight(Side):
    """``sign(w)``, straight-through; latent weights are clipped after the step."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        """Signs of ``weight``, same shape."""
        return sign_ste(weight, identity)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Clip the latent weight to [-1, 1] in place."""
        weight.clamp_(-1, 1)


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


class SignActivation(Side):
    """``sign(x)`` with the clipped straight-through estimator."""

    symmetric = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x``, same shape."""
        return sign_ste(x, clip)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
