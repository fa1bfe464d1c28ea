"""The BayesBiNN optimizer (Meng et al., ICML 2020, arXiv 2002.10778), and Adam for what is real.

Latent weights lam of binarized layers follow the Bayesian learning rule; ``quantizer=bayesbinn``
puts ``s * g / N_eff`` into their ``.grad``. Groups with ``latent: False`` are Adam's. Changed: the
authors have one group, every parameter of the network; here batch norm and real layers exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import optim


class BayesBiNN(optim.Adam):
    """``lam <- (1 - lr) lam - lr (N_eff * grad - prior)`` on the groups with ``latent: True``.

    Args:
        params: groups; ``latent`` says which of the two rules a group follows.
        lr: step a of the natural parameter, and Adam's learning rate.
        effective_size: N_eff, the number of training images times the weight of the likelihood.
        prior: natural parameter lam_0 of the prior; 0 is both signs alike.
        weight_decay: of Adam's groups; lam decays towards the prior by itself.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        effective_size: float,
        prior: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        if effective_size < 0:
            raise ValueError(f"effective_size={effective_size} must not be negative")
        self.effective_size, self.prior = effective_size, prior
        super().__init__(params, lr, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("latent", False)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both rules; ``closure`` evaluates the loss and its gradients again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        latent = [p for group in self.param_groups if group["latent"] for p in group["params"]]
        gradients = [p.grad for p in latent]
        self._learn_posterior()
        for p in latent:
            p.grad = None  # Adam passes by what has no gradient
        super().step()
        for p, gradient in zip(latent, gradients, strict=True):
            p.grad = gradient
        return loss

    @torch.no_grad()
    def _learn_posterior(self) -> None:
        for group in self.param_groups:
            if group["latent"]:
                for lam in (p for p in group["params"] if p.grad is not None):
                    lam.lerp_(torch.full_like(lam, self.prior), group["lr"])
                    lam.sub_(lam.grad, alpha=group["lr"] * self.effective_size)
