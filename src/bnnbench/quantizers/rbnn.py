"""RBNN: rotated binary neural network (Lin et al., NeurIPS 2020, arXiv 2009.13055).

Code: lmbxmu/RBNN. Weights: each filter standardised, ``x = (w - E w) / std(w)``, and laid out as a
matrix X, as square as its size allows; value ``sign(x + |sin theta| (r - x))``, theta learned per
filter, r the rotated filter ``R1' X R2`` without gradient. R1 and R2 are the layer's: random
orthogonal at first, and at an epoch's start moved in three rounds towards the least ``sum ||B - R1'
X R2||^2``: B its signs, then R1, then R2, each an orthogonal Procrustes problem (one SVD).
Estimator ``g * max(0, k (sqrt(2) t - t^2 |x|))``, t log-linear from 0.01 to 10, ``k = max(1/t,
1)``; of activations k = 1 and ``max(t, 1)``. Activations: sign of the standardised sample, in
training and in evaluation. One learned scale an output channel. std: unbiased. Changed: theta
starts at U(0, pi/2), as in earlier versions of the code; at the last one's pi/2 no gradient reaches
w; t and k are buffers; sign(0) = +1. All batch norms start with scales of 1e-8, as the authors' of
CIFAR ResNet-20 and ImageNet do: without that short runs of deep networks hardly leave chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, EDESchedule, Side, scaled_sign
from bnnbench.quantizers.standardise import unit_std
from bnnbench.quantizers.surrogate import sign, sign_ste

ROUNDS = 3


def training_aware(grad: Tensor, x: Tensor, k: Tensor, t: Tensor) -> Tensor:
    """RBNN's estimator: ``grad * max(0, k (sqrt(2) t - t^2 |x|))``."""
    slope = x.abs().mul_(-t.square()).add_(math.sqrt(2) * t).clamp_(min=0)
    return slope.mul_(k).mul_(grad)


def closest_factors(n: int) -> tuple[int, int]:
    """``a <= b`` with ``a b = n`` and the least difference."""
    a = next(a for a in range(math.isqrt(n), 0, -1) if n % a == 0)
    return a, n // a


def nearest_rotation(m: Tensor) -> Tensor:
    """The orthogonal R with the largest ``tr(R' m)``."""
    u, _, vh = torch.linalg.svd(m)
    return u @ vh


class RBNNWeight(Side):
    """Signs of the standardised filters, each turned part of the way to its rotation."""

    training_only = ("theta",)

    r1: Tensor
    r2: Tensor

    def __init__(self, shape: Sequence[int], t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)
        self.theta = nn.Parameter(math.pi / 2 * torch.rand(shape[0], *(1,) * (len(shape) - 1)))
        rows, columns = closest_factors(math.prod(shape[1:]))
        self.register_buffer("r1", nn.init.orthogonal_(torch.empty(rows, rows)))
        self.register_buffer("r2", nn.init.orthogonal_(torch.empty(columns, columns)))

    def _matrices(self, x: Tensor) -> Tensor:
        return x.detach().reshape(len(x), len(self.r1), len(self.r2))

    def _turned(self, weight: Tensor) -> Tensor:
        x = unit_std(weight)
        with torch.autocast(weight.device.type, enabled=False):  # signs in full precision
            rotated = (self.r1.T @ self._matrices(x) @ self.r2).view_as(x)
        return x + self.theta.sin().abs() * (rotated - x)

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return sign_ste(self._turned(weight), training_aware, self.schedule.k, self.schedule.t)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(self._turned(x))

    @torch.no_grad()
    def epoch_start(self, weight: Tensor) -> None:
        """Move both rotations towards the signs of the rotated filters."""
        x = self._matrices(unit_std(weight))
        for _ in range(ROUNDS):
            codes = sign(self.r1.T @ x @ self.r2)
            self.r1.copy_(nearest_rotation(torch.einsum("oik,ojk->ij", x @ self.r2, codes)))
            self.r2.copy_(nearest_rotation(torch.einsum("oki,okj->ij", self.r1.T @ x, codes)))


class RBNNActivation(Side):
    """``sign(x - mean of the sample)``."""

    def __init__(self, channels: int, t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of the centred ``x`` (N, ...), same shape."""
        t = self.schedule.t
        return sign_ste(unit_std(x), training_aware, torch.ones_like(t), t.clamp(min=1))

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(unit_std(x))
