"""What a loss term sees of a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bnnbench.layers import BinaryLayer


@dataclass(frozen=True)
class StepContext:
    """One training step, after the forward.

    Attributes:
        logits: (N, classes).
        features: penultimate features (N, D).
        targets: class of each image (N,).
        layers: names and modules of the binarized layers: ``weight`` is the latent weight,
            ``quantized`` the detached quantized weight of this forward.
    """

    logits: Tensor
    features: Tensor
    targets: Tensor
    layers: Sequence[tuple[str, BinaryLayer]]


LossTerm = Callable[[StepContext], Tensor]  # a scalar that is added to the task loss, weighted
