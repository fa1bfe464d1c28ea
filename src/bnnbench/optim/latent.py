"""Optimizers with a rule of their own for latent weights, and Adam for all that is real."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, optim


class LatentAdam(optim.Adam):
    """``update`` on the groups with ``latent: True``, Adam on the others.

    Attributes:
        setting: what it needs to know of the latent role beside the learning rate, a key there of
            ``recipe.groups``.
        recipe: the option of the recipe group that trains with it.

    Args:
        params: groups; ``latent`` says which of the two rules a group follows.
        lr: learning rate of both.
        weight_decay: that of Adam's groups.
    """

    setting: str
    recipe: str

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("latent", False)

    def update(self, weight: Tensor, group: dict[str, Any]) -> None:
        """One step of a latent weight that has a gradient, in place."""
        raise NotImplementedError

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
        latent = [(p, g) for g in self.param_groups if g["latent"] for p in g["params"]]
        gradients = [p.grad for p, _ in latent]
        with torch.no_grad():
            for p, group in latent:
                if p.grad is not None:
                    self.update(p, group)
                p.grad = None  # Adam passes by what has no gradient
        super().step()
        for (p, _), gradient in zip(latent, gradients, strict=True):
            p.grad = gradient
        return loss
