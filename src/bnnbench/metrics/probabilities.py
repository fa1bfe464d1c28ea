"""How good a classifier's probabilities are: proper scores, top-5, accuracy of each class.

The probabilities are the softmax of the logits, whatever loss the network was trained with: of one
trained with a squared hinge, say, they are defined, but nothing ever asked them to be calibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

TOP = 5


class ProbabilityScores(Metric):
    """Top-5 accuracy, negative log-likelihood, Brier score and accuracy by class.

    All are sums over images, added over processes, in float32. ``nll`` is the mean of
    ``-ln p(label)``; ``brier`` the mean of ``sum_c (p_c - [c = label])^2``, from 0 to 2, the form
    for several classes of Brier, "Verification of Forecasts Expressed in Terms of Probability",
    1950. Of equal logits the class with the lower number counts as the higher one, as in argmax.

    Args:
        num_classes: length of the logits.
    """

    is_differentiable = False
    full_state_update = False

    nll: Tensor
    brier: Tensor
    top: Tensor
    hits: Tensor
    images: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("nll", "brier", "top"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        for name in ("hits", "images"):
            self.add_state(name, torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add images with logits (N, classes) of any float type and labels (N,)."""
        scores = logits.detach().float()
        log_p = scores.log_softmax(1)
        truth = torch.zeros_like(log_p).scatter_(1, labels[:, None], 1.0)
        rank = _ranks(scores, labels)
        self.nll -= log_p.gather(1, labels[:, None]).sum()
        self.brier += (log_p.exp() - truth).square().sum()
        self.top += (rank < TOP).sum()
        self.hits += truth[rank == 0].sum(0)
        self.images += truth.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """``nll``, ``brier``, ``top5`` as scalars, ``class_accuracy`` (classes,).

        nan is what is not defined: ``top5`` of five classes or fewer, the accuracy of a class
        without images.
        """
        count = self.images.sum()
        top = self.top / count if self.num_classes > TOP else torch.tensor(torch.nan)
        by_class = self.hits / self.images
        means = {"nll": self.nll / count, "brier": self.brier / count, "top5": top}
        return means | {"class_accuracy": by_class}


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the true one, (N,); all where a score is no number."""
    own = scores.gather(1, labels[:, None])
    later = torch.arange(scores.shape[1], device=scores.device) >= labels[:, None]
    return (~((scores < own) | ((scores == own) & later))).sum(1)
