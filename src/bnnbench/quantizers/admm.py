"""ADMM: "Extremely Low Bit Neural Network" (Leng et al., AAAI 2018, arXiv 1707.09870).

Weights alone. Training minimises ``f(W)`` subject to ``W = G``, G in ``alpha * levels`` per layer,
by the augmented Lagrangian ``f(W) + rho/2 ||W - G + L||^2`` (L: scaled dual variable): the forward
of training has the real W, no estimator anywhere, and the penalty's gradient joins the loss's
before each step. Between epochs ``G <- projection of W + L``, then ``L <- L + W - G``. Evaluation
has G. The paper's continuous step is ``recipe.optimizer=extragradient``. There is no public code;
the equations were read in texts that cite the paper. Ours: rho grows log-linearly over the run, and
L is scaled with it, so that short runs end in the set; the projection is the exact one (the paper
alternates between alpha and the levels); with ``projected`` the weights stand at G, and all others
are trained on. ``recipe=native`` is both in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Schedule, Side, scaled_sign
from bnnbench.quantizers.surrogate import sign

LEVELS = {"binary": (1,), "ternary": (0, 1), "two": (0, 1, 2), "four": (0, 1, 2, 4)}
BITS = {"binary": 1, "ternary": 2, "two": 3, "four": 3}


def project(v: Tensor, levels: Sequence[int]) -> Tensor:
    """The nearest ``alpha * q`` to ``v``, ``|q|`` among the rising ``levels``; same shape.

    As alpha falls from infinity, ``|q|`` of each element rises by a level wherever ``|v| / alpha``
    passes the middle of two. The error of the best alpha, ``|v|^2 - <v, q>^2 / <q, q>``, changes
    only there, so the least of all these is the global one.
    """
    size = v.detach().abs().flatten()
    low, high = size.new_tensor(levels[:-1]), size.new_tensor(levels[1:])
    events = (size.unsqueeze(1) * (2 / (low + high))).flatten()
    order = events.argsort(descending=True)
    along = (size.unsqueeze(1) * (high - low)).flatten()[order].cumsum(0)
    squares = (high.square() - low.square()).repeat(len(size))[order].cumsum(0)
    # before the first event every element stands at the lowest level
    along = torch.cat([along.new_zeros(1), along]) + levels[0] * size.sum()
    squares = torch.cat([squares.new_zeros(1), squares]) + levels[0] ** 2 * len(size)
    gain = along.square() / squares.clamp(min=1)
    best = gain.argmax()
    alpha = along[best] / squares[best].clamp(min=1)
    middles = (low + high) / 2
    unit = v.detach().abs() / alpha.clamp(min=1e-30)
    which = torch.bucketize(unit.contiguous(), middles, right=True)
    return alpha * size.new_tensor(levels)[which] * sign(v.detach())


class PenaltySchedule(Schedule):
    """``rho = start * (end / start) ** progress``."""

    rho: Tensor

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end
        self.register_buffer("rho", torch.tensor(start))

    def set_progress(self, progress: float) -> None:
        """A stronger penalty."""
        self.rho.fill_(self.start * (self.end / self.start) ** progress)


class ADMMWeight(Side):
    """The real weight in training, its projection in evaluation.

    Args:
        shape: the weight's.
        levels: a key of ``LEVELS``: the magnitudes that weights of a layer have over its alpha.
        rho_start, rho_end: weight of the penalty at the start and the end of the run.
        projected: the weights are G, in training as well, and are not trained.
    """

    g: Tensor
    dual: Tensor
    rho: Tensor  # of the last round; 0 before the first

    def __init__(
        self,
        shape: Sequence[int],
        levels: str,
        rho_start: float,
        rho_end: float,
        projected: bool,
    ) -> None:
        super().__init__()
        if levels not in LEVELS or not 0 < rho_start <= rho_end:
            raise ValueError(
                f"quantizer: levels must be one of {tuple(LEVELS)} and 0 < rho_start <= rho_end; "
                f"got {levels}, {rho_start}, {rho_end}"
            )
        self.levels, self.bits, self.projected = LEVELS[levels], BITS[levels], projected
        self.schedule = PenaltySchedule(rho_start, rho_end)
        self.register_buffer("g", torch.zeros(*shape))
        self.register_buffer("dual", torch.zeros(*shape))
        self.register_buffer("rho", torch.tensor(0.0))

    def forward(self, weight: Tensor) -> Tensor:
        """``weight`` itself in training, else the projection G; same shape."""
        if self.projected and self.training:
            return weight.detach()
        return weight if self.training else project(weight + self.dual, self.levels)

    @torch.no_grad()
    def epoch_start(self, weight: Tensor) -> None:
        """G-step, and from the second round on the step of the dual variable."""
        self.g.copy_(project(weight + self.dual, self.levels))
        if self.projected:
            weight.copy_(self.g)
            self.dual.zero_()
            return
        if self.rho > 0:
            self.dual.add_(weight - self.g).mul_(self.rho / self.schedule.rho)
        self.rho.copy_(self.schedule.rho)

    @torch.no_grad()
    def after_backward(self, weight: Tensor) -> None:
        """Add the penalty's gradient ``rho (W - G + L)``."""
        if weight.grad is not None:
            weight.grad.add_(self.rho * (weight - self.g + self.dual))

    def residual(self, weight: Tensor) -> Tensor:
        """``||W - G|| / ||W||``, how far the constraint is from being met."""
        return (weight.detach() - self.g).norm() / weight.detach().norm()

    def decompose(self, x: Tensor) -> Decomposition:
        if self.bits != 1:
            return super().decompose(x)
        v = x.detach() + self.dual
        return scaled_sign(v, v.abs().mean())
