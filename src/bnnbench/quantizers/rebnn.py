"""ReBNN: resilient binary neural network (Xu et al., AAAI 2023, arXiv 2302.00956).

Code: SteveTsui/ReBNN. Weights ``w_b = 0.02 |alpha| sign(w)``, alpha learned per filter from a start
at N(0, 1). The backward adds the gradient of a reconstruction loss ``gamma / 2 ||w - w_b||^2``,
sign(w) constant, that no logged loss contains: ``dw = |alpha| g + gamma (w - w_b)``, ``d|alpha| =
sum(g w) - gamma sum((w - w_b) 0.02 sign(w))``. gamma, per filter, is the share of signs that the
last step flipped times ``max|g|``, within [1e-5, 2e-4]. Activations and block are ReActNet's.
Changed: flips are counted between the weights before and after the step, as in the group's book
"Binary Neural Networks" (2023, Eq. 3.150); the code takes w less its raw gradient for the weights
before, and its bounds, as written, give 2e-4 always. The book's clip of the gradient at |w| = 1 is
neither in the code nor here. With accumulated gradients the loss counts once a backward. The first
step's flips are not seen. sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, per_filter, scaled_sign
from bnnbench.quantizers.surrogate import sign

UNIT = 0.02
BOUNDS = (1e-5, 2e-4)


class _Resilient(torch.autograd.Function):
    """``0.02 * alpha * sign(w)`` whose backward holds the reconstruction loss."""

    @staticmethod
    def forward(ctx, weight: Tensor, alpha: Tensor, flips: Tensor) -> Tensor:
        ctx.save_for_backward(weight, alpha, flips)
        return UNIT * alpha * sign(weight)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, alpha, flips = ctx.saved_tensors
        axes = per_filter(weight)
        gamma = (flips * grad.abs().amax(dim=axes, keepdim=True)).clamp(*BOUNDS)
        unit = UNIT * sign(weight)
        error = gamma * (weight - alpha * unit)
        to_alpha = (grad * weight - error * unit).sum(dim=axes, keepdim=True)
        return grad * alpha + error, to_alpha, None


class ReBNNWeight(Side):
    """``0.02 * |alpha| * sign(w)`` per filter."""

    signs: Tensor
    flips: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(shape[0], *(1,) * (len(shape) - 1)))
        # signs after the last step (0: none yet), and the share that it flipped, per filter
        self.register_buffer("signs", torch.zeros(tuple(shape), dtype=torch.int8))
        self.register_buffer("flips", torch.zeros_like(self.alpha.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        return _Resilient.apply(  # pyright: ignore[reportReturnType]
            weight, self.alpha.abs(), self.flips
        )

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, UNIT * self.alpha.abs())

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Count the signs that the step flipped."""
        signs = sign(weight).to(self.signs.dtype)
        flipped = (signs * self.signs).eq(-1).to(weight.dtype)
        self.flips.copy_(flipped.mean(dim=per_filter(weight), keepdim=True))
        self.signs.copy_(signs)
