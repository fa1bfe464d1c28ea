"""RBONN: recurrent bilinear optimization (Xu et al., ECCV 2022, arXiv 2209.01542).

Code: SteveTsui/RBONN; equations: the group's book "Binary Neural Networks" (2023). Weights
``w_b = 0.02 |alpha| sign(w)``, alpha learned per filter from a start at N(0, 1). The backward adds
the gradient of the bilinear constraint (Eq. 3.122), ``1e-4 / 2 ||w - w_b||^2`` with sign(w)
constant, that no logged loss contains: ``dw = |alpha| g + 1e-4 (w - w_b)``, ``d|alpha| = sum(g w) -
1e-4 sum((w - w_b) 0.02 sign(w))``. In training the filters whose |alpha| is among the smallest 40 %
(Eqs. 3.133, 3.134 with A = 1 / alpha) are backtracked: w is first replaced by ``w - u w'``, w' the
gradient of the last step, u learned per filter from 0.2 (Eq. 3.131). Activations and block are
ReActNet's. Changed: filters are picked by the rank of their scale, as in the book; the code uses
the sorting index in its place. As in the code, w' is the last gradient, where the book has the last
weight, and the norm of a filter does not count. With accumulated gradients the constraint counts
once a backward. sign(0) = +1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, Side, per_filter, scaled_sign
from bnnbench.quantizers.surrogate import sign

UNIT = 0.02
BALANCE = 1e-4


class _Bilinear(torch.autograd.Function):
    """``0.02 * alpha * sign(w)`` whose backward holds the bilinear constraint."""

    @staticmethod
    def forward(ctx, weight: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(weight, alpha)
        return UNIT * alpha * sign(weight)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, alpha = ctx.saved_tensors
        unit = UNIT * sign(weight)
        error = BALANCE * (weight - alpha * unit)
        to_alpha = (grad * weight - error * unit).sum(dim=per_filter(weight), keepdim=True)
        return grad * alpha + error, to_alpha


class RBONNWeight(Side):
    """``0.02 * |alpha| * sign(w)`` per filter, in training of backtracked weights."""

    training_only = ("u",)

    previous: Tensor

    def __init__(self, shape: Sequence[int], threshold: float) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"quantizer.threshold={threshold} must be within 0 and 1")
        self.backtracked = int(shape[0] * (1 - threshold))
        per_channel = (shape[0], *(1,) * (len(shape) - 1))
        self.alpha = nn.Parameter(torch.randn(per_channel))
        self.u = nn.Parameter(torch.full(per_channel, 0.2))
        self.register_buffer("previous", torch.zeros(tuple(shape)))  # the last step's gradient

    def _backtracked(self, weight: Tensor) -> Tensor:
        ranks = self.alpha.detach().abs().flatten().argsort().argsort()
        chosen = ranks.lt(self.backtracked).to(weight.dtype).view_as(self.u)
        return weight - self.u * chosen * self.previous

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        latent = self._backtracked(weight) if self.training else weight
        return _Bilinear.apply(latent, self.alpha.abs())  # pyright: ignore[reportReturnType]

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x, UNIT * self.alpha.abs())

    @torch.no_grad()
    def after_step(self, weight: Tensor) -> None:
        """Keep the gradient for the next step."""
        if weight.grad is not None:
            self.previous.copy_(weight.grad)
