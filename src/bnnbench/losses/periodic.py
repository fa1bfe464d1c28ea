"""BiPer's penalty on the sine of latent weights (Vargas et al., CVPR 2024, arXiv 2404.01278).

Code: the CIFAR-10 scripts of edmav4/BiPer, which write it as ``(1 - cos(2 f w)) / 2``; those of
ImageNet leave it out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer, binary_layers
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer, equally_large, stacked_weights


class Periodic(Regularizer):
    """``weight`` times the sum over layers of ``E[sin^2(f w)]``, f the frequency."""

    name = "periodic"

    def __init__(self, weight: float, frequency: float) -> None:
        if weight < 0 or frequency <= 0:
            raise ValueError(
                f"loss: tau must not be negative and frequency above 0; got {weight}, {frequency}"
            )
        self.weight, self.frequency = weight, frequency
        self.groups: list[list[BinaryLayer]] = []

    def attach(self, pl_module: Any) -> None:
        layers = _layers(pl_module)
        self.groups = equally_large(layers)
        super().attach(pl_module)

    def __call__(self, context: StepContext) -> Tensor:
        stacked = map(stacked_weights, self.groups)
        means = [(self.frequency * rows).sin().square().mean(dim=1) for rows in stacked]
        return self.weight * torch.cat(means).sum()


def _layers(pl_module: Any) -> list[BinaryLayer]:
    """Layers of quantized weights, or, in BiPer's first stage, of real sines."""
    layers = [
        layer
        for _, layer in binary_layers(pl_module)
        if layer.weight_quantizer.bits < 32 or layer.weight_quantizer.frequency > 0
    ]
    if not layers:
        raise ValueError(
            "loss=biper needs binarized layers and this network has none: choose another "
            "quantizer, or loss=task"
        )
    return layers
