"""SSD's MultiBox loss (Liu et al., ECCV 2016, arXiv 1512.02325, Eqs. 1 to 3), by torchvision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

Targets = list[dict[str, Tensor]]


class MultiBoxParts(NamedTuple):
    """Both sums over the number of matched default boxes (at least 1) of the batch."""

    classification: Tensor
    localization: Tensor


class MultiBox(nn.Module):
    """Cross entropy over matched and the hardest unmatched default boxes, and smooth L1 of offsets.

    Each truth has the default box that overlaps it most and all above an IoU of 0.5; three
    unmatched boxes an image are taken for every matched one, the hardest first. A batch without
    any object costs nothing.
    """

    def forward(self, net: SSD, outputs: tuple[Tensor, Tensor], targets: Targets) -> MultiBoxParts:
        """The loss of a batch.

        Args:
            net: whose default boxes ``anchors`` (A, 4) the outputs are of.
            outputs: class logits (N, A, classes + 1) and offsets (N, A, 4).
            targets: N dictionaries of ``boxes`` (n, 4), xyxy in pixels, and ``labels`` (n,) from 1.
        """
        anchors: Tensor = net.anchors  # pyright: ignore[reportAssignmentType]
        matched = [match(net, anchors, target["boxes"]) for target in targets]
        # float: half precision would round the logarithms of the box sizes
        named = {"cls_logits": outputs[0].float(), "bbox_regression": outputs[1].float()}
        losses = net.compute_loss(targets, named, [anchors] * len(targets), matched)
        return MultiBoxParts(losses["classification"], losses["bbox_regression"])


def match(net: SSD, anchors: Tensor, boxes: Tensor) -> Tensor:
    """The truth of each default box, int64 (A,), negative where it has none."""
    if len(boxes) == 0:
        return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    return net.proposal_matcher(box_iou(boxes, anchors))
