"""Signs of life: where a run is, in ``progress.json``, for whoever watches its folder."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torchmetrics import Metric

from bnnbench.callbacks.history import History
from bnnbench.records.position import Position, write_position
from bnnbench.records.schema import finite

EVERY = 1.0  # seconds between two looks at a training
RECENT = 3  # epochs that the time of the next ones is measured by


class Pulse(Checkpoint):  # Lightning runs checkpoints after the module has logged its epoch
    """Says where a run is, at most once a second, in ``position`` and in ``progress.json``.

    A step costs it a look at the clock; once a second a small file, and on a GPU the wait for the
    loss. A file that cannot be written ends no training: the next checkpoint will say why.

    Args:
        folder: the run's, not its stage's.
        stage: name of the stage's folder; empty without stages.
        later_epochs: those of the stages that follow; None where nobody knows.
    """

    def __init__(self, folder: str | Path, stage: str = "", later_epochs: int | None = 0) -> None:
        self.folder, self.later_epochs = Path(folder), later_epochs
        self.position = Position(stage=stage or None)
        self._epochs_s: list[float] = []
        self._epoch_start = self._looked = 0.0
        self._trained = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trained = True
        resumed, known = trainer.current_epoch, epochs_of(trainer)
        self.position = replace(self.position, resumed=resumed, epoch=resumed, max_epochs=known)
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, History) and callback.epochs:
                self._epochs_s = [callback.wall_s / len(callback.epochs)]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start = time.monotonic()
        self._say(trainer, epoch=trainer.current_epoch, **_of(0, trainer.num_training_batches))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if self._is_due():
            now = _of(i + 1, trainer.num_training_batches)
            self._say(trainer, running=running(pl_module, outputs), evaluating=False, **now)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epochs_s.append(time.monotonic() - self._epoch_start)
        metrics = {k: finite(float(v)) for k, v in trainer.callback_metrics.items()}
        rest = _of(0, trainer.num_training_batches)
        self._epoch_start = time.monotonic()
        epoch = trainer.current_epoch + 1
        self._say(trainer, epoch=epoch, metrics=metrics, running={}, evaluating=False, **rest)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._trained and not trainer.sanity_checking and self._is_due():
            now = _of(batch_idx + 1, trainer.num_val_batches[dataloader_idx])
            self._say(trainer, final=trainer.state.fn != "fit", evaluating=True, **now)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._trained and self._is_due():
            now = _of(batch_idx + 1, trainer.num_test_batches[dataloader_idx])
            self._say(trainer, final=True, evaluating=True, **now)

    def _is_due(self) -> bool:
        return time.monotonic() - self._looked >= EVERY

    def _say(self, trainer: L.Trainer, final: bool = False, **news: Any) -> None:
        self._looked = time.monotonic()
        if not trainer.is_global_zero:
            return
        position = replace(self.position, **news)
        recent = self._epochs_s[-RECENT:]
        epoch_s = sum(recent) / len(recent) if recent else None
        left = self._left(position, epoch_s, final)
        self.position = replace(position, epoch_s=epoch_s, left_s=left)
        with suppress(OSError):
            write_position(self.folder, self.position)

    def _left(self, position: Position, epoch_s: float | None, final: bool) -> float | None:
        """Seconds until the last epoch of the run ends, as long as all take the same time."""
        if epoch_s is None or position.max_epochs is None or self.later_epochs is None:
            return None
        gone = 0.0 if final else min(time.monotonic() - self._epoch_start, epoch_s)
        left = max(0.0, (position.max_epochs - position.epoch) * epoch_s - gone)
        return left + self.later_epochs * epoch_s


def epochs_of(trainer: L.Trainer) -> int | None:
    """How many epochs a run has, also where it is limited by steps; None where there is no end."""
    limit = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
    if trainer.max_steps < 0:
        return limit
    by_steps = math.ceil(trainer.max_steps / max(trainer.num_training_batches, 1))
    return by_steps if limit is None else min(by_steps, limit)


def running(pl_module: L.LightningModule, outputs: Any = None) -> dict[str, float]:
    """The mean ``loss`` and ``acc`` of the training epoch so far, of this process alone.

    Of a module without such metrics the loss of the last batch; only finite numbers are told.
    """
    values: dict[str, Any] = {}
    if isinstance(outputs, dict) and isinstance(outputs.get("loss"), torch.Tensor):
        values["loss"] = outputs["loss"]
    for name in ("loss", "acc"):
        metric = getattr(pl_module, f"train_{name}", None)
        if isinstance(metric, Metric) and metric.update_called:
            values[name] = type(metric).compute(metric)  # the wrapped one waits for all processes
    found = {name: float(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _of(batch: int, batches: float) -> dict[str, Any]:
    """The position within a pass; the number of batches of a stream is infinite."""
    return {"batch": batch, "batches": int(batches) if math.isfinite(batches) else 0}
