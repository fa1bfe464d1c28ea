"""What a run remembers of itself: metrics per epoch, the best epoch, the time it took."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from bnnbench.records.provenance import peak_memory_mb, restart_peak_memory
from bnnbench.records.schema import finite

STATE = ("epochs", "train_s", "wall_s", "cpu_s", "memory_mb", "images", "cut")


class History(Checkpoint):  # Lightning runs checkpoints after the module has logged its epoch
    """Keeps every epoch's metrics; survives a resume.

    Attributes:
        epochs: one dictionary an epoch: ``epoch``, ``step`` (its last optimiser step, from 0),
            ``lr`` and the logged metrics; None for one that is no finite number.
        train_s: seconds spent in training epochs, evaluation excluded.
        cpu_s: processor time of all processes in these, whatever else the machine did; None on
            other devices, and where it was not measured from the beginning.
        memory_mb: peak memory of this process since training began, of the GPU where one is used,
            else resident; None where the peaks of before cannot be told from it.
        images: training images that all processes have seen in that time.
        cut: whether the last epoch was stopped before its last batch.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float | None]] = []
        self.train_s = 0.0
        self.wall_s = 0.0
        self.cpu_s: float | None = 0.0
        self.memory_mb: float | None = 0.0
        self.images = 0
        self.cut = False
        self._images = 0  # seen by this process in this epoch
        self._epoch_start = 0.0
        self._eval_s = 0.0
        self._cpu = 0.0  # minus the clock's at the beginning of what is being trained
        self._evaluated = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not restart_peak_memory():
            self.memory_mb = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start, self._eval_s, self._evaluated = time.perf_counter(), 0.0, False
        self._images = 0
        self._cpu = -time.process_time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._images += len(batch[1])
        self.cut = i + 1 < trainer.num_training_batches

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._eval_s -= time.perf_counter()
        self._cpu += time.process_time()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._eval_s += time.perf_counter()
        self._cpu -= time.process_time()
        self._evaluated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        elapsed = time.perf_counter() - self._epoch_start
        self.wall_s += elapsed
        self.train_s += elapsed - self._eval_s
        self._cpu += time.process_time()
        total = partial(trainer.strategy.reduce, reduce_op="sum")
        self.images += int(total(torch.tensor(self._images, device=pl_module.device)))
        if pl_module.device.type != "cpu":
            self.cpu_s = None
        elif self.cpu_s is not None:
            self.cpu_s += float(total(torch.tensor(self._cpu, dtype=torch.float64)))
        if self.memory_mb is not None:
            self.memory_mb = max(self.memory_mb, peak_memory_mb())
        metrics = {
            name: finite(float(value))
            for name, value in trainer.callback_metrics.items()
            if self._evaluated or not name.startswith(("test/", "val/"))  # of an earlier epoch
        }
        place = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
        self.epochs.append({**place, "lr": learning_rate(trainer), **metrics})

    def columns(self) -> dict[str, list[float | None]]:
        """The history as one list a metric; None where an epoch does not have it."""
        names = dict.fromkeys(name for row in self.epochs for name in row)
        return {name: [row.get(name) for row in self.epochs] for name in names}

    def best(self, metric: str) -> dict[str, float | None]:
        """The epoch with the highest ``metric``, the first of equal ones; {} if none has it."""
        values = [finite(row.get(metric)) for row in self.epochs]
        found = [value for value in values if value is not None]
        if not found:
            return {}
        row = self.epochs[values.index(max(found))]
        return {metric: row[metric], "epoch": row["epoch"]}

    def state_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        unknown = {"cpu_s": None, "memory_mb": None}  # a state of before has none
        for key, value in (unknown | state_dict).items():
            setattr(self, key, value)


def learning_rate(trainer: L.Trainer) -> float:
    """That of the first parameters, as the schedule has left it."""
    return float(trainer.optimizers[0].param_groups[0]["lr"])
