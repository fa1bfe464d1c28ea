"""Task losses, and the pure functions of additional loss terms."""

from __future__ import annotations

from torch import nn

from bnnbench.losses.bayesian import bayesian_feature_loss, bayesian_kernel_loss
from bnnbench.losses.context import LossTerm, StepContext
from bnnbench.losses.hinge import SquaredHinge
from bnnbench.losses.projection import projection_loss

__all__ = [
    "LossTerm",
    "StepContext",
    "bayesian_feature_loss",
    "bayesian_kernel_loss",
    "projection_loss",
    "task_loss",
]

KINDS = ("task", "squared_hinge")


def task_loss(task: str, label_smoothing: float = 0.0, kind: str = "task") -> nn.Module:
    """The loss that follows the dataset's task: cross entropy, or MultiBox for detection.

    Args:
        task: ``classification`` or ``detection``.
        label_smoothing: mass spread evenly over all classes, in [0, 1); of cross entropy.
        kind: ``task``, or ``squared_hinge`` in place of cross entropy.
    """
    if kind not in KINDS:
        raise ValueError(f"loss.kind={kind!r}: choose one of {KINDS}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing={label_smoothing} must be in [0, 1)")
    if task == "classification":
        if kind == "squared_hinge":
            return SquaredHinge()
        return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    if task != "detection":
        raise ValueError(f"there is no task loss for {task!r}")
    if kind != "task":
        raise ValueError(f"{kind} is a loss of classification: choose loss=task")
    if label_smoothing:
        raise ValueError(f"loss.label_smoothing={label_smoothing} is for classification: set it 0")
    from bnnbench.losses.multibox import MultiBox  # torchvision takes a second

    return MultiBox()
