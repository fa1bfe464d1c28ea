"""KL terms of Bayes by Backprop (Blundell et al., ICML 2015, arXiv 1505.05424).

The posterior of a weight is N(m, s^2). Its entropy has a closed form; the prior's mixture has not
and is sampled, as all of the KL is in the paper (Eq. 2): the expectation is the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PRIORS = ("scale_mixture", "location_mixture")


def log_normal(x: Tensor, mean: float, sigma: float) -> Tensor:
    """Log density of N(mean, sigma^2) at ``x``, elementwise."""
    return -((x - mean) / sigma).square() / 2 - math.log(sigma) - math.log(2 * math.pi) / 2


def scale_mixture(x: Tensor, pi: float, sigma1: float, sigma2: float) -> Tensor:
    """Log density of ``pi N(0, sigma1^2) + (1 - pi) N(0, sigma2^2)`` (Eq. 7), elementwise."""
    if pi == 1:
        return log_normal(x, 0, sigma1)
    parts = math.log(pi) + log_normal(x, 0, sigma1), math.log(1 - pi) + log_normal(x, 0, sigma2)
    return torch.logaddexp(*parts)


def location_mixture(x: Tensor, mu: float, sigma: float) -> Tensor:
    """Log density of ``(N(-mu, sigma^2) + N(+mu, sigma^2)) / 2``, elementwise: BONN's prior."""
    return torch.logaddexp(log_normal(x, mu, sigma), log_normal(x, -mu, sigma)) - math.log(2)


def expected_log_posterior(sigma: Tensor) -> Tensor:
    """``E_q[log q]`` of independent N(m, sigma^2), minus the entropy; a scalar."""
    return -sigma.log().sum() - sigma.numel() * (math.log(2 * math.pi) + 1) / 2


def gaussian_kl(mean: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
    """``KL(N(mean, sigma^2) || N(0, prior_sigma^2))``, summed over all weights; a scalar."""
    ratio = (sigma / prior_sigma).square()
    return (((mean / prior_sigma).square() + ratio - 1 - ratio.log()) / 2).sum()
