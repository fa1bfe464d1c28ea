"""Drives the scheduled and post-step state of quantizers."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import nn

from bnnbench.layers import BinaryLayer, binary_layers, set_progress


class QuantizerProgress(L.Callback):
    """Calls ``set_progress`` at each epoch's start and ``after_step`` of the weight sides.

    A run limited by steps instead of epochs moves by its finished fraction of all steps.
    """

    def __init__(self) -> None:
        self._after_step: list[BinaryLayer] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers = [layer for _, layer in binary_layers(pl_module)]
        self._after_step = [x for x in layers if hasattr(x.weight_quantizer, "after_step")]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        set_progress(pl_module, *self._position(trainer))

    @staticmethod
    def _position(trainer: L.Trainer) -> tuple[float, float]:
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and trainer.max_steps < 0:
            return trainer.current_epoch, trainer.max_epochs
        return trainer.global_step, float(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        for layer in self._after_step:
            after_step: nn.Module | Any = layer.weight_quantizer.after_step
            after_step(layer.weight)
