"""Kurtosis regularization of latent weights, for any quantizer.

KURE (Shkolnik et al., NeurIPS 2020, arXiv 2002.07686) makes weights uniform (target 1.8); BD-BNN
(Rozen et al., 2022, arXiv 2204.02004) makes them bimodal before binarization.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import (
    Regularizer,
    binarized_layers,
    equally_large,
    stacked_weights,
)


def kurtosis(rows: Tensor) -> Tensor:
    """``E[((w - mean) / std)^4]`` of each row, (R, K) to (R,).

    3 for a normal distribution, 1.8 for a uniform one, 1 (the least possible) for two equal values
    of either sign. The standard deviation is the population's. Constant rows have no kurtosis.
    """
    squared = (rows - rows.mean(dim=1, keepdim=True)).square()
    return squared.square().mean(dim=1) / squared.mean(dim=1).square()


class Kurtosis(Regularizer):
    """``weight`` times the mean over all binarized layers of ``(Kurt(W) - target)^2``.

    Changed: every layer has the same target; BD-BNN's released training script has a list, mostly
    1.4 on CIFAR and 1.2 to 1.4 on ImageNet. The standard deviation is the population's.
    """

    name = "kurtosis"

    def __init__(self, weight: float, target: float) -> None:
        if weight < 0 or target < 1:
            raise ValueError(
                "loss: lambda must not be negative and target at least 1, the least kurtosis there "
                f"is; got {weight}, {target}"
            )
        self.weight, self.target = weight, target
        self.groups: list[list[BinaryLayer]] = []

    def attach(self, pl_module: Any) -> None:
        layers = binarized_layers(pl_module, "loss=kurtosis", "loss=task")
        self.groups = equally_large(layers)
        super().attach(pl_module)

    def __call__(self, context: StepContext) -> Tensor:
        stacked = map(stacked_weights, self.groups)
        values = torch.cat([kurtosis(rows) for rows in stacked])
        return self.weight * (values - self.target).square().mean()
