"""What the images of a run cost that augments them otherwise than usual: one line."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L

log = logging.getLogger(__name__)


class LoadingTime(L.Callback):
    """After the first epoch that is trained, says how long the loop waited for its images.

    Only the waiting between steps is timed, so that nothing is loaded twice. Where worker processes
    load, it is what they do not hide; on a GPU, what launching the work of resident images takes.
    The epoch that it is compared with has its evaluation in it.

    Args:
        what: how the images are augmented, for the line.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._waited = self._began = self._since = 0.0
        self._images, self._told = 0, False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = self._since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waited += time.perf_counter() - self._since
        self._images += len(batch[1])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._told and trainer.is_global_zero and self._images:
            whole = time.perf_counter() - self._began
            log.info(
                "%s: %.2g of the first epoch's %.2g s were spent waiting for images (%s images/s)",
                *(self.what, self._waited, whole, f"{self._images / self._waited:,.0f}"),
            )
        self._told = True
