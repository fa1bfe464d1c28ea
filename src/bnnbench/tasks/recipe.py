"""Optimiser and learning-rate schedule of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn, optim

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "linear", "onecycle", "constant")


@dataclass(frozen=True)
class Recipe:
    """One optimiser over all parameters and one schedule over all steps.

    Attributes:
        optimizer: ``sgd`` (no Nesterov), ``adam`` or ``adamw``.
        lr: peak learning rate.
        weight_decay: L2 term of sgd and adam, decoupled for adamw.
        momentum: of sgd.
        schedule: ``cosine`` or ``linear`` to 0, ``onecycle`` (cosine up over the first 30 %, then
            down, with cycled momentum; arXiv 1708.07120), or ``constant``.
        warmup: fraction of all steps of linear warm-up (not for onecycle, which has its own).
    """

    optimizer: str
    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        for key, valid in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, key) not in valid:
                raise ValueError(f"recipe.{key}={getattr(self, key)!r}: choose one of {valid}")
        if self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1:
            raise ValueError(
                "recipe: lr must be above 0, weight_decay at least 0 and warmup in [0, 1); got "
                f"lr={self.lr}, weight_decay={self.weight_decay}, warmup={self.warmup}"
            )

    def build(self, parameters: Iterable[nn.Parameter], total_steps: int) -> dict[str, Any]:
        """What ``configure_optimizers`` returns, for a run of ``total_steps`` optimiser steps."""
        optimizer = self._optimizer(list(parameters))
        if self.schedule == "onecycle":
            scheduler = optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=total_steps)
        else:
            scheduler = optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: self.factor(step / total_steps)
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _optimizer(self, parameters: list[nn.Parameter]) -> optim.Optimizer:
        shared: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return optim.SGD(parameters, momentum=self.momentum, **shared)
        kind = optim.Adam if self.optimizer == "adam" else optim.AdamW
        return kind(parameters, **shared)

    def factor(self, progress: float) -> float:
        """Learning rate over ``lr`` at ``progress`` in [0, 1] of the run."""
        if progress < self.warmup:
            return progress / self.warmup
        left = 1 - (progress - self.warmup) / (1 - self.warmup)
        if self.schedule == "cosine":
            return (1 - math.cos(math.pi * left)) / 2
        return left if self.schedule == "linear" else 1.0
