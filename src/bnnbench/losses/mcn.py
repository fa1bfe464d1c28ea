"""MCN's loss L_M (Wang et al., CVPR 2018): filter loss, and compactness of each class.

Equation numbers are those of the group's book "Binary Neural Networks" (2023), chapter 3. The
functions are brackets without the factors theta/2 and lambda/2, which belong to the caller.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, class_sums, layers_of
from bnnbench.quantizers.mcn import MCNWeight


def filter_loss(weight: Tensor, reconstructed: Tensor) -> Tensor:
    """MCN's ``sum_i ||C_i - C^_i o M||^2`` of one layer (first part of Eq. 3.18).

    Args:
        weight: latent filters C.
        reconstructed: ``C^ o M``, same shape; gradients flow into M through it, and the binary
            filters C^ are constants.
    """
    return (weight - reconstructed).square().sum()


def compactness_loss(features: Tensor, targets: Tensor, centers: Tensor) -> Tensor:
    """MCN's ``sum_m ||f_m - f_mean||^2`` (second part of Eq. 3.18), summed over samples.

    Args:
        features: (N, D).
        targets: class of each sample (N,), integers.
        centers: mean feature of each class (classes, D).
    """
    return (features - centers[targets]).square().sum()


class FilterLoss(Regularizer):
    """``weight / 2`` times MCN's filter loss (Eq. 3.18, first part) of all layers; no state."""

    name = "filter"
    _state_keys = ()

    def __init__(self, weight: float) -> None:
        if weight < 0:
            raise ValueError(f"loss.theta={weight} must not be negative")
        self.weight = weight
        self.layers: list[BinaryLayer] = []

    def attach(self, pl_module: Any) -> None:
        self.layers = layers_of(pl_module, MCNWeight, "mcn", "mcn")
        super().attach(pl_module)

    def __call__(self, context: StepContext) -> Tensor:
        totals = [filter_loss(layer.weight, _reconstructed(layer)) for layer in self.layers]
        return self.weight / 2 * torch.stack(totals).sum()


def _reconstructed(layer: BinaryLayer) -> Tensor:
    side = layer.weight_quantizer
    assert isinstance(side, MCNWeight)
    return side.reconstructed(layer.weight)


class Compactness(Regularizer):
    """``weight / 2`` times MCN's compactness term (Eq. 3.18), averaged over the batch.

    Features are the pooled last map. The class means follow center loss (Wen et al., ECCV 2016),
    which the source refers to: ``c += center_lr * sum(f - c) / (1 + n)``, from 0.
    """

    name, task = "compactness", "classification"
    _state_keys = ("center",)

    def __init__(self, weight: float, center_lr: float) -> None:
        if weight < 0 or center_lr <= 0:
            raise ValueError(
                f"loss: lambda must not be negative, center_lr above 0; got {weight}, {center_lr}"
            )
        self.weight, self.center_lr = weight, center_lr
        self.center: Tensor | None = None
        self._batch: tuple[Tensor, Tensor] | None = None
        self._sums: Tensor | None = None  # of the batches whose gradients are accumulated

    def __call__(self, context: StepContext) -> Tensor:
        features = context.features.float()
        center = self.center
        if center is None:
            center = features.new_zeros(context.logits.shape[1], features.shape[1])
        self.center = center = center.to(features.device)
        self._batch = features.detach(), context.targets
        total = compactness_loss(features, context.targets, center)
        return self.weight / (2 * len(features)) * total

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if not self.weight or self._batch is None or self.center is None:
            return
        features, targets = self._batch
        parts = torch.ones_like(features), features - self.center[targets]
        sums = class_sums(trainer, targets, len(self.center), *parts)
        self._sums = sums if self._sums is None else self._sums + sums
        if not self.has_stepped():
            return
        (count, moved), self._sums = self._sums, None
        self.center.add_(moved / (1 + count), alpha=self.center_lr)
