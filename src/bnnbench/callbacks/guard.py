"""Stops a run whose loss is no longer a number, before it overwrites a good checkpoint."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor


class FiniteLoss(L.Callback):
    """Raises ``FloatingPointError`` on a non-finite loss.

    Losses are summed on the device and read every ``every_n_steps`` and before each evaluation, so
    that the check costs no synchronisation per step.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._sum: Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        loss = outputs["loss"].detach()
        total = self._sum = loss if self._sum is None else self._sum + loss
        if trainer.is_last_batch or (i + 1) % self.every_n_steps == 0:
            self._check(trainer, total)
            self._sum = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.endswith("/loss"):
                self._check(trainer, value)

    @staticmethod
    def _check(trainer: L.Trainer, loss: Tensor) -> None:
        if bool(torch.isfinite(loss)):
            return
        value = math.nan if bool(torch.isnan(loss)) else float(loss)
        raise FloatingPointError(
            f"the loss became {value} in epoch {trainer.current_epoch}; the checkpoint of the last "
            "good epoch is kept. Lower recipe.lr or set trainer.gradient_clip_val"
        )
