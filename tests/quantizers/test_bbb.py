"""Bayes by Backprop's weight samples (arXiv 1505.05424)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnnbench.quantizers.bbb import BBBWeight


def test_moments_of_the_samples() -> None:
    torch.manual_seed(0)
    side = BBBWeight((50_000, 2), rho=0.3)
    means = torch.tensor([1.0, -2.0]).expand(50_000, 2)
    samples = side(means).detach()
    sigma = float(torch.log1p(torch.exp(torch.tensor(0.3))))
    assert samples.mean(0).tolist() == pytest.approx([1.0, -2.0], abs=0.02)
    assert samples.std(0).tolist() == pytest.approx([sigma, sigma], rel=0.02)


def test_evaluation_uses_the_means(weight: Tensor) -> None:
    side = BBBWeight(weight.shape, rho=-5.0).double().eval()
    assert torch.equal(side(weight), weight)


def test_reparameterised_gradients(weight: Tensor, upstream) -> None:
    """dm = g and drho = g eps sigmoid(rho)."""
    side, g = BBBWeight(weight.shape, rho=-1.0).double(), upstream(weight)
    leaf = weight.clone().requires_grad_()
    torch.manual_seed(0)
    side(leaf).backward(g)
    torch.manual_seed(0)
    noise = torch.randn_like(weight)
    torch.testing.assert_close(leaf.grad, g)
    torch.testing.assert_close(side.rho.grad, g * noise * torch.sigmoid(side.rho.detach()))
