"""How good a classifier's probabilities are: proper scores, calibration, top-5, accuracy by class.

The probabilities are the softmax of the logits, whatever loss the network was trained with: of one
trained with a squared hinge, say, they are defined, but nothing ever asked them to be calibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

TOP = 5
BINS = 15  # of a reliability diagram, of equal width, those of the expected calibration error


class ProbabilityScores(Metric):
    """Top-5 accuracy, negative log-likelihood, Brier score, accuracy by class and by confidence.

    All are sums over images, added over processes, in float32. ``nll`` is the mean of
    ``-ln p(label)``; ``brier`` the mean of ``sum_c (p_c - [c = label])^2``, from 0 to 2, the form
    for several classes of Brier, "Verification of Forecasts Expressed in Terms of Probability",
    1950. Confidence is the highest probability, in ``BINS`` bins of equal width: a reliability
    diagram, as in Guo et al., ICML 2017, arXiv 1706.04599. Of equal logits the class with the lower
    number counts as the higher one, as in argmax.

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
    reliability: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("nll", "brier", "top"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        for name in ("hits", "images"):
            self.add_state(name, torch.zeros(num_classes), dist_reduce_fx="sum")
        self.add_state("reliability", torch.zeros(3, BINS), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add images with logits (N, classes) of any float type and labels (N,)."""
        scores = logits.detach().float()
        log_p = scores.log_softmax(1)
        p = log_p.exp()
        truth = torch.zeros_like(log_p).scatter_(1, labels[:, None], 1.0)
        rank = _ranks(scores, labels)
        self.nll -= log_p.gather(1, labels[:, None]).sum()
        self.brier += (p - truth).square().sum()
        self.top += (rank < TOP).sum()
        self.hits += truth[rank == 0].sum(0)
        self.images += truth.sum(0)
        self.reliability += _binned(p.amax(1), rank == 0)

    def compute(self) -> dict[str, Tensor]:
        """``nll``, ``brier``, ``top5`` as scalars, ``class_accuracy`` (classes,), ``reliability``.

        The last is (3, BINS): images, mean confidence and accuracy of each bin. nan is what is not
        defined: ``top5`` of five classes or fewer, the accuracy of a class or bin without images.
        """
        count = self.images.sum()
        top = self.top / count if self.num_classes > TOP else torch.tensor(torch.nan)
        by_class = self.hits / self.images
        means = {"nll": self.nll / count, "brier": self.brier / count, "top5": top}
        images, confident, right = self.reliability
        bins = torch.stack([images, confident / images, right / images])
        return means | {"class_accuracy": by_class, "reliability": bins}


def _binned(confidence: Tensor, right: Tensor) -> Tensor:
    """Images, sum of confidence and right answers of each bin, (3, BINS), as torchmetrics bins."""
    edges = torch.linspace(0, 1, BINS + 1, device=confidence.device)
    place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, BINS - 1)
    values = torch.stack([torch.ones_like(confidence), confidence, right.float()])
    return values.new_zeros(3, BINS).index_add_(1, place, values)


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the true one, (N,); all where a score is no number."""
    own = scores.gather(1, labels[:, None])
    later = torch.arange(scores.shape[1], device=scores.device) >= labels[:, None]
    return (~((scores < own) | ((scores == own) & later))).sum(1)
