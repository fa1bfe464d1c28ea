"""The norm of a run's gradients, an epoch's mean."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

NAME = "grad_norm"


class GradientNorm(Checkpoint):  # after the callbacks that change gradients before a step
    """Logs ``grad_norm``: the L2 norm over all parameters before clipping, its mean over steps.

    The gradient is what the optimiser would be given without clipping: of all accumulated batches
    and processes, unscaled, after the hooks of quantizers. Norms stay on the device until the epoch
    ends. Steps of ``16-mixed`` whose gradients overflow, which its scaler leaves out, do not count;
    of an epoch of such steps alone nothing is logged.
    """

    def __init__(self) -> None:
        self._parameters: list[nn.Parameter] = []
        self._norms: list[Tensor] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._parameters = [p for p in pl_module.parameters() if p.requires_grad]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._norms = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if gradients:
            self._norms.append(total_norm(gradients))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        norms = torch.stack(self._norms) if self._norms else torch.zeros(0)
        known = norms[norms.isfinite()]
        if len(known):
            pl_module.log(NAME, known.mean())
        self._norms = []


@torch.no_grad()
def total_norm(tensors: list[Tensor]) -> Tensor:
    """The L2 norm of all elements together, a float scalar on the tensors' device."""
    if tensors[0].is_cuda:
        norms = torch._foreach_norm(tensors)  # pyright: ignore  # one kernel for all
    else:
        norms = [torch.linalg.vector_norm(tensor) for tensor in tensors]  # the cheapest on a CPU
    return torch.linalg.vector_norm(torch.stack(norms).float())
