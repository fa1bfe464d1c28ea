"""Loss terms that pull latent kernels and their modulation together: PCNN and MCN.

Equation numbers are those of the group's book "Binary Neural Networks" (2023), chapter 3.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.losses.context import StepContext
from bnnbench.losses.projection import compactness_loss, filter_loss, projection_loss
from bnnbench.losses.regularizer import Regularizer, class_sums
from bnnbench.quantizers.mcn import MCNWeight
from bnnbench.quantizers.pcnn import PCNNWeight


def layers_of(pl_module: Any, kind: type, loss: str, quantizer: str) -> list[BinaryLayer]:
    """The layers whose weight side is a ``kind``. Raises ValueError where there is none."""
    layers = [x for _, x in binary_layers(pl_module) if isinstance(x.weight_quantizer, kind)]
    if not layers:
        raise ValueError(
            f"loss={loss} needs what only quantizer={quantizer} learns: choose that quantizer, or "
            "loss=task"
        )
    return layers


class Projection(Regularizer):
    """``weight / 2`` times PCNN's projection loss (Eq. 3.42; arXiv 1811.12755) of all layers.

    Args:
        weight: lambda.
        eta: step of the discrete update (Eq. 3.37). The gradient at the projected weights is the
            one of the step before: this step's is known only after its loss.
    """

    name = "projection"
    _state_keys = ("deltas",)

    def __init__(self, weight: float, eta: float) -> None:
        if weight < 0 or eta < 0:
            raise ValueError(f"loss: lambda and eta must not be negative; got {weight}, {eta}")
        self.weight, self.eta = weight, eta
        self.layers: list[BinaryLayer] = []
        self.deltas: dict[int, Tensor] = {}  # by layer; none before the first step

    def attach(self, pl_module: Any) -> None:
        first = not self.layers
        self.layers = layers_of(pl_module, PCNNWeight, "pcnn", "pcnn")
        if self.eta and first:
            for index, layer in enumerate(self.layers):
                layer.weight_quantizer.register_forward_hook(self._watch(index))
        super().attach(pl_module)

    def _watch(self, index: int) -> Any:
        def keep(side: Any, inputs: Any, quantized: Tensor) -> None:
            if quantized.requires_grad:
                quantized.register_hook(lambda grad: self.deltas.update({index: grad.detach()}))

        return keep

    def _shift(self, index: int, layer: BinaryLayer) -> Tensor | None:
        if index not in self.deltas:
            return None
        delta = self.deltas[index].to(layer.weight.device)
        return self.eta / layer.weight_quantizer.bases * delta

    def __call__(self, context: StepContext) -> Tensor:
        totals = [
            projection_loss(layer.weight, _modulation(layer), self._shift(index, layer))
            for index, layer in enumerate(self.layers)
        ]
        return self.weight / 2 * torch.stack(totals).sum()


def _modulation(layer: BinaryLayer) -> Tensor:
    side = layer.weight_quantizer
    assert isinstance(side, PCNNWeight)
    return side.w


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
        count, moved = class_sums(trainer, targets, len(self.center), *parts)
        self.center.add_(moved / (1 + count), alpha=self.center_lr)
