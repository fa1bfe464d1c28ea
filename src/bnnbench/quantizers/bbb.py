"""Bayes by Backprop (Blundell et al., ICML 2015, arXiv 1505.05424).

Weights have the posterior N(m, s^2), ``s = log(1 + exp(rho))``; m is the latent weight. Training
draws ``w = m + s * eps``, eps ~ N(0, 1), once a step from torch's generator (Sec. 3.2); evaluation
uses m. Weights and activations are real. The KL term is ``loss=bbb``; without it s shrinks to 0.
Changed: biases, batch norm, first and last layer are not random (the paper's networks are fully
connected and have none of these but biases); the start of rho is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.quantizers.base import Side


class BBBWeight(Side):
    """A sample of N(m, softplus(rho)^2) in training, m in evaluation."""

    bits = 32
    training_only = ("rho",)

    def __init__(self, shape: Sequence[int], rho: float) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.full(tuple(shape), float(rho)))

    def sigma(self) -> Tensor:
        """Standard deviations, shape of the weight."""
        return F.softplus(self.rho)

    def forward(self, weight: Tensor) -> Tensor:
        """Weights, same shape as the means ``weight``."""
        if not self.training:
            return weight
        return weight + self.sigma() * torch.randn_like(weight)
