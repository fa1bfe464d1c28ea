"""A second network that the first learns from: trained before and frozen, or trained with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrozenTeacher:
    """Evaluates ``net`` without gradient.

    No module: nothing trains it, puts its batch norms into training mode or stores it once more.
    """

    joint = False

    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        return self.net(images)


class JointTeacher(nn.Module):
    """Trains ``net`` beside the student; gradients of shared terms reach both."""

    joint = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        return self.net(images)


Teacher = FrozenTeacher | JointTeacher
