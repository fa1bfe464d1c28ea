"""PCNN's and MCN's losses against their equations in the group's book and against BONN's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bnnbench
from bnnbench.losses.mcn import compactness_loss, filter_loss
from bnnbench.losses.projection import projection_loss


@pytest.fixture
def c() -> Tensor:
    """Latent kernels (4, 2, 3, 3)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=generator)


@pytest.fixture
def w() -> Tensor:
    """One projection's matrix (3, 3), of positive elements."""
    return 0.1 + torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_without_the_update_step_it_is_bonns_first_term(c: Tensor, w: Tensor) -> None:
    """Where both have one amplitude: BONN's is the mean of w, PCNN's E|C|."""
    amplitude = float(c.abs().mean())
    same = w * amplitude / w.mean()
    one = torch.ones(4, dtype=torch.float64)
    bonn = bnnbench.losses.bayesian_kernel_loss(c, one, one, same, nu=0.0)
    assert float(projection_loss(c, same)) == pytest.approx(float(bonn))


def test_gradients_are_equations_3_52_and_3_56(c: Tensor, w: Tensor) -> None:
    lam, shift = 0.3, 0.05 * torch.ones_like(c)
    leaf, matrix = c.clone().requires_grad_(), w.clone().requires_grad_()
    (lam / 2 * bnnbench.losses.projection_loss(leaf, matrix, shift)).backward()
    binary = c.abs().mean() * torch.sign(c)
    residual = w * (c + shift) - binary
    torch.testing.assert_close(leaf.grad, lam * residual * w)
    torch.testing.assert_close(matrix.grad, lam * (residual * (c + shift)).sum(dim=(0, 1)))


def test_projections_add_up(c: Tensor, w: Tensor) -> None:
    both = torch.stack([w, 2 * w]).view(2, 1, 1, 3, 3)
    parts = projection_loss(c, w) + projection_loss(c, 2 * w)
    torch.testing.assert_close(projection_loss(c, both), parts)


def test_filter_and_compactness_loss(c: Tensor) -> None:
    assert float(filter_loss(c, c + 0.5)) == pytest.approx(0.25 * c.numel())
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    centers = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    assert float(compactness_loss(features, torch.tensor([0, 1, 1]), centers)) == 4 + 1 + 18


def test_the_update_step_is_a_constant(c: Tensor, w: Tensor) -> None:
    shift = torch.full_like(c, 0.1).requires_grad_()
    projection_loss(c.clone().requires_grad_(), w, shift).backward()
    assert shift.grad is None
