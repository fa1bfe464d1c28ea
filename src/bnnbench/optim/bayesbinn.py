"""The BayesBiNN optimizer (Meng et al., ICML 2020, arXiv 2002.10778), and Adam for what is real.

Latent weights lam of binarized layers follow the Bayesian learning rule; ``quantizer=bayesbinn``
puts ``s * g / N_eff`` into their ``.grad``. Groups with ``latent: False`` are Adam's. Changed: the
authors have one group, every parameter of the network; here batch norm and real layers exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bnnbench.optim.latent import LatentAdam


class BayesBiNN(LatentAdam):
    """``lam <- (1 - lr) lam - lr (N_eff * grad - prior)`` on the groups with ``latent: True``.

    N_eff, the number of training images times the weight of the likelihood, is the group's
    ``effective_size``.

    Args:
        params: groups; ``latent`` says which of the two rules a group follows.
        lr: step a of the natural parameter, and Adam's learning rate.
        weight_decay: that of Adam's groups; lam decays towards the prior by itself.
        prior: natural parameter lam_0 of the prior; 0 is both signs alike.

    Raises:
        ValueError: an ``effective_size`` below 0.
    """

    setting, recipe = "effective_size", "bayesbinn"

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        prior: float = 0.0,
    ) -> None:
        self.prior = prior
        super().__init__(params, lr, weight_decay)
        for size in (group["effective_size"] for group in self.param_groups if group["latent"]):
            if size < 0:
                raise ValueError(f"effective_size={size} must not be negative")

    def update(self, weight: Tensor, group: dict[str, Any]) -> None:
        """Towards the prior, and down the gradient."""
        assert weight.grad is not None
        weight.lerp_(torch.full_like(weight, self.prior), group["lr"])
        weight.sub_(weight.grad, alpha=group["lr"] * group["effective_size"])
