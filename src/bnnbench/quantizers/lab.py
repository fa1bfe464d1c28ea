"""LAB2: loss-aware binarization, activations too (Hou et al., ICLR 2017, arXiv 1611.01600).

Code: houlu369/Loss-aware-Binarization. Weights ``w_b = alpha sign(w)`` with one scale a layer, the
least second-order loss: ``alpha = sum|d w| / sum d``, ``d = sqrt(v) + 1e-8``, v the second moment
that Adam keeps of the gradient to w_b (decay 0.999, from 0). The gradient to w_b is the latent
weight's as it stands, alpha does not multiply it; latent weights are clipped to [-1, 1] after each
step. Activations ``sign(x)``, clipped straight-through. Changed: v is kept here, so that any
optimizer may train; its bias correction, a factor of the whole layer, is left out as in the code,
where it cancels but for the 1e-8; with Adam v is the optimizer's as long as it neither clips nor
decays. First and last layer stay in full precision unless ``first=binary last=binary`` (the
original binarizes both).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import identity, sign_ste

BETA2, EPS = 0.999, 1e-8


class LABWeight(Side):
    """``sum|d w| / sum d * sign(w)``, d the curvature by the gradients seen."""

    v: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("v", torch.zeros(tuple(shape)))

    def _scale(self, weight: Tensor) -> Tensor:
        curvature = self.v.sqrt() + EPS
        return (curvature * weight.detach().abs()).sum() / curvature.sum()

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return sign_ste(weight, identity, scale=self._scale(weight))

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, self._scale(x))

    @torch.no_grad()
    def after_backward(self, weight: Tensor) -> None:
        """Average the squared gradient."""
        if weight.grad is not None:
            self.v.mul_(BETA2).addcmul_(weight.grad, weight.grad, value=1 - BETA2)

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Clip the latent weight to [-1, 1] in place."""
        weight.clamp_(-1, 1)
