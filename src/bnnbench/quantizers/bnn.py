"""BinaryNet / BNN (Hubara et al., NeurIPS 2016, arXiv 1602.02830).

Weights ``sign(w)`` with the identity as gradient and the latent weight clipped to [-1, 1] after
each step (Algorithm 1); activations ``sign(x)`` with the clipped straight-through estimator
(Eq. 4). No scale. Changed: sign is deterministic; first and last layer stay in full precision
unless ``first=binary last=binary`` (the original binarizes both).
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
