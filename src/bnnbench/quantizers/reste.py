"""ReSTE: rectified straight-through estimator (Wu et al., ICCV 2023, arXiv 2308.06689).

Code: DravenALG/ReSTE. Weights ``E|w| * sign(w)`` with one scale a layer, whose gradient counts;
activations ``sign(x)``. Both signs have the slope of ``sign(x) |x|^(1/o)``: ``|x|^(1/o - 1) / o``
for 0.1 < |x| < 1.5, nothing beyond, and below 0.1 the secant of the power function over [0, 0.1],
``0.1^(1/o) / 0.1``. o grows from 1 (straight-through) to ``o_end`` as
``1 + (1 - cos(pi/2 * progress)) (o_end - 1)``. Equations as in the released code, the paper was not
read. Changed: o is a buffer, so that a resumed run continues with it; sign(0) = +1; both windows
are open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Schedule, Side, scaled_sign
from bnnbench.quantizers.surrogate import clip, sign_ste

INNER, OUTER = 0.1, 1.5  # the slope is constant within, and 0 outside


def power(grad: Tensor, x: Tensor, o: Tensor) -> Tensor:
    """``grad`` times the slope of the power function of exponent ``1 / o``."""
    exponent = 1 / o - 1
    slope = x.abs().clamp_(min=INNER).pow_(exponent).div_(o)
    secant = clip(grad, x / INNER) * (INNER**exponent * (1 - 1 / o))
    return clip(grad, x / OUTER).mul_(slope).add_(secant)


class PowerSchedule(Schedule):
    """The power o, from 1 to ``o_end``."""

    o: Tensor

    def __init__(self, o_end: float) -> None:
        super().__init__()
        if o_end < 1:
            raise ValueError(f"quantizer.o_end={o_end} must be 1 (straight-through) or above")
        self.o_end = o_end
        self.register_buffer("o", torch.ones(()))

    def set_progress(self, progress: float) -> None:
        """Raise the power, slowly at first."""
        self.o.fill_(1 + (1 - math.cos(math.pi / 2 * progress)) * (self.o_end - 1))


class ReSTEWeight(Side):
    """``E|w| * sign(w)``, one scale a layer."""

    def __init__(self, shape: Sequence[int], o_end: float) -> None:
        super().__init__()
        self.schedule = PowerSchedule(o_end)

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return weight.abs().mean() * sign_ste(weight, power, self.schedule.o)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, x.abs().mean())


class ReSTEActivation(Side):
    """``sign(x)`` with the power function's slope."""

    symmetric = True

    def __init__(self, channels: int, o_end: float) -> None:
        super().__init__()
        self.schedule = PowerSchedule(o_end)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of ``x``, same shape."""
        return sign_ste(x, power, self.schedule.o)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
