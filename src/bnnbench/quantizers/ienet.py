"""IE-Net: information-enhanced binary neural networks (Ding et al., Electronics 11(6):937, 2022).

Code: Alexrich961210/IE-Net, followed here (no arXiv version). Weights: signs of each standardised
filter, ``v = (w - E w) / std(w)``, inside the gradient. Activations have two bases, one binary
convolution of both: ``sign(x + s1) + c sign(x + s2)``, s1 and s2 learned per channel, c per layer;
in training each shifted map is divided by the std of its sample, inside the gradient. Its own
estimator: ``g * max(0, k (sqrt(3) t - 1.5 t^2 |x|))``, t log-linear from 0.01 to 10 and
``k = max(1/t, 1)``; of activations k = 1 and ``max(t, 1)``. One learned scale an output channel.
std: unbiased, ``sqrt(var + 1e-5)``. Changed: t and k are buffers; one c a layer, as in the authors'
CIFAR ResNet-18 and VGG, while their other nets have one an output channel; sign(0) = +1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, EDESchedule, Side, per_filter, scaled_sign
from bnnbench.quantizers.standardise import spread, unit_spread
from bnnbench.quantizers.surrogate import sign, sign_ste


def iee(grad: Tensor, x: Tensor, k: Tensor, t: Tensor) -> Tensor:
    """Information-enhanced estimator: ``grad * k * max(0, sqrt(3) t - 1.5 t^2 |x|)``."""
    slope = x.abs().mul_(-1.5 * t.square()).add_(math.sqrt(3) * t).clamp_(min=0)
    return slope.mul_(k).mul_(grad)


class IENetWeight(Side):
    """Signs of the centred weights."""

    def __init__(self, shape: Sequence[int], t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return sign_ste(unit_spread(weight), iee, self.schedule.k, self.schedule.t)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x - x.mean(dim=per_filter(x), keepdim=True))


class IENetActivation(Side):
    """``sign(x + s1) + c * sign(x + s2)``; s1 and s2 start at 0, c in [0, 0.001)."""

    bases = 2
    symmetric = True

    def __init__(self, channels: int, t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)
        self.shifts = nn.Parameter(torch.zeros(2, channels))
        self.c = nn.Parameter(0.001 * torch.rand(()))

    def _shifted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) if x.dim() == 2 else (-1, 1, 1)
        return x + self.shifts[0].view(shape), x + self.shifts[1].view(shape)

    def _sign(self, x: Tensor) -> Tensor:
        x = x / spread(x) if self.training else x
        t = self.schedule.t
        return sign_ste(x, iee, torch.ones_like(t), t.clamp(min=1))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both bases, four values; same shape as ``x`` (N, C) or (N, C, H, W)."""
        first, second = self._shifted(x)
        return self._sign(first) + self.c * self._sign(second)

    def decompose(self, x: Tensor) -> Decomposition:
        """The first base is the code, the second is in the scale."""
        first, second = (sign(shifted.detach()) for shifted in self._shifted(x))
        return Decomposition(1 + self.c.detach() * first * second, first, torch.zeros_like(self.c))
