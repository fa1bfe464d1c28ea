"""A run that a signal cuts: where it was."""

from __future__ import annotations

import signal
import threading
from typing import Any

import lightning as L

from bnnbench.runs import signals

# Lightning's own: SIGTERM ends a run after its batch, with exit code 0; SIGUSR1 of SLURM writes a
# checkpoint in the middle of an epoch.
_LIGHTNINGS = (signal.SIGTERM, signal.SIGUSR1)


class Cut(L.Callback):
    """Says in which epoch of run ``name`` a signal comes, and leaves signals to who had them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._handlers = {signum: signal.getsignal(signum) for signum in _LIGHTNINGS}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._take_back()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        planned = trainer.max_epochs or 0
        of_all = f" of {planned}" if planned > 0 else ""
        signals.at(f"in epoch {trainer.current_epoch + 1}{of_all} of {self.name}")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        signals.check()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self.on_test_start(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._take_back()
        signals.at(f"in the final evaluation of {self.name}")

    def _take_back(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in self._handlers.items():
                signal.signal(signum, handler)
