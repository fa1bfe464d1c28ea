"""Kurtosis of known distributions, and its gradient."""

import pytest
import torch

from bnnbench.losses.kurtosis import kurtosis


def test_known_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = 3 + 2 * torch.randn(400_000, generator=generator)
    uniform = torch.rand(400_000, generator=generator)
    points = torch.tensor([-1.0, 1.0]).repeat(200_000) + 5
    values = kurtosis(torch.stack([normal, uniform, points]))
    assert values.tolist() == pytest.approx([3.0, 1.8, 1.0], abs=0.03)


def test_gradient() -> None:
    rows = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(kurtosis, rows.requires_grad_())
