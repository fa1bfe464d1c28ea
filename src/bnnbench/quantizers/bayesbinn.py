"""BayesBiNN (Meng et al., ICML 2020, arXiv 2002.10778); code team-approx-bayes/BayesBiNN.

The latent weight is lam, the natural parameter of a Bernoulli distribution over {-1, +1}. Training
draws ``w = tanh((lam + d) / tau)``, ``d = log(u / (1 - u)) / 2``, once a step from torch's
generator; evaluation uses sign(lam). The gradient that reaches lam is
``g (1 - w^2 + 1e-10) / (tau (1 - tanh(lam)^2 + 1e-10))``, which the optimizer of
``recipe=bayesbinn`` multiplies by N_eff. Weights alone are binary. Changed: tanh(lam) is today's,
the authors' is one step old; one sample a step (their CIFAR scripts' number); first and last layer
and batch norm are real unless ``first=binary last=binary`` (the authors binarize everything);
sign(0) = +1, theirs is -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnbench.quantizers.base import Decomposition, Side, scaled_sign
from bnnbench.quantizers.surrogate import identity, sign_ste

GUARD = 1e-10


class _Relaxed(torch.autograd.Function):
    """``tanh((lam + noise) / tau)`` with the guarded gradient."""

    @staticmethod
    def forward(ctx, lam: Tensor, noise: Tensor, temperature: float) -> Tensor:
        value = torch.tanh((lam + noise) / temperature)
        ctx.save_for_backward(lam, value)
        ctx.temperature = temperature
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        lam, value = ctx.saved_tensors
        # / tau before the other factor: their product underflows in single precision
        slope = (1 - value.square() + GUARD) / ctx.temperature
        return grad * slope / (1 - torch.tanh(lam).square() + GUARD), None, None


class BayesBiNNWeight(Side):
    """A relaxed sample of the posterior in training, its most probable weight in evaluation.

    Attributes:
        optimizer: the only one that trains it: others leave it at chance.
    """

    optimizer = "bayesbinn"

    def __init__(self, shape: Sequence[int], temperature: float) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"quantizer.temperature={temperature} must be above 0")
        self.temperature = temperature

    def forward(self, weight: Tensor) -> Tensor:
        """Weights in [-1, 1], -1 or +1 in evaluation; same shape as lam, ``weight``."""
        if not self.training:
            return sign_ste(weight, identity)
        noise = torch.logit(torch.rand_like(weight)) / 2
        return _Relaxed.apply(  # pyright: ignore[reportReturnType]
            weight, noise, self.temperature
        )

    def decompose(self, x: Tensor) -> Decomposition:
        return scaled_sign(x)
