"""Random numbers that depend on the epoch alone, so that a resume draws what was never drawn."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch


class EpochSeed(L.Callback):
    """Seeds torch at each training epoch's start from (seed, epoch, rank).

    Dropout and stochastic quantizers draw from torch's generator, which no checkpoint holds.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        entropy = (self.seed, trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
