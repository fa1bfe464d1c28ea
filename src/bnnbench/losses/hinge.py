"""Squared hinge loss, the loss of BinaryNet (arXiv 1602.02830, Sec. 2.1) and BinaryConnect."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SquaredHinge(nn.Module):
    """``max(0, 1 - t z)^2`` of logits z, t +1 for the label's class and -1 for the others.

    The mean over samples and classes, as in the authors' code. Of mixed images it is the mean over
    their labels, each by its share.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) and labels (N,), or shares (N, classes), to a scalar."""
        if labels.dim() == 2:
            own, other = F.relu(1 - logits).square(), F.relu(1 + logits).square()
            return (labels * own + (1 - labels) * other).mean()
        targets = 2 * F.one_hot(labels, logits.shape[1]) - 1
        return F.relu(1 - targets * logits).square().mean()
