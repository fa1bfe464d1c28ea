"""IR-Net (Qin et al., CVPR 2020, arXiv 1909.10788); code htqin/IR-Net.

Weights (Libra-PB, Eqs. 4-7): each filter standardised, ``v = (w - E w) / std(w)`` (unbiased std,
inside the gradient), value ``2^round(log2 E|v|) * sign(v)`` with the scale detached. Activations
``sign(x)``. Both signs use the error decay estimator (Eq. 12), whose slope follows the training
progress. Changed: the slope is a buffer, so that a resumed run continues with it; sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import (
    Decomposition,
    EDESchedule,
    Side,
    mean_magnitude,
    scaled_sign,
)
from bnnbench.quantizers.standardise import EPS, unit_std
from bnnbench.quantizers.surrogate import ede, sign_ste


def power_of_two_scale(v: Tensor) -> Tensor:
    """``2^round(log2 E|v|)`` per filter, without gradient (Eq. 7)."""
    return torch.exp2(torch.log2(mean_magnitude(v.detach()) + EPS).round())


class IRNetWeight(Side):
    """Libra parameter binarization."""

    def __init__(self, shape: Sequence[int], t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        v = unit_std(weight)
        return power_of_two_scale(v) * sign_ste(v, ede, self.schedule.k, self.schedule.t)

    def decompose(self, x: Tensor) -> Decomposition:
        v = unit_std(x)
        return scaled_sign(v, power_of_two_scale(v))


class IRNetActivation(Side):
    """``sign(x)`` with the error decay estimator."""

    symmetric = True

    def __init__(self, channels: int, t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x``, same shape."""
        return sign_ste(x, ede, self.schedule.k, self.schedule.t)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
