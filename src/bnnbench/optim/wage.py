"""WAGE's integer updates (arXiv 1802.04680; code boluoweifenda/WAGE), and Adam for what is real."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnnbench.optim.latent import LatentAdam
from bnnbench.quantizers.wage import normalised


class WAGE(LatentAdam):
    """``w <- w - Bernoulli(lr * g / Shift(max|g|)) / S(k)`` on the groups with ``latent: True``.

    Bernoulli rounds at random to one of the two nearest integers, with that as its mean: updates
    are whole steps of the grid of k bits, the group's ``gradient_bits``. lr is in such steps.
    ``after_step`` of the weight side clips.
    """

    def update(self, weight: Tensor, group: dict[str, Any]) -> None:
        """Whole steps of ``2^(1 - k)``."""
        assert weight.grad is not None
        wanted = group["lr"] * normalised(weight.grad)
        steps = wanted.floor().add_(torch.rand_like(wanted) < wanted - wanted.floor())
        weight.sub_(steps, alpha=2.0 ** (1 - group["gradient_bits"]))
