"""What a loss term sees of a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bnnbench.layers import BinaryLayer


@dataclass(frozen=True)
class StepContext:
    """One training step, after the forward.

    Attributes:
        logits: (N, classes); of a detector the ``HeadOutputs``.
        features: penultimate features (N, D); of a detector the list of its source maps.
        targets: class of each image (N,), or its shares in the classes (N, classes) where images
            are mixed; of a detector a list with one dictionary an image.
        layers: names and modules of the binarized layers: ``weight`` is the latent weight,
            ``quantized`` the detached quantized weight of this forward.
        teacher: the teacher's logits (N, classes); None without a teacher.
    """

    logits: Any
    features: Any
    targets: Any
    layers: Sequence[tuple[str, BinaryLayer]]
    teacher: Tensor | None = None


LossTerm = Callable[[StepContext], Tensor]  # a scalar that is added to the task loss, weighted
