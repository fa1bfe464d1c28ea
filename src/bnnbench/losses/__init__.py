"""Task losses, and the pure functions of additional loss terms."""

from __future__ import annotations

from torch import nn

from bnnbench.losses.bayesian import bayesian_feature_loss, bayesian_kernel_loss
from bnnbench.losses.context import LossTerm, StepContext
from bnnbench.losses.projection import projection_loss

__all__ = [
    "LossTerm",
    "StepContext",
    "bayesian_feature_loss",
    "bayesian_kernel_loss",
    "projection_loss",
    "task_loss",
]


def task_loss(task: str, label_smoothing: float = 0.0) -> nn.Module:
    """The loss that follows the dataset's task: cross entropy for classification.

    Args:
        task: ``classification``.
        label_smoothing: mass spread evenly over all classes, in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing={label_smoothing} must be in [0, 1)")
    if task != "classification":
        raise ValueError(f"there is no task loss for {task!r}")
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
