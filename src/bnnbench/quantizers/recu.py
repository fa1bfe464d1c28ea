"""ReCU (Xu et al., ICCV 2021, arXiv 2103.12369); code z-hXu/ReCU.

Weights: each filter standardised, ``v = 2 sqrt(2) (w - E w) / std(w)``, value ``sign(v)``. ReCU's
clamp of v at ``+-Q``, ``Q = -E|v| ln(2 - 2 tau)`` with the mean over the layer (the tau-quantile of
a Laplace distribution), is the gate: the gradient is 1[|v| < Q]. tau grows exponentially with the
training progress (Sec. 5.2.1). Activations ``sign(x)`` with ApproxSign; in training x is first
divided by the std of its sample, inside the gradient, which moves the window alone. The output has
one learned scale a channel. std: unbiased, ``sqrt(var + 1e-5)``. Changed: sign(0) = +1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Schedule, Side, per_filter, scaled_sign
from bnnbench.quantizers.standardise import spread
from bnnbench.quantizers.surrogate import approx_sign, clip, sign_ste


def clamped(grad: Tensor, v: Tensor, q: Tensor) -> Tensor:
    """The gradient of a clamp at ``+-q``."""
    return clip(grad, v / q)


class TauSchedule(Schedule):
    """``tau = first + (last - first) * (e^progress - 1) / (e - 1)``."""

    tau: Tensor

    def __init__(self, first: float, last: float) -> None:
        super().__init__()
        if not 0.5 < first <= last < 1:
            raise ValueError(f"ReCU needs 0.5 < tau_min <= tau_max < 1, got {first} and {last}")
        self.first, self.last = first, last
        self.register_buffer("tau", torch.tensor(float(first)))

    def set_progress(self, progress: float) -> None:
        """Raise the quantile."""
        share = math.expm1(progress) / math.expm1(1)
        self.tau.fill_(self.first + (self.last - self.first) * share)


class ReCUWeight(Side):
    """Signs of the centred weights; those beyond the quantile get no gradient."""

    def __init__(self, shape: Sequence[int], tau_min: float, tau_max: float) -> None:
        super().__init__()
        self.schedule = TauSchedule(tau_min, tau_max)

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        centred = weight - weight.mean(dim=per_filter(weight), keepdim=True)
        v = centred * (2 * math.sqrt(2)) / spread(centred)
        q = -v.detach().abs().mean() * torch.log(2 - 2 * self.schedule.tau)
        return sign_ste(v, clamped, q)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x - x.mean(dim=per_filter(x), keepdim=True))


class ReCUActivation(Side):
    """``sign(x)``; ``detached`` keeps the std of a sample out of the gradient."""

    symmetric = True

    def __init__(self, channels: int, detached: bool = False) -> None:
        super().__init__()
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x`` (N, ...), same shape."""
        if self.training:
            std = spread(x)
            x = x / (std.detach() if self.detached else std)
        return sign_ste(x, approx_sign)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
