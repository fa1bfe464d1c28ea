"""KL terms of Bayes by Backprop: closed forms, torch's distributions, Monte Carlo."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal, kl_divergence

from bnnbench.losses import variational

MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
SIGMA = torch.tensor([0.5, 0.1], dtype=torch.float64)


def mixture(weights: list[float], means: list[float], sigmas: list[float]) -> MixtureSameFamily:
    parts = Normal(torch.tensor(means).double(), torch.tensor(sigmas).double())
    return MixtureSameFamily(Categorical(torch.tensor(weights).double()), parts)


def test_no_divergence_from_the_same_gaussian() -> None:
    sigma = torch.full((4,), 0.7, dtype=torch.float64)
    assert float(variational.gaussian_kl(torch.zeros(4), sigma, 0.7)) == pytest.approx(0)


def test_gaussian_kl_is_torchs() -> None:
    expected = kl_divergence(Normal(MEAN, SIGMA), Normal(0.0, 0.8)).sum()
    torch.testing.assert_close(variational.gaussian_kl(MEAN, SIGMA, 0.8), expected)


def test_mixture_densities_are_torchs() -> None:
    x = torch.linspace(-2, 2, 11, dtype=torch.float64)
    scale = mixture([0.3, 0.7], [0.0, 0.0], [1.0, 0.05]).log_prob(x)
    torch.testing.assert_close(variational.scale_mixture(x, 0.3, 1.0, 0.05), scale)
    location = mixture([0.5, 0.5], [0.4, -0.4], [0.2, 0.2]).log_prob(x)
    torch.testing.assert_close(variational.location_mixture(x, 0.4, 0.2), location)


def test_entropy_by_monte_carlo_and_by_torch() -> None:
    expected = -Normal(MEAN, SIGMA).entropy().sum()
    torch.testing.assert_close(variational.expected_log_posterior(SIGMA), expected)


def test_sampled_kl_agrees_with_the_closed_form() -> None:
    torch.manual_seed(0)
    sample = MEAN + SIGMA * torch.randn(100_000, 2, dtype=torch.float64)
    log_prior = variational.scale_mixture(sample, 1.0, 0.8, 1.0).sum(dim=1)
    sampled = variational.expected_log_posterior(SIGMA) - log_prior.mean()
    closed = float(variational.gaussian_kl(MEAN, SIGMA, 0.8))
    assert float(sampled) == pytest.approx(closed, abs=0.01)
    assert math.isfinite(closed)
