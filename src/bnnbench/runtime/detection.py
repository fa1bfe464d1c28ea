"""From the heads of an SSD to boxes, by torchvision's rules and without any code of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def default_boxes(boxes: Mapping[str, Any]) -> Tensor:
    """The default boxes (A, 4), xyxy in pixels.

    Args:
        boxes: ``aspect_ratios``, ``scales``, ``steps`` (None: even), ``sides`` of the maps, and
            ``size``, the image's pixels a side.
    """
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    size, steps = int(boxes["size"]), boxes["steps"]
    generator = DefaultBoxGenerator(boxes["aspect_ratios"], scales=boxes["scales"], steps=steps)
    image = ImageList(torch.empty(1, 3, size, size), [(size, size)])
    return generator(image, [torch.empty(1, 1, side, side) for side in boxes["sides"]])[0]


def detect(
    outputs: Sequence[Tensor], anchors: Tensor, size: int, rules: Mapping[str, Any]
) -> list[dict[str, Tensor]]:
    """Boxes (n, 4) xyxy in pixels, scores (n,) and labels (n,) from 1 of each image.

    Args:
        outputs: class logits (N, A, K + 1) and offsets (N, A, 4).
        anchors: default boxes (A, 4).
        size: the image's pixels a side.
        rules: ``score_thresh``, ``topk_candidates``, ``nms_thresh``, ``detections_per_img``.
    """
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.ssd import SSD

    logits, offsets = outputs
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    heads = {"cls_logits": logits.float(), "bbox_regression": offsets.float()}
    like = SimpleNamespace(box_coder=coder, **rules)
    count = len(logits)
    return SSD.postprocess_detections(like, heads, [anchors] * count, [(size, size)] * count)  # pyright: ignore
