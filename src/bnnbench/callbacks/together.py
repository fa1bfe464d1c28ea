"""Keeps the processes of a run in step where a progress bar would not."""

from __future__ import annotations

import lightning as L
import torch


class Together(L.Callback):
    """Reduces the epoch's logged means in every process, before the bar of the first asks for them.

    Reducing one is a collective: asked for by the first process alone, while the others are on
    their way to another one, it never ends. It stands before the bar. Buffers that a step has moved
    (running means, say) become the first process's, as DDP makes them before the next step: a final
    evaluation asks no DDP, and would judge the images of each process by its own.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            _ = trainer.callback_metrics  # computed once, and kept
            for buffer in pl_module.buffers():
                first = buffer.contiguous()
                torch.distributed.broadcast(first, 0)
                buffer.copy_(first)
