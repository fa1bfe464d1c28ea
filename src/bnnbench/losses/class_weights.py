"""A classifier's loss in which the images of some classes count more than those of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.losses.hinge import SquaredHinge
from bnnbench.losses.squared import SumOfSquares
from bnnbench.quantizers.wage import quantized_error


def balanced_weights(counts: Tensor) -> Tensor:
    """``N / (K n_c)`` of K classes with ``n_c`` of N images each, as in scikit-learn; (K,).

    Raises:
        ValueError: a class without an image.
    """
    empty = [str(c) for c in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise ValueError(
            f"dataset.class_weights=balanced: no training image is of class {', '.join(empty)}, "
            "counted from 0: give a list, one weight a class"
        )
    return counts.sum() / (len(counts) * counts.double())


class ClassWeighted(nn.Module):
    """``sum_i w(y_i) l_i / sum_i w(y_i)`` over a batch in training; in evaluation ``loss`` itself.

    For cross entropy this is PyTorch's ``weight``, label smoothing included.

    Args:
        loss: cross entropy, ``SquaredHinge`` or ``SumOfSquares``.
        classes: length of the logits.
        weights: one a class, above 0, or ``balanced``: those of ``balance``.

    Raises:
        ValueError: another number of weights, or one that is not above 0.
    """

    weights: Tensor  # (classes,); what it follows from is in the config, so no checkpoint holds it

    def __init__(self, loss: nn.Module, classes: int, weights: str | Sequence[float]) -> None:
        super().__init__()
        self.loss, self.is_balanced = loss, weights == "balanced"
        if not self.is_balanced and (isinstance(weights, str) or len(weights) != classes):
            raise ValueError(
                f"dataset.class_weights={weights}: give balanced, or {classes} weights, one a class"
            )
        given = torch.ones(classes) if isinstance(weights, str) else torch.tensor(list(weights))
        if not bool((given > 0).all()):
            raise ValueError(f"dataset.class_weights={weights}: weights are above 0")
        self.register_buffer("weights", given.float(), persistent=False)

    def balance(self, counts: Tensor) -> None:
        """Take the weights of classes with ``counts`` (classes,) training images."""
        self.weights.copy_(balanced_weights(counts))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) and labels (N,), or shares in the classes (N, classes), to a scalar.

        The weight of an image with shares is the mean of those of its classes.
        """
        if not self.training:
            return self.loss(logits, labels)
        of_images = self.weights[labels] if labels.dim() == 1 else labels @ self.weights
        return self._sum(logits, labels, of_images) / of_images.sum()

    def _sum(self, logits: Tensor, labels: Tensor, of_images: Tensor) -> Tensor:
        if isinstance(self.loss, nn.CrossEntropyLoss):
            smoothing = self.loss.label_smoothing
            return F.cross_entropy(
                logits, labels, self.weights, reduction="sum", label_smoothing=smoothing
            )
        targets = F.one_hot(labels, logits.shape[1]) if labels.dim() == 1 else labels
        if isinstance(self.loss, SquaredHinge):
            own, other = F.relu(1 - logits).square(), F.relu(1 + logits).square()
            losses = (targets * own + (1 - targets) * other).mean(dim=1)
        else:
            assert isinstance(self.loss, SumOfSquares)
            logits = quantized_error(logits, self.loss.error_bits)
            losses = (targets - logits).square().sum(dim=1) / 2
        return (of_images * losses).sum()
