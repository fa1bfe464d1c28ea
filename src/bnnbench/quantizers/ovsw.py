"""OvSW: overcoming silent weights (Xiang et al., ECCV 2024, arXiv 2407.05257).

Code: JingyangXiang/OvSW. Weights ``E|v| sign(w)`` per filter, v the standardised filter; the scale
has no gradient, the sign is straight-through: ``G = E|v| g``. Two changes of that gradient, per
filter and per weight: adaptive gradient scaling, ``G <- G max(1, delta ||w|| / ||G||)`` with the
norms at least 1e-3 and 1e-6, then silence awareness decaying, ``G <- G + decay * w`` for weights
whose flip state is below 1e-4, a moving average (0.999) of the flips of their sign. Activations as
in ReCU, the std of the sample without gradient. std: unbiased, ``sqrt(var + 1e-5)``. Changed:
sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, mean_magnitude, per_filter, scaled_sign
from bnnbench.quantizers.standardise import spread
from bnnbench.quantizers.surrogate import identity, sign, sign_ste

MOMENTUM, SILENT = 0.999, 1e-4


def standardized_magnitude(weight: Tensor) -> Tensor:
    """``E|v|`` of each standardised filter, without gradient, shape ``(out, 1, ...)``."""
    weight = weight.detach()
    centred = weight - weight.mean(dim=per_filter(weight), keepdim=True)
    return mean_magnitude(centred) / spread(centred)


class OvSWWeight(Side):
    """``E|v| * sign(w)`` per filter."""

    signs: Tensor
    flips: Tensor

    def __init__(self, shape: Sequence[int], delta: float, decay: float) -> None:
        super().__init__()
        self.delta, self.decay = delta, decay
        self.register_buffer("signs", torch.zeros(tuple(shape), dtype=torch.int8))  # 0: no step yet
        self.register_buffer("flips", torch.zeros(tuple(shape)))
        self._seen = False  # the signs before the first step of this process

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return standardized_magnitude(weight) * sign_ste(weight, identity)

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, standardized_magnitude(x))

    @torch.no_grad()
    def after_backward(self, weight: Tensor) -> None:
        """Scale the gradient of each filter, and decay silent weights."""
        if not self._seen:  # afterwards they are those after the step before
            self.signs.copy_(sign(weight))
            self._seen = True
        grad = weight.grad
        if grad is None:
            return
        norms = [z.square().sum(per_filter(z), keepdim=True).sqrt() for z in (weight, grad)]
        factor = self.delta * norms[0].clamp(min=1e-3) / norms[1].clamp(min=1e-6)
        silent = self.flips.lt(SILENT).to(weight.dtype)
        grad.mul_(factor.clamp(min=1)).add_(self.decay * silent * weight)

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Average the flips of the step."""
        signs = sign(weight).to(self.signs.dtype)
        flipped = (signs * self.signs).eq(-1).to(self.flips.dtype)
        self.flips.lerp_(flipped, 1 - MOMENTUM)
        self.signs.copy_(signs)
