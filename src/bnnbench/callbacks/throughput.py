"""How fast a run trains: seconds of each epoch, and training images a second."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

NAMES = ("epoch_s", "images_per_s")  # what it logs; they differ from run to run


class Throughput(L.Callback):
    """Logs ``epoch_s``, with its evaluation, and ``images_per_s``, without, over all processes.

    Attributes:
        epoch_s: of the last finished epoch; None before there is one.
        images_per_s: likewise.
    """

    def __init__(self) -> None:
        self.epoch_s: float | None = None
        self.images_per_s: float | None = None
        self._began = self._evaluating = 0.0
        self._images = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began, self._evaluating, self._images = time.perf_counter(), 0.0, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._images += len(batch[1])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._evaluating -= time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._evaluating += time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epoch_s = time.perf_counter() - self._began
        seen = torch.tensor(self._images, device=pl_module.device)
        images = int(trainer.strategy.reduce(seen, reduce_op="sum"))
        self.images_per_s = images / max(self.epoch_s - self._evaluating, 1e-9)
        for name in NAMES:
            pl_module.log(name, getattr(self, name), sync_dist=True)
