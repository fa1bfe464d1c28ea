"""The extragradient method (Korpelevich, 1976), the continuous step of arXiv 1707.09870."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import optim


class Extragradient(optim.Optimizer):
    """``w_p = w - lr g(w)``, then ``w <- w - lr g(w_p)``: two gradients of one batch a step.

    A step needs a closure that evaluates the loss and its gradients, as Lightning gives it; the
    learning rate and the batch are the same for both.

    Args:
        params: parameters or groups.
        lr: learning rate.
        weight_decay: L2, part of both gradients.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore
        """One step; returns the loss at ``w``. Raises ValueError without a closure."""
        if closure is None:
            raise ValueError("an extragradient step evaluates the loss twice: pass a closure")
        with torch.enable_grad():
            loss = closure()
        starts = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]
        self._descend(starts)
        with torch.enable_grad():
            closure()
        self._descend(starts)
        return loss

    @torch.no_grad()
    def _descend(self, starts: list[list[torch.Tensor]]) -> None:
        """Each parameter to its start less lr times its gradient, taken where it stands."""
        for group, begun in zip(self.param_groups, starts, strict=True):
            for p, start in zip(group["params"], begun, strict=True):
                if p.grad is not None:
                    gradient = p.grad.add(p, alpha=group["weight_decay"])
                    torch.add(start, gradient, alpha=-group["lr"], out=p)
