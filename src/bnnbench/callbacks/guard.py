"""Stops a run whose numbers are no longer finite, and leaves a checkpoint that can be gone on from.

A loss does not tell it alone: the sign of a weight that is no number is +1, and a latent weight
that is clipped hides an infinite gradient.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from bnnbench.records.fallback import keep_good

HELP = "Lower recipe.lr or set trainer.gradient_clip_val"


class FiniteLoss(L.Callback):
    """Raises ``FloatingPointError`` on a loss, gradient, weight or buffer that is not finite.

    Losses and a value of each gradient are kept on the device, step by step. They are read every
    ``every_n_steps``, at the first step after a start or a checkpoint, and before each checkpoint
    and evaluation, together with the weights, which do not become finite again by themselves: the
    check costs no synchronisation per step. Gradients of ``16-mixed`` may overflow: its scaler
    leaves out those steps.

    A checkpoint is good once a step from its weights was finite: of weights of 1e20 an evaluation
    may be, and no training goes on from them. As training stops, ``last.ckpt`` gives way to the one
    before it where it is not yet known to be good.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._batch = 0
        self._parameters: list[nn.Parameter] = []  # to find them anew costs as much as to sum them
        self._seen: list[tuple[int, bool, list[Tensor]]] = []  # batch, whether gradients, values
        self._good = -1  # optimiser steps after which weights are known to be good
        self._look = True  # whether the next step says of a checkpoint that it is good

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._parameters = list(pl_module.parameters())
        self._seen, self._good, self._look = [], -1, True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, i: int
    ) -> None:
        self._batch = i

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        if trainer.precision != "16-mixed":
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            self._seen.append((self._batch, True, _sums(gradients)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._seen.append((i, False, [outputs["loss"].detach().float()]))
        if trainer.is_last_batch or self._look or (i + 1) % self.every_n_steps == 0:
            self._read(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read(trainer, pl_module)
        losses = {n: v for n, v in trainer.callback_metrics.items() if n.endswith("/loss")}
        for name, value in losses.items():
            if not bool(torch.isfinite(value)):
                self._stop(
                    trainer, f"{name} became {_value(value)} in epoch {trainer.current_epoch}"
                )

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._read(trainer, pl_module)
        self._look = True

    @torch.no_grad()
    def _read(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One transfer of all that was kept, and of the weights as they are."""
        if not self._seen:
            return
        kept = [value for *_, values in self._seen for value in values]
        if not bool(_flat(kept + _sums(list(_state(pl_module).values()))).isfinite().all()):
            self._diagnose(trainer, pl_module)
        self._seen, self._look = [], False
        self._good = max(self._good, trainer.global_step - 1)

    def _diagnose(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what was the first, and which tensors are not finite by now."""
        bad = [name for name, value in _state(pl_module).items() if not value.isfinite().all()]
        now = f"{_several(bad)} is no longer finite" if bad else ""
        for batch, gradients, values in sorted(self._seen, key=lambda seen: seen[:2]):
            where = f"in epoch {trainer.current_epoch}, step {batch} (from 0)"
            finite = _flat(values).isfinite().tolist()
            if gradients and not all(finite):
                named = [n for n, p in pl_module.named_parameters() if p.grad is not None]
                found = [n for n, good in zip(named, finite, strict=False) if not good]
                what = f"the gradient of {_several(found)} is not finite {where}"
                self._stop(trainer, f"{what}; {now}" if now else what)
            if not gradients and not all(finite):
                what = f"the loss became {_value(values[0])} {where}"
                self._stop(trainer, f"{what}; {now}" if now else what)
        if bad:
            self._stop(trainer, f"{now}, read {where}")

    def _stop(self, trainer: L.Trainer, what: str) -> None:
        kept = [keep_good(folder, self._good) for folder in _folders(trainer)]
        epochs = [epoch for epoch in kept if epoch is not None]
        rest = (
            f"the checkpoint of epoch {epochs[0]} is kept"
            if epochs
            else "no checkpoint is kept, none was known to be good"
        )
        raise FloatingPointError(f"{what}; {rest}. {HELP}")


def _sums(tensors: list[Tensor]) -> list[Tensor]:
    """Values of all tensors, in their order, each finite where all elements of its tensor are.

    A sum is the cheapest on a CPU; on a GPU all norms are one kernel.
    """
    if tensors and tensors[0].is_cuda:
        return [torch.stack(torch._foreach_norm(tensors, math.inf)).float()]  # pyright: ignore
    return [tensor.sum(dtype=torch.float32) for tensor in tensors]


def _flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values]) if values else torch.zeros(0)


def _state(module: L.LightningModule) -> dict[str, Tensor]:
    """Parameters and buffers of floats by name."""
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}


def _folders(trainer: L.Trainer) -> list[Path]:
    """Where callbacks of the trainer write a ``last.ckpt``."""
    written: Any = trainer.checkpoint_callbacks
    last = [c for c in written if isinstance(c, ModelCheckpoint) and c.filename == "last"]
    return [Path(callback.dirpath) for callback in last if callback.dirpath]


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _value(loss: Tensor) -> float:
    return math.nan if bool(torch.isnan(loss)) else float(loss)
