"""WAGE's integer updates (arXiv 1802.04680; code boluoweifenda/WAGE), and Adam for what is real."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bnnbench.optim.latent import LatentAdam
from bnnbench.quantizers.wage import normalised


class WAGE(LatentAdam):
    """``w <- w - Bernoulli(lr * g / Shift(max|g|)) / S(k)`` on the groups with ``latent: True``.

    Bernoulli rounds at random to one of the two nearest integers, with that as its mean: updates
    are whole steps of the grid of k bits, the group's ``gradient_bits``. lr is in such steps.
    ``after_step`` of the weight side clips. The draws follow from the run's seed and the number of
    the update alone, so that all processes of a run round alike and a resumed one goes on.
    """

    setting, recipe = "gradient_bits", "native"

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, weight_decay)
        for group in self.param_groups:
            group["draws"] = torch.initial_seed()  # of the next update

    def update(self, weight: Tensor, group: dict[str, Any]) -> None:
        """Whole steps of ``2^(1 - k)``."""
        assert weight.grad is not None
        wanted = group["lr"] * normalised(weight.grad)
        generator = torch.Generator(weight.device).manual_seed(group["draws"])
        group["draws"] += 1
        chance = torch.rand(weight.shape, generator=generator, device=weight.device)
        steps = wanted.floor().add_(chance < wanted - wanted.floor())
        weight.sub_(steps, alpha=2.0 ** (1 - group["gradient_bits"]))
