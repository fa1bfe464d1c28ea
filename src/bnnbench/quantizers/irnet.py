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
    per_filter,
    scaled_sign,
)
from bnnbench.quantizers.parts import column, in_parts, moments, parts, to_signs
from bnnbench.quantizers.standardise import EPS, unit_std
from bnnbench.quantizers.surrogate import ede, sign_ste


def power_of_two_scale(v: Tensor) -> Tensor:
    """``2^round(log2 E|v|)`` per filter, without gradient (Eq. 7)."""
    return torch.exp2(torch.log2(mean_magnitude(v.detach()) + EPS).round())


class _Libra(torch.autograd.Function):
    """``IRNetWeight._plain`` in parts: its value and, operation by operation, its gradient.

    ``again`` is None, or the weight once more: that input gets what comes through the mean.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, again: Tensor | None, k: Tensor, t: Tensor) -> Tensor:
        value, std, scale = torch.empty_like(weight), column(weight), column(weight)
        for w, out, s, a in parts(weight, value, std, scale):
            centred = w - w.mean(dim=per_filter(w), keepdim=True)
            s.copy_(moments(centred, correction=1)[0].sqrt_())
            a.copy_(power_of_two_scale(torch.div(centred, s + EPS, out=out)))
            to_signs(out).mul_(a)
        ctx.save_for_backward(weight, std, scale, k, t)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, std, scale, k, t = ctx.saved_tensors
        grad_weight, axes, count = torch.empty_like(weight), per_filter(weight), weight[0].numel()
        grad_again = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        slope = k * t

        def total(x: Tensor) -> Tensor:
            return x.sum(dim=axes, keepdim=True)

        rest = grad_weight if grad_again is None else grad_again
        for w, g, out, more, s, a in parts(weight, grad, grad_weight, rest, std, scale):
            centred, divisor = w - w.mean(dim=axes, keepdim=True), s + EPS
            v = centred / divisor
            through = torch.mul(v, t, out=out).tanh_().square_().neg_().add_(1)
            through.mul_(g * a).mul_(slope)
            grad_std = -total(v.div_(divisor).mul_(through))
            factor = (grad_std / (s * 2)).masked_fill_(s == 0, 0).mul_(2 / (count - 1))
            centred.sub_(centred.mean(dim=axes, keepdim=True)).mul_(factor)
            through.div_(divisor).add_(centred)
            mean = total(through).neg_().div_(count)
            through.add_(mean) if grad_again is None else more.copy_(mean.expand_as(more))
        return grad_weight, grad_again, None, None


class IRNetWeight(Side):
    """Libra parameter binarization."""

    def __init__(self, shape: Sequence[int], t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        if in_parts(weight):
            again = weight if self.has_readers else None
            return _Libra.apply(  # pyright: ignore[reportReturnType]
                weight, again, self.schedule.k, self.schedule.t
            )
        return self._plain(weight)

    def _plain(self, weight: Tensor) -> Tensor:
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
