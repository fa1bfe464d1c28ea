"""PCNN's projection loss (Gu et al., AAAI 2019, arXiv 1811.12755).

Equation numbers are those of the group's book "Binary Neural Networks" (2023), chapter 3. The
function is the bracket without the factor lambda/2, which belongs to the caller.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, layers_of
from bnnbench.quantizers.pcnn import PCNNWeight, projected


def projection_loss(weight: Tensor, modulation: Tensor, shift: Tensor | None = None) -> Tensor:
    """``sum_ij ||C^_ij - W_j o (C_i + shift_ij)||^2`` of one layer (Eq. 3.42).

    The projected weights C^ (Eqs. 3.29, 3.57) are constants: only then Eqs. 3.52 and 3.56 are its
    gradients.

    Args:
        weight: latent kernels C, (O, I, kh, kw) or (O, I).
        modulation: W: (J, 1, 1, kh, kw) or (J, 1, 1), one matrix a projection; or one projection's,
            anything that broadcasts against ``weight``, as (kh, kw).
        shift: ``eta * delta`` of the discrete update (Eq. 3.37), shape of the weight, or with a
            leading J; a constant. None: 0, which leaves the first term of BONN's kernel loss.

    Returns:
        A scalar.
    """
    if modulation.dim() <= weight.dim():
        modulation = modulation.expand(
            (1,) * (weight.dim() + 1 - modulation.dim()) + modulation.shape
        )
    moved = weight if shift is None else weight + shift.detach()
    return (projected(weight, modulation) - modulation * moved).square().sum()


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
        self.layers = layers_of(pl_module, PCNNWeight, "pcnn", "pcnn")
        if self.eta:
            for index, layer in enumerate(self.layers):
                layer.weight_quantizer.register_forward_hook(partial(self._watch, index))
        super().attach(pl_module)

    def _watch(self, index: int, side: Any, inputs: Any, quantized: Tensor) -> None:
        if quantized.requires_grad:
            quantized.register_hook(lambda grad: self.deltas.update({index: grad.detach()}))

    def _shift(self, index: int, layer: BinaryLayer) -> Tensor | None:
        if index not in self.deltas:
            return None
        delta = self.deltas[index].to(layer.weight.device)
        return self.eta / layer.weight_quantizer.bases * delta

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if trainer.world_size > 1:  # each process knows the gradient of its own images
            reduced: Any = {k: trainer.strategy.reduce(v) for k, v in self.deltas.items()}
            self.deltas = reduced

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
