"""BiDet's two loss terms (Wang et al., CVPR 2020, arXiv 2003.03961) for a binarized SSD.

Both follow the released training script: the mutual information of image and maps is bounded with a
standard normal prior, which leaves the square of the maps; the prior of sparse objects is the
entropy of the scores that survive suppression. The functions are without the weights; the terms are
switched on late in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from bnnbench.backbones.ssd import BinarySSD, HeadOutputs
from bnnbench.losses.context import StepContext
from bnnbench.losses.multibox import Targets
from bnnbench.losses.regularizer import Regularizer


def information_bottleneck(maps: Sequence[Tensor]) -> Tensor:
    """Mean over the source maps of the mean square of each, a scalar."""
    return torch.stack([source.square().mean() for source in maps]).mean()


def sparse_object_prior(scores: Tensor, groups: Tensor, truths: Tensor) -> Tensor:
    """Entropy of surplus detections, a scalar.

    A group is a class in an image. Where it has more detections than truths, its entropy is
    ``-sum p log p`` over the truths, ``p`` being the scores over their sum, which is a constant;
    the loss is the mean over these groups, and 0 without any.

    Args:
        scores: of the detections, positive (D,).
        groups: group of each detection, int64 (D,).
        truths: number of objects of each group (G,); groups without any are left out.
    """
    zeros = scores.new_zeros(len(truths))
    counts = zeros.index_add(0, groups, torch.ones_like(scores))
    sums = zeros.index_add(0, groups, scores.detach())
    surplus = (truths > 0) & (counts > truths)
    p = scores / sums[groups]
    entropy = zeros.index_add(0, groups, -p * p.log()) / truths.clamp(min=1)
    return entropy[surplus].sum() / surplus.sum().clamp(min=1)


class LateTerm(Regularizer):
    """A term of detection that is 0 up to a fraction ``start`` of the run.

    Args:
        weight: of the term.
        start: in [0, 1); the released script starts at the first drop of the learning rate.
    """

    task = "detection"

    def __init__(self, weight: float, start: float) -> None:
        if weight < 0 or not 0 <= start < 1:
            raise ValueError(
                f"loss: a weight must not be negative and start in [0, 1); got {weight}, {start}"
            )
        self.weight, self.start, self.on = weight, start, False
        self._first_step = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first_step = self.start * float(trainer.estimated_stepping_batches)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, i: int
    ) -> None:
        self.on = trainer.global_step >= self._first_step

    def __call__(self, context: StepContext) -> Tensor:
        if not self.on:
            return context.logits.class_logits.new_zeros(())
        return self.weight * self.term(context)

    def term(self, context: StepContext) -> Tensor:
        """The term of one step, without its weight."""
        raise NotImplementedError


class InformationBottleneck(LateTerm):
    """``weight`` times the mean square of the source maps."""

    name = "bottleneck"

    def __init__(self, weight: float, start: float) -> None:
        super().__init__(weight, start)

    def term(self, context: StepContext) -> Tensor:
        return information_bottleneck(context.features)


class SparseObjectPrior(LateTerm):
    """``weight`` times the entropy of detections beyond the number of objects.

    Args:
        weight: of the term.
        start: fraction of the run.
        score: least score of a detection.
        overlap: IoU above which a detection suppresses a lower one of its class.
        candidates: at most so many detections of a class in an image.
    """

    name = "sparsity"

    def __init__(
        self,
        weight: float,
        start: float,
        score: float,
        overlap: float,
        candidates: int,
    ) -> None:
        super().__init__(weight, start)
        self.score, self.overlap, self.candidates = score, overlap, candidates
        self._net: BinarySSD | None = None

    def attach(self, pl_module: Any) -> None:
        super().attach(pl_module)
        self._net = pl_module.net

    def term(self, context: StepContext) -> Tensor:
        assert self._net is not None
        truths = _truths(context.targets, context.logits.class_logits.shape[2])
        scores, groups = self._detections(self._net, context.logits, truths)
        return sparse_object_prior(scores, groups, truths)

    def _detections(
        self, net: BinarySSD, outputs: HeadOutputs, truths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores and groups of what survives suppression, of groups that have a truth."""
        probabilities = outputs.class_logits.float().softmax(dim=2)
        classes = probabilities.shape[2]
        present = truths.nonzero().squeeze(1)
        of_groups = probabilities.transpose(1, 2)[present // classes, present % classes]
        best, boxes = of_groups.topk(min(self.candidates, len(net.anchors)))
        keep = (best > self.score).nonzero(as_tuple=True)
        scores, box, groups = best[keep], boxes[keep], present[keep[0]]
        with torch.no_grad():
            offsets = outputs.offsets[groups // classes, box].float()
            found = net.box_coder.decode_single(offsets, net.anchors[box])
            kept = batched_nms(found, scores, groups, self.overlap)
        return scores[kept], groups[kept]


def _truths(targets: Targets, classes: int) -> Tensor:
    """Objects of each class in each image, (images * classes,); class 0 has none."""
    counts = [torch.bincount(target["labels"], minlength=classes) for target in targets]
    return torch.cat(counts).float()
