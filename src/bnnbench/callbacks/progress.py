"""Drives the state of quantizers: schedules at an epoch's start, and the hooks of weight sides."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch

from bnnbench.layers import BinaryLayer, binary_layers, set_progress
from bnnbench.quantizers.base import overridden

HOOKS = ("epoch_start", "after_backward", "after_step")


class QuantizerProgress(L.Callback):
    """Calls ``set_progress`` of every schedule and the hooks of weight sides that have any.

    In this order, layer by layer, always without gradient, with the latent weight:

    * ``epoch_start``: before the first batch of an epoch, the schedules already moved;
    * ``after_backward``: before each optimiser step, ``weight.grad`` complete and not yet clipped;
    * ``after_step``: after it. Batches that only accumulate gradients call neither.

    A run limited by steps instead of epochs moves by its finished fraction of all steps.

    Args:
        reach: fraction of every schedule that the run goes through.
    """

    def __init__(self, reach: float = 1.0) -> None:
        self.reach = reach
        self._hooked: dict[str, list[BinaryLayer]] = {hook: [] for hook in HOOKS}
        self._stepped = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers = [layer for _, layer in binary_layers(pl_module)]
        self._hooked = {
            hook: [layer for layer in layers if overridden(layer.weight_quantizer, hook)]
            for hook in HOOKS
        }
        if trainer.precision == "16-mixed" and any(self._hooked.values()):
            raise ValueError(
                "trainer.precision=16-mixed skips steps whose gradients overflow, which this "
                "quantizer's hooks cannot see: choose bf16-mixed or 32-true"
            )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now, end = self._position(trainer)
        set_progress(pl_module, self.reach * now, end)
        self._call("epoch_start")

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self._call("after_backward")
        self._stepped = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if self._stepped:
            self._call("after_step")
            self._stepped = False

    @torch.no_grad()
    def _call(self, hook: str) -> None:
        for layer in self._hooked[hook]:
            getattr(layer.weight_quantizer, hook)(layer.weight)

    @staticmethod
    def _position(trainer: L.Trainer) -> tuple[float, float]:
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and trainer.max_steps < 0:
            return trainer.current_epoch, trainer.max_epochs
        return trainer.global_step, float(trainer.estimated_stepping_batches)
