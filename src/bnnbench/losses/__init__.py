"""Task losses, and one file for each additional one: its function, and its term of a training."""

from __future__ import annotations

from torch import nn

from bnnbench.losses.bayesian_feature import bayesian_feature_loss
from bnnbench.losses.bayesian_kernel import bayesian_kernel_loss
from bnnbench.losses.context import LossTerm, StepContext
from bnnbench.losses.hinge import SquaredHinge
from bnnbench.losses.projection import projection_loss
from bnnbench.losses.squared import SumOfSquares

__all__ = [
    "LossTerm",
    "StepContext",
    "bayesian_feature_loss",
    "bayesian_kernel_loss",
    "projection_loss",
    "task_loss",
]

KINDS = ("task", "squared_hinge", "sse")


def task_loss(
    task: str, label_smoothing: float = 0.0, kind: str = "task", error_bits: int = 32
) -> nn.Module:
    """The loss that follows the dataset's task: cross entropy, or MultiBox for detection.

    Args:
        task: ``classification`` or ``detection``.
        label_smoothing: mass spread evenly over all classes, in [0, 1); of cross entropy.
        kind: ``task``, or ``squared_hinge`` or ``sse`` in place of cross entropy.
        error_bits: of the gradient of ``sse``.
    """
    if kind not in KINDS:
        raise ValueError(f"loss.kind={kind!r}: choose one of {KINDS}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing={label_smoothing} must be in [0, 1)")
    if task == "classification":
        if kind == "squared_hinge":
            return SquaredHinge()
        if kind == "sse":
            return SumOfSquares(error_bits)
        return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    if task != "detection":
        raise ValueError(f"there is no task loss for {task!r}")
    if kind != "task":
        raise ValueError(f"{kind} is a loss of classification: choose loss=task")
    if label_smoothing:
        raise ValueError(f"loss.label_smoothing={label_smoothing} is for classification: set it 0")
    from bnnbench.losses.multibox import MultiBox  # torchvision takes a second

    return MultiBox()
