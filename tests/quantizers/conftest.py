"""Inputs in float64 and one backward pass; the closed forms stand in the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Gradient = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.fixture
def weight() -> Tensor:
    """Latent weights (6, 4, 3, 3), some beyond [-1, 1]."""
    return 0.8 * torch.randn(6, 4, 3, 3, dtype=torch.float64, generator=_generator(0)) + 0.05


@pytest.fixture
def x() -> Tensor:
    """A map (3, 4, 5, 5) with values inside, at and outside the windows, and both zeros."""
    values = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=_generator(1))
    values.view(-1)[:6] = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, 2.5], dtype=torch.float64)
    return values


@pytest.fixture
def upstream() -> Callable[[Tensor], Tensor]:
    """A gradient for a tensor's shape."""
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=_generator(2))


@pytest.fixture
def gradient() -> Gradient:
    """Value of ``function`` at ``x`` and the gradient that ``g`` leaves there."""

    def run(function: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        value.backward(g)
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    return run


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
